"""SQLite without a journal and without fsync (synchronous=OFF): a transaction is committed when its
EXCLUSIVE lock is released, while the connection stays open."""

import os
import subprocess
import time

import pytest
from harness import (
    PYTHON,
    WORKERS,
    Cluster,
    Connection,
    SqlError,
    Workspace,
    over_io_uring,
    sql,
    until,
)

NO_JOURNAL = ["MEMORY", "OFF"]
NOT_TOLD = [PYTHON, str(WORKERS / "refuse.py"), "perf_event_open"]

# Pairs of rows, far apart, that are the same at the end of each transaction.
PAIRS = """
CREATE TABLE pairs(i INTEGER PRIMARY KEY, number, x);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 40)
INSERT INTO pairs SELECT i, 0, hex(zeroblob(1500)) FROM n;
"""
UNEQUAL = "SELECT count(DISTINCT number) - 1, max(number) FROM pairs"

# Writes them in some transactions, with a cache of a few pages, so that each is written in pieces.
WRITER = """if True:
    import sqlite3, sys, time
    path, journal, count, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    c = sqlite3.connect(path, isolation_level=None, timeout=30)
    for pragma in ("synchronous=OFF", f"journal_mode={journal}", "cache_size=4"):
        c.execute(f"PRAGMA {pragma}").fetchall()
    number = c.execute("SELECT max(number) FROM pairs").fetchone()[0]
    for _ in range(count):
        number += 1
        c.execute("BEGIN")
        c.execute("UPDATE pairs SET number=? WHERE i%2=0", (number,))
        c.execute("UPDATE pairs SET number=? WHERE i%2=1", (number,))
        c.execute("COMMIT")
        print(number, flush=True)
        time.sleep(pause)
    print("done", flush=True)
    sys.stdin.read()
    """


@pytest.fixture(scope="module", params=["told", "not told"])
def any_cluster(request):
    """On a kernel that tells the daemons of lock calls, and on one that does not; each on one of the
    two transports."""
    told = request.param == "told"
    options = ["--election-timeout", "3000"]
    options += over_io_uring() if told else ["--fuse-uring=off"]
    with Workspace() as workspace:
        cluster = Cluster(workspace, options=options, prefixes=None if told else [NOT_TOLD] * 3)
        cluster.told = told
        yield cluster.start()


def connect(node, db, journal, *pragmas, **more):
    c = Connection(node, db, busy_ms=10000, timeout=40, **more)
    for pragma in ("synchronous=OFF", f"journal_mode={journal}", *pragmas):
        c.execute(f"PRAGMA {pragma}")
    return c


