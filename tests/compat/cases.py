"""The fixed cases: what applications do with SQLite, feature by feature.

Each takes a differ.Session and runs in both places. Whatever it asks is compared by itself; a case
has no expectations of its own, except that it waits for what it started. `case(...)` gives a case
its variants; `quick` ones are in the bounded subset of scripts/test.
"""

import time

import known

CASES = []  # (name, function, quick)

JOURNALS = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL"]
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{count})"


def case(*variants, quick=True):
    """Registers a case, once for each variant, which it gets as its second argument."""

    def register(function):
        name = function.__name__
        if not variants:
            CASES.append((name, function, quick))
        for number, variant in enumerate(variants):
            text = "-".join(map(str, variant)) if isinstance(variant, tuple) else str(variant)
            CASES.append(
                (
                    f"{name}[{text}]",
                    lambda s, v=variant: function(s, v),
                    quick if isinstance(quick, bool) else variant in quick,
                )
            )
        return function

    return register


def fill(c, table, count, size=100, first=1):
    c(
        f"{NUMBERS.format(count=count)} INSERT INTO {table}(id, a, b)"
        f" SELECT i+{first - 1}, i*7 % 101, blob(i+{first - 1}, {size}) FROM n"
    )


def look(c, table="t"):
    """Rows, and the order of an index."""
    c(
        f"SELECT count(*), sum(id), sum(a), sum(length(b)) FROM {table}",
        f"SELECT id, a, b FROM {table} ORDER BY id LIMIT 20",
        f"SELECT a, count(*), max(id) FROM {table} GROUP BY a ORDER BY a LIMIT 50",
    )


def sound(s, db="a.db"):
    """What a stranger finds afterwards: content and health, and the bytes themselves."""
    s.sizes(db)
    s.shell("PRAGMA integrity_check; PRAGMA foreign_key_check;\n.sha3sum --schema", db)
    s.digest(db)


TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)"
INDEX = "CREATE INDEX ta ON t(a, b)"


# --- journal modes, levels, page sizes ----------------------------------------------------------


@case(*[(j, s) for j in JOURNALS for s in ("OFF", "NORMAL", "FULL", "EXTRA")])
def journal_and_synchronous(s, variant):
    journal, synchronous = variant
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", f"PRAGMA synchronous={synchronous}", TABLE)
    s.sizes()
    c(INDEX)
    fill(c, "t", 300)
    s.sizes()
    c("UPDATE t SET a=a+1 WHERE id%3=0", "DELETE FROM t WHERE id%5=0")
    c("BEGIN", "UPDATE t SET b='gone'", "DELETE FROM t", "ROLLBACK")
    s.sizes()
    c("BEGIN", "INSERT INTO t VALUES(1000, 1, 'x')", "INSERT INTO t VALUES(1000, 1, 'y')")
    c("COMMIT", "INSERT INTO t VALUES(1000, 1, 'z')")
    look(c)
    s.sizes()
    d = s.open()
    d("PRAGMA journal_mode", "PRAGMA synchronous")
    look(d)
    c.close()
    s.sizes()
    d("INSERT INTO t VALUES(2000, 2, 'd')")
    d.close()
    sound(s)


@case(*[(j, n) for j in ("PERSIST", "TRUNCATE", "WAL") for n in (0, 10000, -1)])
def journal_size_limit(s, variant):
    journal, limit = variant
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", f"PRAGMA journal_size_limit={limit}", TABLE)
    c("PRAGMA wal_autocheckpoint=10")
    for turn in range(4):
        fill(c, "t", 100, 500, turn * 100 + 1)
        s.sizes()
        c(f"UPDATE t SET a=a+1 WHERE id%{turn + 2}=0")
        s.sizes()
    c("INSERT INTO t VALUES(9999, 1, 1)")
    s.sizes()
    look(c)
    c.close()
    sound(s)


@case("MEMORY", "OFF")
def no_journal(s, journal):
    c = s.open()
    c(TABLE)
    fill(c, "t", 20)
    c("PRAGMA journal_size_limit=-1", f"PRAGMA journal_mode={journal}", "SELECT count(*) FROM t")
    c("INSERT INTO t VALUES(100, 1, 1)")
    # the same connection is as good as new once it has a journal again
    c("PRAGMA journal_mode=DELETE", "DELETE FROM t WHERE id=100", "INSERT INTO t VALUES(101, 1, 1)")
    look(c)
    c.close()
    s.shell("PRAGMA integrity_check;\n.sha3sum --schema")


@case("MEMORY", "OFF")
def no_journal_from_the_start(s, journal):
    c = s.open()
    c(f"PRAGMA journal_mode={journal}")
    c(TABLE)
    c.close()
    s.remove()
    c = s.open()
    c("PRAGMA journal_mode=WAL", TABLE)
    # leaving WAL mode is a write, in the new mode already
    c(f"PRAGMA journal_mode={journal}")
    c("PRAGMA journal_mode=WAL")
    fill(c, "t", 3)
    look(c)
    c.close()
    s.shell("PRAGMA integrity_check;\n.sha3sum --schema")


@case(
    *[(j, n) for j in ("DELETE", "WAL") for n in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)]
)
def page_size(s, variant):
    journal, size = variant
    c = s.open()
    c(f"PRAGMA page_size={size}", f"PRAGMA journal_mode={journal}", "PRAGMA cache_size=5", TABLE)
    c(INDEX)
    fill(c, "t", 200, 700)
    c("PRAGMA page_size", "PRAGMA page_count", "PRAGMA freelist_count")
    s.sizes()
    c("BEGIN", "DELETE FROM t WHERE id>100", "UPDATE t SET b=blob(id, 3000) WHERE id<10", "COMMIT")
    c("INSERT INTO t VALUES(5000, 1, blob(1, 200000))", "DELETE FROM t WHERE id=5")
    look(c)
    c("PRAGMA freelist_count", "VACUUM", "PRAGMA page_count")
    s.sizes()
    c.close()
    sound(s)


