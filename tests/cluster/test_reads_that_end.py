"""Readers whose daemon ends, or whose database is replaced, beneath them: they get errors, and never one
that speaks of damage. SQLite makes SQLITE_CORRUPT of some errors of read(2), and some applications remove
the database then."""

import json
import signal
import subprocess
import time

import pytest
from fetching import Fetches, fill, push_log, segments
from harness import (
    PROGRAM,
    PYTHON,
    WORKERS,
    Cluster,
    Connection,
    LossyDisk,
    Node,
    SqlError,
    drop_cache,
    over_io_uring,
    run,
    sql,
    until,
)

MODES = ("wal", "delete")
DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")  # the last: "no such table"


@pytest.fixture(params=["dev_fuse", "io_uring"])
def transport(request):
    if request.param == "dev_fuse":
        return ["--fuse-uring=off"]
    options = over_io_uring()
    if not options:
        pytest.skip("this kernel has no FUSE over io_uring")
    return options


def make(node, db, mode, rows=1500):
    sql(
        node,
        db,
        f"PRAGMA journal_mode={mode}; CREATE TABLE t(v, x);"
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{rows})"
        " INSERT INTO t SELECT 0, randomblob(3000) FROM n; PRAGMA wal_checkpoint(TRUNCATE);",
        busy_ms=10000,
    )


