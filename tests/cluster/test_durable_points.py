"""Durable points: a log that stays small, a restart that takes up where the last point was."""

import os
import re
import stat
import threading
import time

import pytest
from harness import Cluster, Connection, Node, Writer, sql, until

MIB = 1 << 20
LOG_SIZE = 16 * MIB
SEGMENT = 8 * MIB
OPTIONS = ("--log-size", "16M")
# Segments go whole, one more is being written, and one is made ahead.
LOG_MAX = LOG_SIZE + 3 * SEGMENT


def bytes_of(files):
    """Of a running node: some may be renamed or removed at this moment."""
    total = 0
    for file in files:
        try:
            about = file.stat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(about.st_mode):
            total += about.st_size
    return total


def log_bytes(node):
    return bytes_of((node.data / ".dqlitefs" / "raft").iterdir())


def data_bytes(node):
    return bytes_of(node.data.rglob("*"))


def resident_mib(node):
    """Without what maps files: the wal-index is the kernel's memory, whoever maps it."""
    text = open(f"/proc/{node.process.pid}/status").read()
    return int(re.search(r"RssAnon:\s+(\d+) kB", text).group(1)) // 1024


def make(node, db, mib, mode="WAL", page_size=4096):
    sql(
        node,
        db,
        f"PRAGMA page_size={page_size}; PRAGMA journal_mode={mode};"
        "CREATE TABLE t(id INTEGER PRIMARY KEY, body);",
    )
    for first in range(0, mib * 256, 8192):
        last = min(first + 8192, mib * 256)
        sql(
            node,
            db,
            f"WITH RECURSIVE n(i) AS (SELECT {first + 1} UNION ALL SELECT i+1 FROM n"
            f" WHERE i<{last}) INSERT INTO t SELECT i, randomblob(3900) FROM n;",
            timeout=120,
            busy_ms=30000,
        )


def rewrite(node, db, mib, rows=1024):
    """Writes that much into the log, into the same pages."""
    for _ in range(0, mib, 4):
        sql(node, db, f"UPDATE t SET body=randomblob(3900) WHERE id<={rows}", timeout=60, busy_ms=30000)


def wait_compacted(node):
    until(
        f"{node} lets go of its log",
        lambda: log_bytes(node) <= LOG_MAX and node.status()["log"]["first_index"] > 1,
        30,
    )


@pytest.fixture
def small_log(workspace):
    """A node alone, with the smallest log."""
    node = Node(workspace, "n1", options=OPTIONS).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    return node


def total(node, db):
    return sql(node, db, "SELECT count(*), sum(length(body)), max(id) FROM t; PRAGMA integrity_check")


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_rewriting_the_same_rows_keeps_the_data_directory_small(small_log, db, mode):
    make(small_log, db, 8, mode)
    rewrite(small_log, db, 64)
    wait_compacted(small_log)
    # the database, its -wal (SQLite's own limit of 1,000 pages, here one transaction's), the log
    assert data_bytes(small_log) <= 9 * MIB + 9 * MIB + LOG_MAX
    before = total(small_log, db)
    small_log.kill9()
    small_log.start()
    assert total(small_log, db) == before
    assert small_log.database(db)["checksum"]


@pytest.mark.limit(180)
def test_log_stays_small_beside_a_writer_that_never_rests(workspace, db):
    """A point is due again when one has been taken, if that much came meanwhile."""
    cluster = Cluster(workspace, options=OPTIONS).start()
    leader = cluster.wait_follows()
    make(leader, db, 8)
    largest = 0
    for _ in range(60):
        rewrite(leader, db, 4)
        largest = max(largest, *(log_bytes(node) for node in cluster.nodes))
    assert largest <= LOG_MAX
    cluster.check_sound(db)


def test_long_reader_neither_stops_writers_nor_lets_the_log_grow(small_log, db):
    make(small_log, db, 8)
    with Connection(small_log, db) as reader:
        reader.execute("BEGIN")
        seen = reader.execute("SELECT sum(id), hex(min(body)) FROM t")
        rewrite(small_log, db, 64)
        wait_compacted(small_log)
        assert reader.execute("SELECT sum(id), hex(min(body)) FROM t") == seen
        # what the reader keeps in the -wal the manifest counts on: power fails now
        sql(small_log, db, "INSERT INTO t VALUES(1000000, 'last')")
        small_log.kill9()
    before = small_log.start()
    assert sql(before, db, "SELECT body FROM t WHERE id=1000000") == "last"
    assert total(small_log, db).splitlines()[1] == "ok"
    # and once more: the -wal that was set aside is needed as long as no point was taken since
    small_log.kill9()
    small_log.start()
    assert sql(small_log, db, "SELECT body FROM t WHERE id=1000000") == "last"
    assert total(small_log, db).splitlines()[1] == "ok"


def test_idle_database_beside_a_busy_one_stays_as_it_was(small_log):
    make(small_log, "idle.db", 2)
    make(small_log, "busy.db", 8)
    idle = total(small_log, "idle.db")
    version = small_log.database("idle.db")["version"]
    rewrite(small_log, "busy.db", 64)
    wait_compacted(small_log)
    for _ in range(2):
        small_log.kill9()
        small_log.start()
        assert total(small_log, "idle.db") == idle
        assert small_log.database("idle.db")["version"] == version
    sql(small_log, "idle.db", "INSERT INTO t VALUES(1000000, 'awake')")
    assert small_log.database("idle.db")["version"] == version + 1