@case(*[(j, v) for j in ("DELETE", "PERSIST", "WAL") for v in ("NONE", "FULL", "INCREMENTAL")])
def auto_vacuum(s, variant):
    journal, vacuum = variant
    c = s.open()
    c(f"PRAGMA auto_vacuum={vacuum}", f"PRAGMA journal_mode={journal}", TABLE, INDEX)
    for turn in range(3):
        fill(c, "t", 200, 1000, turn * 1000 + 1)
        s.sizes()
        c(f"DELETE FROM t WHERE id>{turn * 1000 + 30}")
        c("PRAGMA page_count", "PRAGMA freelist_count")
        s.sizes()
        c("PRAGMA incremental_vacuum(7)", "PRAGMA page_count", "PRAGMA freelist_count")
        s.sizes()
    c("BEGIN", "DELETE FROM t", "PRAGMA incremental_vacuum", "ROLLBACK")
    look(c)
    c("PRAGMA incremental_vacuum", "PRAGMA page_count", "DROP INDEX ta", "PRAGMA page_count")
    c("PRAGMA auto_vacuum=FULL", "VACUUM", "PRAGMA auto_vacuum", "PRAGMA page_count")
    c("PRAGMA auto_vacuum=NONE", "VACUUM", "PRAGMA auto_vacuum", "PRAGMA page_count")
    c.close()
    sound(s)


@case(*JOURNALS)
def exclusive_locking_mode(s, journal):
    c, d = s.open(), s.open(process=2)
    c(f"PRAGMA journal_mode={journal}", TABLE)
    fill(c, "t", 50)
    d("SELECT count(*) FROM t")
    c("PRAGMA locking_mode=EXCLUSIVE", "SELECT count(*) FROM t")
    s.sizes()
    d("SELECT count(*) FROM t")
    c("INSERT INTO t VALUES(100, 1, 1)", "INSERT INTO t VALUES(101, 1, 1)")
    s.sizes()
    d("SELECT count(*) FROM t", "INSERT INTO t VALUES(102, 1, 1)")
    c("PRAGMA locking_mode=NORMAL", "SELECT count(*) FROM t")
    d("SELECT count(*) FROM t", "INSERT INTO t VALUES(103, 1, 1)")
    look(c)
    c.close()
    d.close()
    sound(s)


@case(*[(j, m) for j in ("DELETE", "WAL") for m in ("before", "created")])
def exclusive_without_shm(s, variant):
    """In WAL mode, exclusive before the first access: SQLite then needs no -shm at all."""
    journal, when = variant
    if when == "before":
        c = s.open()
        c(f"PRAGMA journal_mode={journal}", TABLE)
        c.close()
    c, d = s.open(), s.open(process=2)
    c("PRAGMA locking_mode=EXCLUSIVE", f"PRAGMA journal_mode={journal}")
    if when == "created":
        c(TABLE)
    fill(c, "t", 100)
    s.sizes()
    d("SELECT count(*) FROM t")
    c("PRAGMA cache_size=3", "BEGIN", "UPDATE t SET b=blob(id, 900)", "UPDATE t SET a=a+1", "COMMIT")
    c("BEGIN", "DELETE FROM t", "ROLLBACK", "PRAGMA wal_checkpoint(TRUNCATE)")
    s.sizes()
    fill(c, "t", 100, 500, 1000)
    c("PRAGMA wal_autocheckpoint=5", "UPDATE t SET a=a+1", "UPDATE t SET a=a+1")
    look(c)
    d("SELECT count(*) FROM t")
    c.close()
    s.sizes()
    d("SELECT count(*) FROM t", "INSERT INTO t VALUES(3000, 3, 3)")
    c = s.open()
    c("PRAGMA locking_mode=EXCLUSIVE", "INSERT INTO t VALUES(3001, 3, 3)")
    d("SELECT count(*) FROM t")
    c("PRAGMA locking_mode=NORMAL", "SELECT count(*) FROM t")
    d("INSERT INTO t VALUES(3002, 3, 3)")
    look(c)
    c.close()
    d.close()
    sound(s)


# --- large transactions, spills, savepoints -----------------------------------------------------


@case(*[(j, n) for j in JOURNALS for n in (512, 4096)])
def spill(s, variant):
    journal, size = variant
    c, d = s.open(), s.open(process=2)
    c(f"PRAGMA page_size={size}", f"PRAGMA journal_mode={journal}", "PRAGMA cache_size=2", TABLE)
    c(INDEX)
    for turn in range(3):
        c("BEGIN")
        fill(c, "t", 200, 300, turn * 1000 + 1)
        c(f"UPDATE t SET b=blob(id+{turn}, 310) WHERE id%7=0", "UPDATE t SET a=a+1 WHERE id%3=0")
        fill(c, "t", 100, 200, turn * 1000 + 500)
        c("DELETE FROM t WHERE id%11=0", "UPDATE t SET a=a-1 WHERE id%3=0")
        d("SELECT count(*), sum(a) FROM t")
        c("COMMIT" if turn != 1 else "ROLLBACK")
        d("SELECT count(*), sum(a) FROM t")
        s.sizes()
    look(c)
    look(d)
    d.close()
    c.close()
    sound(s)