class Reader:
    def __init__(self, node, db, *options):
        self.process = subprocess.Popen(
            [PYTHON, "-B", str(WORKERS / "cold_reader.py"), str(node.path(db)), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        node.workspace.children.append(self.process)

    def wait_reading(self):
        assert self.process.stdout.readline().strip() == "reading"

    def saw(self):
        """What it saw until its first error."""
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        return self.saw()


def start_readers(node, dbs, *options, each=3):
    readers = [Reader(node, db, *options) for db in dbs for _ in range(each)]
    for reader in readers:
        reader.wait_reading()
    return readers


def check(results, ended=True):
    for result in results:
        assert not [name for name in result["errors"] if name.startswith(DAMAGE)], result
        assert not result["wrong"], result
        assert not ended or result["errors"], f"never noticed: {result}"


@pytest.mark.parametrize("how", ["sigterm", "umount", "kill9"])
def test_readers_of_a_node_that_ends_hear_of_no_damage(workspace, transport, how):
    node = Node(workspace, "n1", options=transport).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    for mode in MODES:
        make(node, f"{mode}.db", mode)
    for _ in range(3):
        readers = start_readers(node, [f"{mode}.db" for mode in MODES])
        if how == "sigterm":
            node.process.send_signal(signal.SIGTERM)
        elif how == "umount":
            # what the applications hold open stays behind
            assert run(["umount", "-l", str(node.mnt)]).code == 0
            node.process.send_signal(signal.SIGTERM)
        else:
            node.kill9()
        node.wait_ended()
        check([reader.saw() for reader in readers])
        node.start()
        until("the node leads", lambda: node.status()["role"] == "leader")


@pytest.mark.limit(240)
def test_readers_of_a_node_that_fetches_hear_of_no_damage(workspace, transport):
    cluster = Cluster(workspace, options=["--log-size", "16M", *transport]).start()
    leader, (follower, _) = cluster.leader(), cluster.followers()
    for mode in MODES:
        make(leader, f"{mode}.db", mode)
    cluster.check_sound("wal.db")
    readers = start_readers(follower, [f"{mode}.db" for mode in MODES], "reopen", each=2)
    for turn in range(1, 3):
        fetches = Fetches(follower)
        follower.pause()
        for mode in MODES:
            sql(leader, f"{mode}.db", f"UPDATE t SET v={turn}", busy_ms=10000)
        push_log(leader, "other.db", segments(leader))
        follower.resume()
        fetches.wait()
        until(
            "the follower serves",
            lambda: follower.status()["state"] == "serving",
            30,
        )
        time.sleep(1)
    check([reader.stop() for reader in readers], ended=False)


def test_readers_beside_transfers_hear_of_no_damage(workspace, transport):
    cluster = Cluster(workspace, options=transport).start()
    for mode in MODES:
        make(cluster.leader(), f"{mode}.db", mode)
        cluster.check_sound(f"{mode}.db")
    readers = [
        reader
        for node in cluster.nodes[:2]
        for reader in start_readers(node, [f"{mode}.db" for mode in MODES], "reopen", each=1)
    ]
    for turn in range(1, 5):
        leader = cluster.wait_leader()
        for mode in MODES:
            sql(leader, f"{mode}.db", f"UPDATE t SET v={turn}", timeout=60, busy_ms=40000)
        assert run([PROGRAM, "transfer", str(leader.mnt)]).code == 0
        cluster.wait_leader(other_than=leader)
    check([reader.stop() for reader in readers], ended=False)


@pytest.mark.parametrize("how", ["sigterm", "umount"])
@pytest.mark.parametrize("mode", ["delete", "persist", "memory"])
def test_what_was_not_committed_is_not_read_once_the_node_has_ended(
    workspace, transport, mode, how
):
    """A writer whose cache spilled: its pages are in the kernel's cache. It goes when the node has gone, and
    what it left looks as if no journal undid it, since nobody can tell any more whether there is one."""
    node = Node(workspace, "n1", options=transport).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    make(node, "d.db", "delete", rows=100)
    sql(node, "d.db", "CREATE TABLE other(y)")
    reader = Connection(node, "d.db", busy_ms=0)
    reader.execute("PRAGMA cache_size=5")
    assert reader.execute("SELECT min(v), max(v) FROM t") == [(0, 0)]
    writer = Connection(node, "d.db", busy_ms=0)
    writer.execute(f"PRAGMA journal_mode={mode}")
    writer.execute("PRAGMA cache_size=2")
    writer.execute("BEGIN")
    writer.execute("UPDATE t SET v=1")
    # All of it comes into the kernel's cache; a read there takes no lock.
    assert writer.execute("SELECT min(v), max(v) FROM t") == [(1, 1)]
    assert run(["cat", str(node.path("d.db"))]).code == 0
    if how == "umount":
        assert run(["umount", "-l", str(node.mnt)]).code == 0
    node.process.send_signal(signal.SIGTERM)
    node.wait_ended()
    writer.kill9()
    try:
        seen = reader.execute("SELECT min(v), max(v) FROM t")
    except SqlError as error:
        assert error.code.startswith("SQLITE_IOERR"), error
    else:
        assert seen == [(0, 0)]


SPILLING = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
db.execute("PRAGMA cache_size=2")
while True:
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE t SET v=v+1")
        print("written", flush=True)
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        break
db.close()
"""


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_readers_of_a_node_that_ends_beneath_a_writer_see_whole_transactions(
    workspace, transport, mode
):
    """The writer cannot finish what it is at, and gives up its lock. From then on only its -journal, which
    SQLite finds by its path, tells readers that it was not committed."""
    node = Node(workspace, "n1", options=transport).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    make(node, "d.db", mode, rows=200)
    for _ in range(6):
        readers = start_readers(node, ["d.db"], each=2)
        writer = subprocess.Popen(
            [PYTHON, "-B", "-c", SPILLING, str(node.path("d.db"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        workspace.children.append(writer)
        for _ in range(5):
            assert writer.stdout.readline() == b"written\n"
        node.process.send_signal(signal.SIGTERM)
        node.wait_ended()
        writer.stdout.read()
        writer.wait(20)
        check([reader.saw() for reader in readers])
        node.start()
        until("the node leads", lambda: node.status()["role"] == "leader")


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_transaction_under_a_journal_that_nobody_sees_any_more_is_taken_back(
    workspace, transport, mode
):
    node = Node(workspace, "n1", options=transport).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    make(node, "d.db", mode, rows=100)
    reader = Connection(node, "d.db", busy_ms=0)
    assert reader.execute("SELECT min(v), max(v) FROM t") == [(0, 0)]
    writer = Connection(node, "d.db", busy_ms=0)
    writer.execute("PRAGMA cache_size=2")
    writer.execute("BEGIN")
    writer.execute("UPDATE t SET v=1")
    assert run(["umount", "-l", str(node.mnt)]).code == 0
    until("it says so", lambda: "it was taken back" in node.log_text())
    for statement in ("COMMIT", "SELECT min(v), max(v) FROM t"):
        with pytest.raises(SqlError) as error:
            writer.execute(statement)
        assert error.value.code.startswith("SQLITE_IOERR"), error.value
    with pytest.raises(SqlError) as error:
        reader.execute("SELECT min(v), max(v) FROM t")
    assert error.value.code.startswith("SQLITE_IOERR"), error.value
    writer.close()
    reader.close()
    node.wait_ended()
    node.start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    assert sql(node, "d.db", "SELECT min(v), max(v) FROM t") == "0|0"


def test_page_that_the_disk_cannot_read_is_no_corruption(workspace):
    """EIO of the node's own disk, too, becomes another error."""
    disk = LossyDisk(workspace, "disk")
    node = Node(workspace, "n1", disk=disk).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    make(node, "d.db", "delete", rows=100)
    reader = Connection(node, "d.db")
    assert reader.value("SELECT count(*) FROM t") == 100
    reader.execute("PRAGMA cache_size=2")
    drop_cache(node, "d.db")
    disk.command("fail", "read", "d.db", 1000)
    with pytest.raises(SqlError) as caught:
        reader.value("SELECT sum(length(x)) FROM t")
    assert caught.value.code.startswith("SQLITE_IOERR"), caught.value
