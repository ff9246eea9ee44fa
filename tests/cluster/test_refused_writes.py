"""What is refused is out of the kernel's cache again: nobody reads it, and nobody commits it with a change
of his own. What goes on with a transaction that failed is refused at once."""

import errno
import os
import signal
import subprocess

import pytest
from harness import (
    PROGRAM,
    PYTHON,
    Cluster,
    Connection,
    Node,
    SqlError,
    run,
    sql,
    until,
)

PAGE = 4096
ROWS = 300
SEEN = "SELECT count(*), sum(b LIKE 'genuine%'), sum(b LIKE 'REFUSED%') FROM t"
MAPPED = 100 << 20

# Writes bytes of page 6 that say REFUSED for genuine; how the kernel takes it is up to offset and length.
WRITE = """
import errno, os, sys
path, flags, skip, length, times = sys.argv[1], *map(int, sys.argv[2:])
source = os.open(path, os.O_RDONLY)
fd = os.open(path, flags)
for _ in range(times):
    good = os.pread(source, length, 5 * 4096 + skip)
    assert b"REFUSED" not in good
    try:
        print(os.pwrite(fd, good.replace(b"genuine", b"REFUSED"), 5 * 4096 + skip))
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def write_refused(path, flags=os.O_RDWR, skip=0, length=PAGE, times=1):
    result = run([PYTHON, "-c", WRITE, str(path), flags, skip, length, times], timeout=60)
    assert result.code == 0, result
    return result.out.split()


def fill(node, db, mode):
    sql(
        node,
        db,
        f"PRAGMA journal_mode={mode}; CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT {ROWS})"
        "INSERT INTO t SELECT i, 'genuine ' || printf('%0400d', i) FROM n;"
        "PRAGMA wal_checkpoint(TRUNCATE);",
    )


def mapping(node, db):
    c = Connection(node, db)
    c.execute("PRAGMA cache_size=1")
    assert c.value(f"PRAGMA mmap_size={MAPPED}") == MAPPED
    return c


@pytest.fixture(params=["on", "off"])
def transport(request, workspace):
    """One node, whose requests come over io_uring, or by /dev/fuse."""
    if request.param == "on" and not os.path.exists("/sys/module/fuse/parameters/enable_uring"):
        pytest.skip("this kernel has no FUSE over io_uring")
    node = Node(workspace, "n1", options=[f"--fuse-uring={request.param}"]).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    return node


# --- other programs ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("skip, length", [(0, PAGE), (0, 3 * PAGE), (PAGE // 2, PAGE)])
def test_refused_write_is_not_read_through_a_mapping_nor_committed(
    transport, db, mode, skip, length
):
    fill(transport, db, mode)
    with mapping(transport, db) as reader:
        assert reader.execute(SEEN) == [(ROWS, ROWS, 0)]
        assert write_refused(transport.path(db), skip=skip, length=length) == ["EBUSY"]
        assert reader.execute(SEEN) == [(ROWS, ROWS, 0)]
        reader.execute("UPDATE t SET b = b || '.'")
        assert reader.execute(SEEN) == [(ROWS, ROWS, 0)]
        assert reader.value("PRAGMA integrity_check") == "ok"
    assert sql(transport, db, SEEN) == f"{ROWS}|{ROWS}|0"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_refused_write_by_who_only_writes_is_never_in_the_cache(transport, db, mode):
    fill(transport, db, mode)
    with mapping(transport, db) as reader:
        reader.execute(SEEN)
        writer = subprocess.Popen(
            [PYTHON, "-c", WRITE, str(transport.path(db)), str(os.O_WRONLY), "100", "5000", "2"],
            stdout=subprocess.PIPE,
            text=True,
        )
        while writer.poll() is None:
            assert reader.execute(SEEN) == [(ROWS, ROWS, 0)]
        assert writer.communicate()[0].split() == ["EBUSY"] * 2


def test_refused_writes_and_reads_of_the_same_pages_do_not_wait_for_each_other(transport, db):
    """Pages that are locked until the answer, such as are not, and readers that want all of them."""
    fill(transport, db, "wal")
    read = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for _ in range(3000):
    os.pread(fd, 1 << 16, 4 * 4096)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
"""
    with Connection(transport, db) as reader:
        reader.execute("SELECT count(*) FROM t")
        path = str(transport.path(db))
        children = [
            subprocess.Popen(
                [PYTHON, "-c", WRITE, path, str(os.O_RDWR), str(skip), str(length), "1000"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it may read what another one is just refused
                text=True,
            )
            for skip, length in ((0, PAGE), (100, 300), (100, PAGE), (2000, 5 * PAGE))
        ] + [subprocess.Popen([PYTHON, "-c", read, path], stdout=subprocess.PIPE) for _ in range(2)]
        transport.workspace.children += children
        for child in children:
            out = child.communicate(timeout=90)[0]
            assert set(out.split()) <= {"EBUSY"}
        assert reader.execute(SEEN) == [(ROWS, ROWS, 0)]


def test_node_ends_while_writes_are_refused(transport, db):
    fill(transport, db, "delete")
    write = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
page = bytes(int(sys.argv[2]))
print(flush=True)
while True:
    try:
        os.pwrite(fd, page, 5 * 4096 + 100)
    except OSError as error:
        if error.errno not in (16, 5):
            sys.exit(error.errno)
"""
    with Connection(transport, db) as reader:
        reader.execute("SELECT count(*) FROM t")
        writers = []
        for size in (50, 5000, 70000):
            writer = subprocess.Popen(
                [PYTHON, "-c", write, str(transport.path(db)), str(size)], stdout=subprocess.PIPE
            )
            transport.workspace.children.append(writer)
            writer.stdout.readline()
            writers.append(writer)
        transport.process.send_signal(signal.SIGTERM)
        assert transport.wait_ended() == 0, transport.log_tail(20)
        for writer in writers:
            # the last is the kernel's for a request that lies in a ring which goes
            assert writer.wait(20) in (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED)


@pytest.mark.parametrize("how", ["nolock=1", "vfs=unix-excl", "vfs=unix-none"])
@pytest.mark.parametrize("journal", ["DELETE", "PERSIST", "MEMORY", "OFF"])
def test_program_without_locks_on_a_follower_shows_nobody_what_it_was_refused(
    shared_cluster, how, journal
):
    db = f"lockless_{journal}_{how[-4:]}.db"
    leader = shared_cluster.leader()
    sql(leader, db, "CREATE TABLE t(v); INSERT INTO t VALUES('good');")
    shared_cluster.wait_equal()
    follower = shared_cluster.followers()[0]
    script = """
import sqlite3, sys
c = sqlite3.connect(f"file:{sys.argv[1]}?{sys.argv[2]}", uri=True, isolation_level=None)
c.execute(f"PRAGMA journal_mode={sys.argv[3]}")
try:
    c.execute(sys.argv[4])
    sys.exit("accepted")
except sqlite3.OperationalError as error:
    print(error.sqlite_errorname)
"""

    def refused():
        for statement in ("UPDATE t SET v='evil'", "INSERT INTO t SELECT zeroblob(9000)"):
            path = str(follower.path(db))
            result = run([PYTHON, "-c", script, path, how, journal, statement])
            assert result.code == 0 and result.out.startswith("SQLITE_"), result
            assert sql(follower, db, "SELECT group_concat(v) FROM t") == "good"

    refused()
    with Connection(follower, db) as reader:
        assert reader.value("SELECT group_concat(v) FROM t") == "good"
        if "excl" not in how:  # that one waits for readers to leave
            refused()
        assert reader.value("SELECT group_concat(v) FROM t") == "good"
    assert sql(follower, db, "SELECT group_concat(v) FROM t; PRAGMA integrity_check") == "good\nok"
    sql(leader, db, "INSERT INTO t VALUES('next')", busy_ms=5000)
    shared_cluster.check_sound(db)
    assert shared_cluster.wait_same(db, "SELECT group_concat(v) FROM t") == "good,next"
    assert leader.database(db)["version"] == 3


@pytest.mark.parametrize("end", ["rollback", "kill"])
@pytest.mark.parametrize("journal", ["DELETE", "TRUNCATE", "PERSIST"])
def test_transaction_that_the_lead_leaves_is_refused_at_its_next_write_and_rolled_back(
    cluster, db, journal, end
):
    """Its pages lie over the database's already, and its journal is hot."""
    leader = cluster.leader()
    fill(leader, db, "delete")
    c = Connection(leader, db, busy_ms=10000)
    c.execute(f"PRAGMA journal_mode={journal}")
    c.execute("PRAGMA cache_size=5")
    c.execute("BEGIN")
    c.execute("UPDATE t SET b = 'REFUSED'")
    c.execute("INSERT INTO t(b) SELECT 'REFUSED' || hex(zeroblob(1000)) FROM t")
    assert run([PROGRAM, "transfer", str(leader.mnt)]).code == 0
    after = cluster.wait_leader(other_than=leader)
    if end == "rollback":
        with pytest.raises(SqlError, match="IOERR"):
            for _ in range(50):
                c.execute("INSERT INTO t(b) SELECT 'REFUSED' || hex(zeroblob(1000)) FROM t LIMIT 9")
        assert c.execute(SEEN) == [(ROWS, ROWS, 0)]
        c.close()
    else:
        c.kill9()
    assert sql(leader, db, SEEN, busy_ms=10000) == f"{ROWS}|{ROWS}|0"
    sql(after, db, "INSERT INTO t(b) VALUES('genuine next')", busy_ms=10000)
    cluster.check_sound(db)
    assert cluster.wait_same(db, SEEN) == f"{ROWS + 1}|{ROWS + 1}|0"


# --- what is no write(2) -------------------------------------------------------------------------

MAP = """
import mmap, os, sys
path, how = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
m = mmap.mmap(fd, 0)
before = m[5 * 4096 : 6 * 4096]
m[5 * 4096 : 6 * 4096] = before.replace(b"genuine", b"REFUSED")
try:
    if how == "msync":
        m.flush()
    if how == "fsync":
        os.fsync(fd)
    if how == "close":
        os.close(fd)
    print("no error")
except OSError as error:
    print(error.errno)
again = os.open(path, os.O_RDONLY)
print(os.pread(again, 4096, 5 * 4096) == before)
"""


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("how", ["msync", "fsync", "close"])
@pytest.mark.parametrize("beside", [False, True])
def test_change_in_a_shared_mapping_is_refused_at_its_write_back(transport, db, mode, how, beside):
    fill(transport, db, mode)
    before = transport.database(db)
    reader = Connection(transport, db) if beside else None
    if reader:
        reader.execute(SEEN)
    result = run([PYTHON, "-c", MAP, str(transport.path(db)), how])
    error, same = result.out.split()
    assert error == str(errno.EIO), result
    if same == "False":  # a page under write-back goes right after the answer
        until("it has gone", lambda: sql(transport, db, SEEN) == f"{ROWS}|{ROWS}|0")
    if reader:
        assert reader.execute(SEEN) == [(ROWS, ROWS, 0)]
        reader.close()
    assert transport.database(db) == before
    assert "shared, writable mapping" in transport.log_text()
    try:
        sql(transport, db, "UPDATE t SET b = b || '.'")
    except SqlError:
        # The kernel keeps the error of a write-back for the next fsync of the file, whoever asks for it.
        assert (how, mode) == ("close", "delete")
        sql(transport, db, "UPDATE t SET b = b || '.'")
    assert sql(transport, db, f"{SEEN}; PRAGMA integrity_check") == f"{ROWS}|{ROWS}|0\nok"


def test_copy_file_range_within_the_mount_is_a_copy_like_any_other(shared_cluster, db):
    leader = shared_cluster.leader()
    fill(leader, f"source_{db}", "delete")
    sql(leader, db, "CREATE TABLE other(x)")
    copy = """
import os, sys
source = os.open(sys.argv[1], os.O_RDONLY)
target = os.open(sys.argv[2], os.O_WRONLY | os.O_TRUNC)
while os.copy_file_range(source, target, 1 << 20):
    pass
os.close(target)
"""
    result = run([PYTHON, "-c", copy, str(leader.path(f"source_{db}")), str(leader.path(db))])
    assert result.code == 0, result
    shared_cluster.check_sound(db)
    assert shared_cluster.wait_same(db, SEEN) == f"{ROWS}|{ROWS}|0"


# --- no majority -----------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", ["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"])
def test_failing_commit_waits_for_its_outcome_once(workspace, db, journal):
    """Each wait ends with a line in the log, as long as the node believes that it leads. The kernel splits writes at the
    pages of its cache: SQLite writes the rest of one whose first piece went well."""
    options = ["--commit-timeout", "1", "--election-timeout", "15000"]
    cluster = Cluster(workspace, options=options).start()
    leader = cluster.leader()
    sql(
        leader,
        db,
        f"PRAGMA journal_mode={journal}; CREATE TABLE t(a PRIMARY KEY, b);"
        "INSERT INTO t VALUES(1, 'before');",
    )
    cluster.wait_equal()
    others = [node for node in cluster.nodes if node is not leader]
    for node in others:
        node.pause()
    with Connection(leader, db, timeout=30) as c:  # nothing of a -wal is in the kernel's cache
        c.execute(f"PRAGMA journal_mode={journal}")
        for turn in range(1, 4):
            with pytest.raises(SqlError, match="IOERR"):
                c.execute("UPDATE t SET b = b || zeroblob(20000)")
            assert leader.status()["role"] == "leader"
            assert leader.log_text().count("commit outcome unknown") == turn
            if journal != "OFF":  # which cannot roll back
                assert c.execute("SELECT a, b FROM t") == [(1, "before")]
        for node in others:
            node.resume()

        def goes_on():
            try:
                c.execute("INSERT INTO t VALUES(2, 'after')")
                return True
            except SqlError:
                return False

        until("the next transaction commits", goes_on, 30)
    cluster.check_sound(db)
    # The outcome of the others was unknown: at most one of them has become a part of it.
    assert cluster.wait_same(db, "SELECT count(*), length(b) FROM t WHERE a = 1") in (
        "1|6",
        "1|20006",
    )
    assert cluster.wait_same(db, "SELECT count(*) FROM t") == "2"


@pytest.mark.parametrize("how", ["truncate", "ftruncate", "O_TRUNC"])
def test_cut_whose_commit_fails_leaves_size_and_content(workspace, db, how):
    cluster = Cluster(workspace, options=["--commit-timeout", "1"]).start()
    leader = cluster.leader()
    fill(leader, db, "delete")
    cluster.wait_equal()
    size = leader.path(db).stat().st_size
    for node in cluster.nodes:
        if node is not leader:
            node.kill9()
    script = """
import os, sys
path, how = sys.argv[1:]
try:
    if how == "truncate":
        os.truncate(path, 0)
    else:
        fd = os.open(path, os.O_RDWR | (os.O_TRUNC if how == "O_TRUNC" else 0))
        os.ftruncate(fd, 0)
        os.close(fd)
except OSError as error:
    print(error.errno, os.stat(path).st_size)
"""
    result = run([PYTHON, "-c", script, str(leader.path(db)), how], timeout=40)
    assert result.out.split() == [str(errno.EIO), str(size)], result
    assert sql(leader, db, f"{SEEN}; PRAGMA integrity_check", busy_ms=5000) == (
        f"{ROWS}|{ROWS}|0\nok"
    )