@case(*JOURNALS)
def savepoints(s, journal):
    """Without spills."""
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", TABLE, INDEX)
    fill(c, "t", 100)
    c("SAVEPOINT one", "UPDATE t SET a=a+1", "SAVEPOINT two", "DELETE FROM t WHERE id%2=0")
    c("SELECT count(*) FROM t", "ROLLBACK TO two", "SELECT count(*) FROM t", "RELEASE two")
    c("SAVEPOINT two", "DELETE FROM t WHERE id%3=0", "RELEASE two", "SAVEPOINT three")
    fill(c, "t", 300, 400, 1000)
    c("ROLLBACK TO three", "UPDATE t SET b=blob(id, 500) WHERE id%5=0", "RELEASE one")
    look(c)
    c("SAVEPOINT one", "DELETE FROM t", "ROLLBACK TO one", "RELEASE one", "RELEASE nothing")
    c("BEGIN", "SAVEPOINT x", "CREATE TABLE u(a)", "ROLLBACK TO x", "COMMIT", "SELECT * FROM u")
    c("INSERT OR ROLLBACK INTO t VALUES(1, 1, 1)", "BEGIN", "DELETE FROM t WHERE id=2")
    c("INSERT OR ROLLBACK INTO t VALUES(1, 1, 1)", "COMMIT", "SELECT count(*) FROM t")
    c("INSERT OR FAIL INTO t SELECT id+5000, 1, 1 FROM t UNION ALL SELECT 1, 1, 1")
    look(c)
    c.close()
    sound(s)


@case(*JOURNALS)
def savepoints_with_spill(s, journal):
    c = s.open()
    c("PRAGMA page_size=512", f"PRAGMA journal_mode={journal}", TABLE, INDEX)
    fill(c, "t", 500, 300)
    c("PRAGMA cache_size=2", "BEGIN", "UPDATE t SET a=a+1", "SAVEPOINT s")
    fill(c, "t", 500, 400, 1000)
    c("UPDATE t SET b=blob(id, 350)", "ROLLBACK TO s", "UPDATE t SET a=a+2 WHERE id<50", "COMMIT")
    look(c)
    c("BEGIN", "DELETE FROM t", "SAVEPOINT s", "INSERT INTO t VALUES(1,1,1)", "ROLLBACK")
    look(c)
    c("CREATE TABLE v(a INTEGER PRIMARY KEY, b)")
    c(f"{NUMBERS.format(count=40)} INSERT INTO v SELECT i, blob(i, 300) FROM n")
    c("BEGIN", "SAVEPOINT s", "UPDATE v SET b=blob(a, 301)")
    c("UPDATE v SET b=blob(a, 302) WHERE a>20", "ROLLBACK TO s", "RELEASE s")
    c("INSERT INTO v VALUES(1000, 1)")
    broken = journal == "WAL" and s.version < known.SPILL_MENDED
    c("COMMIT", known=known.SPILL_AND_ROLLBACK_TO if broken else None)
    if broken:
        c("PRAGMA cache_size=-20000", "REPLACE INTO v VALUES(1000, 1)")
    c("SELECT * FROM v")
    look(c)
    c.close()
    s.shell("PRAGMA integrity_check;\n.sha3sum --schema")


@case(*JOURNALS)
def big_blobs(s, journal):
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", TABLE, "INSERT INTO t VALUES(1, 1, zeroblob(3000000))")
    s.sizes()
    c.blob_write("t", "b", 1, 1234567, "x", 300000)
    c.blob_write("t", "b", 1, 2999890, "y", 100)
    c.blob_read("t", "b", 1)
    c.blob_read("t", "b", 2)
    c("INSERT INTO t VALUES(2, 2, blob('big', 5000000))", "UPDATE t SET b=b||b WHERE id=1")
    c("SELECT id, length(b), b FROM t", "BEGIN", "UPDATE t SET b=blob(3, 4000000) WHERE id=2")
    c.blob_write("t", "b", 1, 0, "z", 1000000)
    c("ROLLBACK", "SELECT id, b FROM t", "DELETE FROM t WHERE id=1", "PRAGMA freelist_count")
    s.sizes()
    c.close()
    sound(s)


# --- VACUUM -------------------------------------------------------------------------------------


@case(*JOURNALS)
def vacuum(s, journal):
    c, d = s.open(), s.open(process=2)
    c(f"PRAGMA journal_mode={journal}", TABLE, INDEX)
    fill(c, "t", 1000, 500)
    d("SELECT count(*) FROM t")
    c("DELETE FROM t WHERE id%3>0", "PRAGMA page_count", "VACUUM", "PRAGMA page_count")
    s.sizes()
    look(d)
    d("BEGIN", "SELECT count(*) FROM t")
    c("VACUUM", "BEGIN", "VACUUM", "COMMIT")
    d("COMMIT", "BEGIN IMMEDIATE")
    c("VACUUM")
    d("COMMIT")
    for size in (512, 65536, 1024):
        # in WAL mode the page size stays
        c(f"PRAGMA page_size={size}", "VACUUM", "PRAGMA page_size", "PRAGMA page_count")
        s.sizes()
        d("SELECT count(*) FROM t", "PRAGMA page_size")
        fill(c, "t", 50, 2000, size * 10)
    c("PRAGMA user_version=7", "PRAGMA application_id=99", "VACUUM", "PRAGMA user_version")
    look(d)
    d.close()
    c.close()
    sound(s)