def start_writer(node, db, journal, count, pause):
    process = subprocess.Popen(
        [PYTHON, "-c", WRITER, str(node.path(db)), journal, str(count), str(pause)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    node.workspace.children.append(process)
    return process


def is_told(node):
    """Has the daemon switched on that it is told of lock calls?"""
    folder = f"/proc/{node.process.pid}/fd"
    links = []
    for name in os.listdir(folder):
        try:
            links.append(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            pass
    return any("perf_event" in link for link in links)


def test_transactions_are_replicated_while_the_connection_stays_open(any_cluster):
    leader = any_cluster.leader()
    for journal in NO_JOURNAL:
        db = f"{journal.lower()}.db"
        sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
        with connect(leader, db, journal) as c:
            for number in range(1, 21):
                c.execute("INSERT INTO t(x) VALUES(hex(randomblob(3000)))")
                for node in any_cluster.nodes:
                    until(
                        f"transaction {number} is on {node}",
                        lambda: sql(node, db, "SELECT count(*) FROM t", busy_ms=5000)
                        == str(number),
                    )
            assert not leader.database(db)["uncommitted"]
            c.kill9()
        assert any_cluster.wait_same(db, "SELECT count(*) FROM t") == "20"
        any_cluster.check_sound(db)
    told = "does not tell this node of file locks" not in leader.log_text()
    assert told == any_cluster.told


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_what_was_replicated_outlives_application_and_leader(any_cluster, db, journal):
    leader = any_cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    c = connect(leader, db, journal)
    for _ in range(20):
        c.execute("INSERT INTO t(x) VALUES(hex(randomblob(3000)))")
    until("it is committed", lambda: not leader.database(db)["uncommitted"])
    c.kill9()
    leader.kill9()
    any_cluster.wait_leader(30, other_than=leader)
    assert any_cluster.wait_same(db, "SELECT count(*) FROM t") == "20"
    leader.start()
    any_cluster.check_sound(db)
    assert any_cluster.wait_same(db, "SELECT count(*) FROM t") == "20"


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_process_killed_in_its_next_transaction_loses_only_that(shared_cluster, db, journal):
    """However soon that follows: what the overlay holds then is two transactions, or would be."""
    leader = shared_cluster.leader()
    sql(leader, db, PAIRS)
    script = WRITER.replace(
        'print("done", flush=True)',
        'c.execute("BEGIN"); c.execute("UPDATE pairs SET number=-1"); print("done", flush=True)',
    )
    for turn in range(1, 9):
        process = subprocess.Popen(
            [PYTHON, "-c", script, str(leader.path(db)), journal, "3", "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        leader.workspace.children.append(process)
        lines = [process.stdout.readline().strip() for _ in range(4)]
        assert lines[-1] == "done", lines
        process.kill()
        process.wait()
        assert sql(leader, db, UNEQUAL, busy_ms=5000) == f"0|{3 * turn}"
    shared_cluster.check_sound(db)
    assert shared_cluster.wait_same(db, UNEQUAL) == "0|24"


@pytest.mark.parametrize("pause", [0, 0.01])
@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_every_version_of_a_busy_writer_is_whole(any_cluster, db, journal, pause, soak):
    leader = any_cluster.leader()
    sql(leader, db, PAIRS)
    assert any_cluster.wait_same(db, UNEQUAL) == "0|0"
    version = leader.database(db)["version"]
    count = 3000 if soak else 300 if pause else 600
    process = start_writer(leader, db, journal, count, pause)
    readers = [Connection(node, db, busy_ms=20000, timeout=60) for node in any_cluster.followers()]
    seen = set()
    while process.poll() is None:
        for reader in readers:
            (unequal, number), *_ = reader.execute(UNEQUAL)
            assert unequal == 0, f"a part of transaction {number} is seen"
            seen.add(number)
        if count in seen:
            break
    assert seen - {0, count}, "the followers saw nothing on the way"
    until("the last is committed", lambda: not leader.database(db)["uncommitted"])
    any_cluster.wait_equal()
    assert sql(any_cluster.followers()[0], db, UNEQUAL, busy_ms=5000) == f"0|{count}"
    if any_cluster.told:  # each was committed for itself
        assert leader.database(db)["version"] == version + count
    for reader in readers:
        reader.close()
    process.communicate("")
    any_cluster.check_sound(db)


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_transaction_written_in_pieces_is_not_split(any_cluster, db, journal):
    leader = any_cluster.leader()
    sql(leader, db, PAIRS)
    version = leader.database(db)["version"]
    with connect(leader, db, journal, "cache_size=4") as c:
        for number in range(1, 4):
            c.execute("BEGIN")
            for i in range(1, 41):
                c.execute(f"UPDATE pairs SET number={number} WHERE i={i}")
                if i % 20 == 0:  # time to be looked at
                    assert leader.database(db)["uncommitted"]
                    time.sleep(0.6)
            assert leader.database(db)["version"] == version + number - 1
            c.execute("COMMIT")
            until("committed", lambda: leader.database(db)["version"] == version + number)
            assert any_cluster.wait_same(db, UNEQUAL) == f"0|{number}"
    any_cluster.check_sound(db)


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_exclusive_locking_mode_is_told_of_and_committed_by_the_close(any_cluster, db, journal):
    leader = any_cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    version = leader.database(db)["version"]

    def lines():
        text = leader.stderr_path.read_text().splitlines()
        return [line for line in text if "keeps its lock" in line and f"database={db}" in line]

    with connect(leader, db, journal, "locking_mode=EXCLUSIVE") as c:
        for _ in range(10):
            c.execute("INSERT INTO t(x) VALUES(1)")
        assert leader.database(db)["uncommitted"]
        until("a line", lines, timeout=30)
        c.execute("INSERT INTO t(x) VALUES(1)")
        time.sleep(1)
        assert leader.database(db)["version"] == version
        assert len(lines()) == 1
        status = leader.text_status()
        assert [line for line in status.splitlines() if db in line and "UNCOMMITTED" in line]
    any_cluster.check_sound(db)
    assert any_cluster.wait_same(db, "SELECT count(*) FROM t") == "11"
    assert not leader.database(db)["uncommitted"]


def test_leaving_the_exclusive_locking_mode_commits(shared_cluster, db):
    leader = shared_cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    with connect(leader, db, "MEMORY", "locking_mode=EXCLUSIVE") as c:
        c.execute("INSERT INTO t(x) VALUES(1)")
        c.execute("PRAGMA locking_mode=NORMAL")
        c.value("SELECT count(*) FROM t")  # releases it
        until("it is committed", lambda: not leader.database(db)["uncommitted"])
        assert shared_cluster.wait_same(db, "SELECT count(*) FROM t") == "1"


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_processes_take_turns(any_cluster, db, journal):
    leader = any_cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    journals = [journal, journal, "DELETE", "TRUNCATE", "PERSIST"]
    writers = [connect(leader, db, mode) for mode in journals]
    for turn in range(20):
        for c in writers:
            c.execute("INSERT INTO t(x) VALUES(hex(randomblob(2000)))")
    until("it is committed", lambda: not leader.database(db)["uncommitted"])
    any_cluster.wait_equal()
    assert any_cluster.wait_same(db, "SELECT count(*) FROM t") == "100"
    for c in writers:
        c.kill9()
    any_cluster.check_sound(db)


@pytest.mark.parametrize("other", ["DELETE", "TRUNCATE", "PERSIST"])
def test_rollback_of_another_process_meets_a_commit_on_its_way(cluster, db, other):
    """Its journal goes while the session before it waits for a majority."""
    leader = cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 1);")
    cluster.wait_equal()
    a, b = connect(leader, db, "MEMORY"), connect(leader, db, other)
    assert b.value("SELECT count(*) FROM t") == 1
    if other == "PERSIST":
        b.execute("INSERT INTO t VALUES(2, 2)")
    cluster.wait_equal()
    before = b.value("SELECT count(*) FROM t")
    followers = cluster.followers()
    for node in followers:
        node.pause()
    a.execute("INSERT INTO t(x) VALUES('a')")
    b.execute("BEGIN IMMEDIATE")
    b.execute("INSERT INTO t(x) VALUES('b')")
    b.execute("ROLLBACK")
    assert leader.database(db)["uncommitted"]
    for node in followers:
        node.resume()
    until("it is committed", lambda: not leader.database(db)["uncommitted"])
    assert cluster.wait_same(db, "SELECT count(*) FROM t") == str(before + 1)
    b.execute("INSERT INTO t(x) VALUES('b')")
    cluster.check_sound(db)
    assert cluster.wait_same(db, "SELECT count(*) FROM t") == str(before + 2)


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_process_killed_while_its_commit_is_on_its_way_loses_nothing(cluster, db, journal):
    leader = cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    cluster.wait_equal()
    c = connect(leader, db, journal)
    followers = cluster.followers()
    for node in followers:
        node.pause()
    c.execute("INSERT INTO t VALUES(1, hex(randomblob(3000)))")
    assert leader.database(db)["uncommitted"]
    c.process.kill()  # its end waits for the commit
    time.sleep(0.3)
    assert leader.database(db)["uncommitted"]
    for node in followers:
        node.resume()
    c.process.wait(30)
    assert cluster.wait_same(db, "SELECT count(*) FROM t") == "1"
    cluster.check_sound(db)


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_commit_that_fails_later_is_told_by_the_log(workspace, db, journal):
    """SQLite has reported success: all who have the database open lose it."""
    cluster = Cluster(workspace, options=["--commit-timeout", "1"]).start()
    leader = cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 'before');")
    cluster.wait_equal()
    c = connect(leader, db, journal)
    dead = [node for node in cluster.nodes if node is not leader]
    for node in dead:
        node.kill9()
    c.execute("INSERT INTO t VALUES(2, 'alone')")
    until("a line", lambda: "lost: what was written" in leader.log_text())
    with pytest.raises(SqlError, match="IOERR|CANTOPEN"):
        c.execute("INSERT INTO t VALUES(3, 'behind')")
    c.kill9()
    assert sql(leader, db, "SELECT group_concat(i) FROM t; PRAGMA integrity_check") == "1\nok"
    for node in dead:
        node.start()
    cluster.wait_leader(30)
    cluster.check_sound(db)
    # its outcome was unknown: all or nothing
    assert cluster.wait_same(db, "SELECT group_concat(i) FROM t") in ("1", "1,2")


def test_lock_calls_are_told_only_while_somebody_writes_so(shared_cluster, db):
    leader = shared_cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    with Connection(leader, db, busy_ms=5000) as c:
        c.execute("PRAGMA journal_mode=MEMORY")
        c.execute("INSERT INTO t(x) VALUES('the first is watched, as it may be without fsync')")
        until("off", lambda: not is_told(leader))
        told = 0
        for _ in range(50):
            c.execute("INSERT INTO t(x) VALUES('with fsync')")
            told += is_told(leader)
        assert told < 25  # a busy machine may make a transaction last long
        c.execute("PRAGMA synchronous=OFF")
        c.execute("PRAGMA cache_size=4")
        c.execute("BEGIN")
        for _ in range(20):
            c.execute("INSERT INTO t(x) VALUES(hex(randomblob(3000)))")
        until("on", lambda: is_told(leader))
        c.execute("COMMIT")
        until("it is committed", lambda: not leader.database(db)["uncommitted"])
        until("off", lambda: not is_told(leader))
    shared_cluster.check_sound(db)