def test_restart_finds_names_and_attributes_as_they_were(small_log):
    make(small_log, "kept.db", 1)
    make(small_log, "gone.db", 1)
    make(small_log, "busy.db", 8)
    rewrite(small_log, "busy.db", 48)
    wait_compacted(small_log)
    os.chmod(small_log.path("kept.db"), 0o640)
    os.chown(small_log.path("kept.db"), 12, 34)
    os.unlink(small_log.path("gone.db"))
    make(small_log, "new.db", 1)
    small_log.kill9()
    small_log.start()
    st = os.stat(small_log.path("kept.db"))
    assert (st.st_mode & 0o777, st.st_uid, st.st_gid) == (0o640, 12, 34)
    assert sorted(os.listdir(small_log.mnt)) == ["busy.db", "kept.db", "new.db"]
    assert total(small_log, "new.db").splitlines()[1] == "ok"


def test_journal_size_limit_cuts_the_wal(small_log, db):
    make(small_log, db, 8)
    with Connection(small_log, db) as connection:
        connection.execute("PRAGMA journal_size_limit=100000")
        connection.execute("UPDATE t SET body=randomblob(3900)")
        connection.execute("PRAGMA wal_checkpoint")
        connection.execute("UPDATE t SET body='' WHERE id=1")
        connection.execute("UPDATE t SET body='' WHERE id=2")
        assert os.path.getsize(small_log.path(db + "-wal")) <= 100000
    assert "refused" not in small_log.log_text()


@pytest.mark.parametrize("checkpoint", ["TRUNCATE", "RESTART", "FULL", "PASSIVE"])
def test_checkpoints_between_points_lose_nothing(small_log, db, checkpoint):
    """The manifest may count on a -wal that SQLite starts over, cuts or removes."""
    make(small_log, db, 4)
    stop = threading.Event()
    count = 0

    def checkpoints():
        with Connection(small_log, db, busy_ms=5000) as connection:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            while not stop.is_set():
                connection.execute(f"PRAGMA wal_checkpoint({checkpoint})")
                time.sleep(0.003)

    thread = threading.Thread(target=checkpoints)
    thread.start()
    try:
        with Connection(small_log, db, busy_ms=5000) as connection:
            for count in range(1, 400):
                connection.execute("UPDATE t SET body=randomblob(3900) WHERE id<=40")
                connection.execute(f"INSERT INTO t VALUES({10000 + count}, {count})")
    finally:
        stop.set()
        thread.join()
    small_log.kill9()
    small_log.start()
    assert sql(small_log, db, "SELECT count(*) FROM t WHERE id>10000") == str(count)
    assert total(small_log, db).splitlines()[1] == "ok"


@pytest.mark.limit(180)
def test_whole_cluster_killed_under_load_has_all_that_was_acknowledged(workspace, db, soak):
    cluster = Cluster(workspace, options=OPTIONS).start()
    make(cluster.leader(), db, 4)
    writers = []
    for _ in range(20 if soak else 3):
        writer = Writer(cluster.nodes, db, "--busy-ms", 20, "--pause-ms", 1)
        writers.append(writer)
        rewrite(cluster.wait_leader(), db, 24, 256)
        for node in cluster.nodes:
            node.kill9()
        for node in cluster.nodes:
            node.launch()
        for node in cluster.nodes:
            node.wait_mounted()
        cluster.wait_leader(30)
        writer.stop()
        cluster.check_rows(db, writers)
    cluster.check_sound(db)


@pytest.mark.limit(180)
def test_transaction_in_parts_across_durable_points_commits_everywhere(workspace, db):
    cluster = Cluster(workspace, options=(*OPTIONS, "--election-timeout", "3000")).start()
    leader = cluster.leader()
    make(leader, "busy.db", 4)
    make(leader, db, 1)
    with Connection(leader, "busy.db", busy_ms=20000) as connection:
        errors = []

        def keep_busy():
            try:
                while not stop.is_set():
                    connection.execute("UPDATE t SET body=randomblob(3900) WHERE id<=300")
            except BaseException as error:  # told in the test's own thread
                errors.append(error)

        stop = threading.Event()
        thread = threading.Thread(target=keep_busy)
        thread.start()
        try:
            make(leader, "large.db", 64)  # 32 MiB a transaction: twice the log's size
        finally:
            stop.set()
            thread.join()
        assert not errors
    for node in cluster.nodes:
        wait_compacted(node)
    for node in cluster.nodes:
        node.kill9()
    for node in cluster.nodes:
        node.launch()
    for node in cluster.nodes:
        node.wait_mounted()
    cluster.wait_leader(30)
    cluster.check_sound("large.db")
    cluster.check_sound("busy.db")
    assert total(cluster.leader(), "large.db").startswith("16384|")


@pytest.mark.limit(60)
def test_memory_stays_within_its_bound(workspace, db, soak):
    """Figures of the README: page hashes, a window of the log, what one transaction has in the -wal."""
    mib = 2048 if soak else 96
    node = Node(workspace, "n1").start()
    make(node, db, mib)
    assert resident_mib(node) < 128 + mib // 256
    node.stop()
    node.start()
    assert total(node, db).splitlines()[1] == "ok"
    assert resident_mib(node) < 128 + mib // 256
    if soak:
        # restart time follows the log, not the database: 2 GiB is not read
        node.kill9()
        node.start()
        read = int(re.search(r"rchar: (\d+)", open(f"/proc/{node.process.pid}/io").read()).group(1))
        assert read < 256 * MIB