@case(*JOURNALS)
def vacuum_into(s, journal):
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", TABLE, INDEX)
    fill(c, "t", 300, 500)
    c("DELETE FROM t WHERE id>200")
    c.vacuum_into("copy.db")
    sound(s, "copy.db")
    c.vacuum_into("copy.db")  # is there
    c.vacuum_into("copy.bak", known=known.OTHER_NAME)
    c("BEGIN")
    c.vacuum_into("third.db")
    c("COMMIT")
    d = s.open("copy.db", process=2)
    d("INSERT INTO t VALUES(7777, 7, 7)", "PRAGMA journal_mode=WAL", "DELETE FROM t WHERE id=3")
    look(d)
    d.close()
    c.close()
    sound(s)
    sound(s, "copy.db")


# --- WAL ----------------------------------------------------------------------------------------


@case("PASSIVE", "FULL", "RESTART", "TRUNCATE")
def checkpoint(s, mode):
    c, r = s.open(), s.open(process=2)
    c("PRAGMA journal_mode=WAL", TABLE, f"PRAGMA wal_checkpoint({mode})")
    s.sizes()
    fill(c, "t", 100, 300)
    c("PRAGMA wal_autocheckpoint=0", f"PRAGMA wal_checkpoint({mode})")
    s.sizes()
    c("UPDATE t SET a=a+1")
    s.sizes()
    r("BEGIN", "SELECT sum(a) FROM t")
    c("UPDATE t SET a=a+1", f"PRAGMA wal_checkpoint({mode})", "UPDATE t SET a=a+1")
    c(f"PRAGMA wal_checkpoint({mode})")
    s.sizes()
    r("SELECT sum(a) FROM t", "COMMIT", "SELECT sum(a) FROM t")
    c(f"PRAGMA wal_checkpoint({mode})", "INSERT INTO t VALUES(1000, 1, 1)")
    s.sizes()
    r("BEGIN", "SELECT sum(a) FROM t")
    c(f"PRAGMA wal_checkpoint({mode})", "INSERT INTO t VALUES(1001, 1, 1)")
    r("COMMIT", "BEGIN IMMEDIATE")
    c(f"PRAGMA wal_checkpoint({mode})")
    r("INSERT INTO t VALUES(1002, 1, 1)", f"PRAGMA wal_checkpoint({mode})", "COMMIT")
    c(f"PRAGMA wal_checkpoint({mode})", "BEGIN", f"PRAGMA wal_checkpoint({mode})", "COMMIT")
    look(r)
    s.sizes()
    c.close()
    r.close()
    sound(s)


@case(0, 1, 5, 100, 100000)
def wal_autocheckpoint(s, pages):
    c, r = s.open(), s.open(process=2)
    c("PRAGMA journal_mode=WAL", f"PRAGMA wal_autocheckpoint={pages}", TABLE, INDEX)
    for turn in range(12):
        fill(c, "t", 40, 400, turn * 100 + 1)
        if turn == 4:
            r("BEGIN", "SELECT count(*) FROM t")
        if turn == 8:
            r("SELECT count(*) FROM t", "COMMIT")
        s.sizes()
    c("PRAGMA wal_checkpoint")
    look(r)
    r.close()
    c.close()
    sound(s)


@case()
def wal_restart(s):
    """The -wal starts over after a checkpoint that nobody reads behind, again and again, and is
    longer than its generation then."""
    c, r = s.open(), s.open(process=2)
    c("PRAGMA journal_mode=WAL", TABLE, "PRAGMA wal_autocheckpoint=0")
    fill(c, "t", 400, 400)
    for turn in range(8):
        c(f"PRAGMA wal_checkpoint({('PASSIVE', 'RESTART', 'FULL')[turn % 3]})")
        c(f"UPDATE t SET a=a+{turn} WHERE id%{turn + 2}=0")
        r("SELECT sum(a) FROM t")
        s.sizes()
        c("BEGIN", "UPDATE t SET a=-1", "ROLLBACK")
        r("SELECT sum(a) FROM t")
    c("PRAGMA journal_size_limit=5000", "PRAGMA wal_checkpoint", "UPDATE t SET a=1 WHERE id=1")
    s.sizes()
    c.close()
    r("SELECT sum(a) FROM t")
    s.sizes()
    r.close()
    sound(s)


@case()
def wal_last_close(s):
    """The last connection to close checkpoints and removes the -wal."""
    for turn in range(4):
        c = s.open(process=1 + turn % 2)
        c("PRAGMA journal_mode=WAL", "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a, b)")
        fill(c, "t", 30, 100, turn * 100 + 1)
        s.sizes()
        c.close()
        s.sizes()
    r = s.open("file:a.db?mode=ro")
    r("SELECT count(*) FROM t", "INSERT INTO t VALUES(999, 1, 1)", "PRAGMA wal_checkpoint")
    s.sizes()
    r.close()
    s.sizes()
    sound(s)


@case(*[(j, n) for j in ("DELETE", "WAL") for n in (0, 65536, 100000000)])
def mmap_size(s, variant):
    journal, size = variant
    c, r = s.open(), s.open(process=2)
    for connection in (c, r):
        connection(f"PRAGMA mmap_size={size}")
    c(f"PRAGMA journal_mode={journal}", TABLE, INDEX)
    for turn in range(4):
        fill(c, "t", 200, 300, turn * 1000 + 1)
        look(r)
        c(f"UPDATE t SET a=a+1, b=blob(id+{turn}, 200) WHERE id%3=0", "DELETE FROM t WHERE id%13=0")
        look(r)
        if journal == "WAL":
            c(f"PRAGMA wal_checkpoint({('FULL', 'TRUNCATE')[turn % 2]})")
        r("SELECT sum(a) FROM t")
        c("VACUUM")
    look(r)
    r("UPDATE t SET a=0 WHERE id%2=0")
    look(c)
    r.close()
    c.close()
    sound(s)


@case(*[(a, b) for a in JOURNALS for b in JOURNALS if a != b])
def journal_mode_switched(s, variant):
    one, other = variant
    c, d = s.open(), s.open(process=2)
    c(f"PRAGMA journal_mode={one}", TABLE)
    fill(c, "t", 50)
    d("SELECT count(*) FROM t")
    for turn in range(2):
        c(f"PRAGMA journal_mode={other}")
        s.sizes()
        c("UPDATE t SET a=a+1", "PRAGMA journal_mode")
        d("PRAGMA journal_mode", "SELECT sum(a) FROM t", "UPDATE t SET a=a+1 WHERE id<10")
        c(f"PRAGMA journal_mode={one}", "UPDATE t SET a=a+1", "PRAGMA journal_mode")
        s.sizes()
        d("BEGIN", "SELECT sum(a) FROM t")
        c(f"PRAGMA journal_mode={other}")
        d("COMMIT")
    d.close()
    s.sizes()
    c(f"PRAGMA journal_mode={other}", "UPDATE t SET a=a+1", f"PRAGMA journal_mode={one}")
    s.sizes()
    c("BEGIN", "UPDATE t SET a=a+1", f"PRAGMA journal_mode={other}", "COMMIT")
    look(c)
    c.close()
    sound(s)


# --- several connections ------------------------------------------------------------------------


@case(*[(j, p) for j in ("DELETE", "PERSIST", "WAL") for p in (1, 2)])
def busy(s, variant):
    """In one process or in two."""
    journal, process = variant
    c, d = s.open(), s.open(process=process)
    c(f"PRAGMA journal_mode={journal}", TABLE)
    fill(c, "t", 10)
    for begin in ("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
        c(begin, "SELECT count(*) FROM t")
        d("SELECT count(*) FROM t", "BEGIN IMMEDIATE", "ROLLBACK", "BEGIN EXCLUSIVE", "ROLLBACK")
        d("INSERT INTO t(a) VALUES(1)", "PRAGMA user_version", "PRAGMA user_version=3")
        c("INSERT INTO t(a) VALUES(2)")
        d("SELECT count(*) FROM t", "INSERT INTO t(a) VALUES(1)", "BEGIN", "SELECT count(*) FROM t")
        c("COMMIT")
        d("COMMIT")
        c("COMMIT")
        d("INSERT INTO t(a) VALUES(3)")
    # a reader that wants to write what somebody else has written since
    c("BEGIN", "SELECT count(*) FROM t")
    d("INSERT INTO t(a) VALUES(4)", "SELECT count(*) FROM t")
    c("INSERT INTO t(a) VALUES(5)", "SELECT count(*) FROM t", "ROLLBACK")
    c("INSERT INTO t(a) VALUES(6)")
    # two that both read, both want to write
    c("BEGIN", "SELECT count(*) FROM t")
    d("BEGIN", "SELECT count(*) FROM t")
    c("INSERT INTO t(a) VALUES(7)")
    d("INSERT INTO t(a) VALUES(8)")
    c("COMMIT")
    d("COMMIT")
    c("COMMIT")
    look(c)
    look(d)
    # schema changes seen by the other
    c("CREATE TABLE u(x)", "INSERT INTO u VALUES(1)")
    d("SELECT * FROM u", "DROP TABLE u")
    c("SELECT * FROM u", "ALTER TABLE t ADD COLUMN z DEFAULT 4")
    d("SELECT z, count(*) FROM t GROUP BY z")
    d.close()
    c.close()
    sound(s)


@case(*[(j, p) for j in ("DELETE", "WAL") for p in (1, 2)])
def busy_timeout(s, variant):
    journal, process = variant
    c, d = s.open(), s.open(process=process)
    c(f"PRAGMA journal_mode={journal}", TABLE)
    d("PRAGMA busy_timeout=400", "SELECT count(*) FROM t")
    c("BEGIN IMMEDIATE", "INSERT INTO t(a) VALUES(1)")
    late = d.start("INSERT INTO t(a) VALUES(2)")
    late.wait()
    s.note("waited as long as it should", late.seconds > 0.35)
    d("PRAGMA busy_timeout=20000")
    pending = d.start("INSERT INTO t(a) VALUES(3)")
    time.sleep(0.3)
    c("COMMIT")
    pending.wait()
    s.note("waited for the other", 0.2 < pending.seconds < 15)
    look(c)
    c("BEGIN EXCLUSIVE")
    pending = d.start("BEGIN IMMEDIATE")
    time.sleep(0.2)
    c("ROLLBACK")
    pending.wait()
    d("INSERT INTO t(a) VALUES(4)", "COMMIT")
    look(c)
    d.close()
    c.close()
    sound(s)


@case(*JOURNALS)
def snapshots(s, journal):
    """Readers beside a writer, in the same process and in another."""
    c, near, far = s.open(), s.open(), s.open(process=2)
    c(f"PRAGMA journal_mode={journal}", TABLE, INDEX)
    fill(c, "t", 200)
    near("BEGIN", "SELECT count(*) FROM t")
    for turn in range(6):
        c("UPDATE t SET a=a+1", f"DELETE FROM t WHERE id={turn + 1}")
        near("SELECT count(*), sum(a) FROM t")
        far("SELECT count(*), sum(a) FROM t")
        if turn == 2:
            near("COMMIT")
            far("BEGIN", "SELECT count(*), sum(a) FROM t")
        if turn == 4:
            far("INSERT INTO t VALUES(5000, 1, 1)", "SELECT count(*), sum(a) FROM t", "COMMIT")
    look(near)
    look(far)
    near.close()
    far.close()
    c.close()
    sound(s)


@case(*[(j, b) for j in JOURNALS for b in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE")])
def writers_at_once(s, variant):
    """Threads in two processes: who comes first is chance, what is there in the end is not."""
    journal, begin = variant
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", "CREATE TABLE t(who, turn, body, PRIMARY KEY(who, turn))")
    c("CREATE TABLE totals(who PRIMARY KEY, n, bytes)")
    c("INSERT INTO totals VALUES(1,0,0),(2,0,0),(3,0,0),(4,0,0)")
    request = dict(
        op="hammer",
        db=s.name("a.db"),
        busy_ms=20000,
        threads=2,
        count=15,
        size=700,
        limit=60,
        begin=begin,
        pragmas=["cache_size=3", "wal_autocheckpoint=10", "synchronous=NORMAL"],
    )
    # the rows are (codes, errors): BUSY is chance with a rollback journal, and retried
    under_way = [
        s.step(process, dict(request, first=2 * process - 1), "hammer") for process in (1, 2)
    ]
    for pending in under_way:
        rows = pending.wait(120)
        codes, errors = rows[0]
        allowed = {"", "SQLITE_BUSY"} if journal != "WAL" else {""}
        pending.step.outcome = errors or (codes if codes not in allowed else "done")
    c("SELECT who, count(*), sum(length(body)) FROM t GROUP BY who", "SELECT * FROM totals")
    c("SELECT who, turn, body FROM t ORDER BY who, turn", "PRAGMA integrity_check")
    c.close()
    s.shell("PRAGMA integrity_check; SELECT * FROM totals ORDER BY who;")


# --- several databases --------------------------------------------------------------------------


@case(*JOURNALS)
def attach(s, journal):
    d = s.open("b.db", process=2)
    d(f"PRAGMA journal_mode={journal}", TABLE)
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", TABLE)
    c.attach("b.db", "o")
    c("INSERT INTO o.t VALUES(1, 1, 1)", "INSERT INTO t VALUES(2, 2, 2)")
    c("BEGIN", "INSERT INTO t VALUES(3, 3, 3)", "SELECT count(*) FROM o.t", "COMMIT")
    c("BEGIN", "INSERT INTO t VALUES(4, 4, 4)", "INSERT INTO o.t VALUES(4, 4, 4)", "ROLLBACK")
    c("BEGIN", "INSERT INTO t VALUES(5, 5, 5)", "INSERT INTO o.t VALUES(5, 5, 5)")
    d("SELECT count(*) FROM t", "BEGIN IMMEDIATE")
    c("COMMIT")
    d("SELECT count(*) FROM t")
    c("SELECT count(*), (SELECT count(*) FROM o.t) FROM t")
    c("BEGIN", "INSERT INTO o.t VALUES(6, 6, 6)")
    d("INSERT INTO t VALUES(7, 7, 7)")
    c("COMMIT", "DETACH o", "SELECT * FROM o.t")
    look(c)
    look(d)
    c.close()
    d.close()
    for db in ("a.db", "b.db"):
        s.shell("PRAGMA integrity_check;\n.sha3sum --schema", db)


def over_all(c, names, first):
    """Transactions over several of the databases: committed, rolled back, and half of each."""
    everywhere = [f"INSERT INTO {name}.t VALUES({first}, 1, 'one')" for name in names]
    c("BEGIN", *everywhere, "COMMIT")
    c("BEGIN", *[sql.replace(f"{first}", f"{first + 1}") for sql in everywhere], "ROLLBACK")
    c("BEGIN IMMEDIATE", *[f"UPDATE {name}.t SET a=a+1" for name in names[1:]], "COMMIT")
    c("BEGIN", f"UPDATE {names[0]}.t SET a=a+10", "SAVEPOINT s")
    c(*[f"DELETE FROM {name}.t" for name in names], "ROLLBACK TO s")
    c(f"INSERT INTO {names[-1]}.t VALUES({first + 2}, 1, 'last')", "COMMIT")
    c("BEGIN")
    for number, name in enumerate(names):
        fill(c, f"{name}.t", 60, 900, first + 100 + 100 * number)
    c("COMMIT", "BEGIN", *[f"DELETE FROM {name}.t WHERE id%7=0" for name in names])
    c("CREATE TABLE u(x)", f"CREATE TABLE {names[-1]}.u AS SELECT * FROM t", "COMMIT")
    c("DROP TABLE u", f"DROP TABLE {names[-1]}.u")
    for name in names:
        look(c, f"{name}.t")


@case(*[(j, n) for j in JOURNALS for n in (2, 3)])
def attach_several(s, variant):
    journal, count = variant
    dbs = ["a.db", "b.db", "c.db"][:count]
    c = s.open()
    names = ["main", *[f"o{number}" for number in range(1, count)]]
    for db, name in zip(dbs[1:], names[1:]):
        c.attach(db, name)
    for name in names:
        c(f"PRAGMA {name}.journal_mode={journal}", f"CREATE TABLE {name}.t(id, a, b)")
    for turn, synchronous in enumerate(("NORMAL", "FULL", "EXTRA", "OFF")):
        c(*[f"PRAGMA {name}.synchronous={synchronous}" for name in names])
        over_all(c, names, 1000 * turn + 1)
        for db in dbs:
            s.sizes(db)
    # a reader keeps one of them from being committed, so none is
    d = s.open(dbs[-1], process=2)
    d("BEGIN", "SELECT count(*) FROM t")
    c("BEGIN", *[f"INSERT INTO {name}.t VALUES(9001, 0, 0)" for name in names], "COMMIT")
    d("COMMIT")
    c("COMMIT")
    d("SELECT count(*) FROM t")
    d("BEGIN IMMEDIATE")
    c("BEGIN", *[f"INSERT INTO {name}.t VALUES(9002, 0, 0)" for name in names], "COMMIT")
    d("ROLLBACK")
    c("COMMIT", "SELECT count(*) FROM t")
    c.close()
    d("SELECT count(*) FROM t WHERE id>9000")
    for db in dbs:
        sound(s, db)


@case(
    ("DELETE", "PERSIST", "TRUNCATE"),
    ("PERSIST", "DELETE", "WAL"),
    ("WAL", "DELETE", "TRUNCATE"),
    ("TRUNCATE", "WAL", "WAL"),
    ("PERSIST", "MEMORY", "PERSIST"),
)
def attach_of_several_modes(s, journals):
    c = s.open()
    names = ["main", "o", "p"]
    c.attach("b.db", "o")
    c.attach("c.db", "p")
    for name, journal in zip(names, journals):
        c(f"CREATE TABLE {name}.t(id, a, b)", f"PRAGMA {name}.journal_mode={journal}")
    for turn in range(2):
        over_all(c, names, 1000 * turn + 1)
        c("PRAGMA locking_mode=EXCLUSIVE")
    c.close()
    for db in ("a.db", "b.db", "c.db"):
        sound(s, db)


@case(*[(j, where) for j in JOURNALS for where in ("main", "second", "third")])
def attach_with_one_elsewhere(s, variant):
    """One database lies beside the mount: in it, or not, lies the super-journal."""
    journal, where = variant
    dbs = [s.outside("a.db") if where == "main" else "a.db"]
    dbs += [s.outside("b.db") if where == "second" else "b.db"]
    dbs += [s.outside("c.db") if where == "third" else "c.db"]
    c = s.open(dbs[0])
    names = ["main", "o", "p"]
    c.attach(dbs[1], "o")
    c.attach(dbs[2], "p")
    for name in names:
        c(f"PRAGMA {name}.journal_mode={journal}", f"CREATE TABLE {name}.t(id, a, b)")
    for turn, synchronous in enumerate(("FULL", "NORMAL", "OFF")):
        c(*[f"PRAGMA {name}.synchronous={synchronous}" for name in names])
        over_all(c, names, 1000 * turn + 1)
    # refused because of each in turn
    for turn, db in enumerate(dbs):
        d = s.open(db, process=2)
        d("BEGIN", "SELECT count(*) FROM t")
        c("BEGIN", *[f"INSERT INTO {name}.t VALUES(9001, 0, 0)" for name in names], "COMMIT")
        c("ROLLBACK", *[f"SELECT count(*) FROM {name}.t" for name in names])
        d("COMMIT")
        d.close()
    c.close()
    for db in dbs:
        if not db.startswith("/"):
            sound(s, db)
    c = s.open(dbs[0])
    look(c)


@case(*[(j, "one") for j in JOURNALS])
def attach_memory_and_temp(s, variant):
    """Other databases of a connection that are not on the mount."""
    journal = variant[0]
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", TABLE, "ATTACH ':memory:' AS m", "CREATE TABLE m.u(x)")
    c("CREATE TEMP TABLE tt(x)", "BEGIN", "INSERT INTO tt VALUES(1)", "INSERT INTO m.u VALUES(2)")
    c("INSERT INTO t SELECT x, x, x FROM tt UNION SELECT x, x, x FROM m.u", "COMMIT")
    c("BEGIN", "INSERT INTO tt VALUES(3)", "INSERT INTO t VALUES(3, 3, 3)", "ROLLBACK")
    c("SELECT * FROM tt", "SELECT * FROM m.u")
    look(c)
    c.close()
    sound(s)


@case(*JOURNALS)
def removed_and_made_again(s, journal):
    for turn, other in enumerate((journal, "DELETE", "WAL", journal)):
        c = s.open(process=1 + turn % 2)
        c(f"PRAGMA page_size={512 << turn}", f"PRAGMA journal_mode={other}", TABLE)
        c("SELECT count(*) FROM t")
        fill(c, "t", 50 + turn)
        look(c)
        c.close()
        sound(s)
        if turn < 3:
            s.remove()
            s.sizes()
    c = s.open()
    look(c)
    c.close()


# --- copies -------------------------------------------------------------------------------------


@case(*JOURNALS)
def backup(s, journal):
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", TABLE, INDEX)
    fill(c, "t", 400, 300)
    # onto a new database, step by step, and again over what is there
    d = s.open("b.db")
    c.backup(d, 10)
    look(d)
    c("DELETE FROM t WHERE id>100", "UPDATE t SET a=5")
    c.backup(d)
    look(d)
    d("INSERT INTO t VALUES(9000, 1, 1)")
    # onto one of another page size and mode, and back
    e = s.open("e.db")
    e("PRAGMA page_size=1024", "CREATE TABLE x(y)", "PRAGMA journal_mode")
    c.backup(e)
    e("PRAGMA page_size", "PRAGMA journal_mode", "SELECT count(*) FROM t")
    w = s.open("w.db")
    w("PRAGMA page_size=1024", "PRAGMA journal_mode=WAL", "CREATE TABLE x(y)")
    c.backup(w)
    w("PRAGMA page_size", "PRAGMA journal_mode")
    d.backup(c, 3)
    look(c)
    # out of the mount, and in
    m = s.open(":memory:")
    c.backup(m)
    m("UPDATE t SET a=77")
    m.backup(c)
    look(c)
    d("BEGIN IMMEDIATE")
    c.backup(d)
    d("COMMIT")
    for connection in (m, w, e, d, c):
        connection.close()
    for db in ("a.db", "b.db", "e.db", "w.db"):
        sound(s, db)


@case(*JOURNALS)
def shell_copies(s, journal):
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", TABLE, INDEX, "CREATE VIEW v AS SELECT a, count(*) n FROM t")
    fill(c, "t", 100, 60)
    c("CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE t SET a=-1 WHERE id=new.id-1; END")
    c.close()
    s.shell(".dump")
    s.shell(".backup @b.db")
    s.shell(".clone @clone.db")
    s.shell(".save @s.db")
    s.shell("INSERT INTO t VALUES(5000, 1, 1);\n.restore @b.db\nSELECT count(*) FROM t;")
    s.shell(".restore @b.db\nSELECT count(*) FROM t;", "r.db")
    s.shell(".backup @b.txt", known=known.OTHER_NAME_IN_SHELL)
    s.shell(".dbinfo")
    s.shell(".recover --ignore-freelist")
    for db in ("a.db", "b.db", "clone.db", "s.db", "r.db"):
        s.shell("PRAGMA journal_mode; PRAGMA integrity_check;\n.sha3sum --schema", db)


# --- odds and ends ------------------------------------------------------------------------------


@case(*JOURNALS)
def open_modes(s, journal):
    c = s.open("file:a.db?mode=rw")
    c("SELECT 1", "CREATE TABLE t(a)")
    c.close()
    c = s.open("file:a.db?mode=rwc")
    c(f"PRAGMA journal_mode={journal}", TABLE)
    fill(c, "t", 10)
    r = s.open("file:a.db?mode=ro", process=2)
    look(r)
    r("INSERT INTO t VALUES(99, 1, 1)", "PRAGMA journal_mode=DELETE", "VACUUM")
    r("PRAGMA query_only=1", "SELECT count(*) FROM t")
    c("INSERT INTO t VALUES(98, 1, 1)")
    look(r)
    r.close()
    c.close()
    i = s.open("file:a.db?immutable=1")
    i("SELECT count(*) FROM t", "INSERT INTO t VALUES(97, 1, 1)")
    i.close()
    r = s.open("file:a.db?mode=ro")
    look(r)
    r.close()
    sound(s)


@case(*JOURNALS)
def wide_features(s, journal):
    """Virtual tables, foreign keys, triggers, WITHOUT ROWID, generated columns, upserts."""
    c = s.open()
    c(f"PRAGMA journal_mode={journal}", "PRAGMA foreign_keys=ON")
    c("CREATE TABLE p(id INTEGER PRIMARY KEY AUTOINCREMENT, n UNIQUE)")
    c("CREATE TABLE k(id PRIMARY KEY, p REFERENCES p ON DELETE CASCADE) WITHOUT ROWID")
    c("INSERT INTO p(n) VALUES('a'),('b'),('c')", "INSERT INTO k VALUES('x', 1),('y', 2)")
    c("INSERT INTO k VALUES('z', 99)", "DELETE FROM p WHERE id=1", "SELECT * FROM k")
    c("INSERT INTO p(n) VALUES('b') ON CONFLICT(n) DO UPDATE SET n='bb' RETURNING id, n")
    c("CREATE VIRTUAL TABLE f USING fts5(body)", "INSERT INTO f VALUES('some words'),('and more')")
    c("SELECT rowid, body FROM f WHERE f MATCH 'more'", "INSERT INTO f(f) VALUES('optimize')")
    c("CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)", "INSERT INTO r VALUES(1, 2, 3)")
    c("CREATE TABLE g(a, b AS (a*2) STORED, c AS (a*3))", "INSERT INTO g(a) VALUES(4)")
    c("SELECT * FROM g", "ANALYZE", "REINDEX", "SELECT * FROM sqlite_stat1 ORDER BY 1, 2")
    c("PRAGMA user_version=5", "PRAGMA application_id=6", "PRAGMA secure_delete=ON")
    c("DELETE FROM f", "DROP TABLE k", "PRAGMA foreign_key_check", "PRAGMA data_version")
    c("PRAGMA max_page_count=12", "INSERT INTO p(n) VALUES(blob(1, 100000))")
    c("PRAGMA max_page_count=1000000", "INSERT INTO p(n) VALUES(blob(1, 100000))")
    c("SELECT * FROM sqlite_sequence", "PRAGMA encoding")
    c.close()
    sound(s)


@case()
def utf16_and_empty(s):
    c = s.open()
    c("PRAGMA encoding='UTF-16le'", "PRAGMA journal_mode=WAL", TABLE)
    c("INSERT INTO t VALUES(1, 'ä', '€')", "SELECT * FROM t")
    c.close()
    sound(s)
    e = s.open("e.db")
    e("SELECT * FROM sqlite_master", "BEGIN", "COMMIT", "PRAGMA journal_mode", "BEGIN IMMEDIATE")
    e("ROLLBACK")
    s.sizes("e.db")
    e("PRAGMA journal_mode=WAL")
    s.sizes("e.db")
    e("PRAGMA journal_mode=DELETE", "VACUUM")
    s.sizes("e.db")
    e.close()
    s.shell("PRAGMA integrity_check;\n.sha3sum --schema", "e.db")
