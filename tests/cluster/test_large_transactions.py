"""Transactions that are much larger than what a node keeps in memory of them."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import (
    PROGRAM,
    Connection,
    SqlError,
    run,
    sql,
    sqlite3_command,
    until,
)

# Resident memory of a daemon at its largest: raftlog's cache of 32 MiB, the window of 8, buffers of
# the network, the program; and 70 bytes for each page of the transaction on the node that made it.
BOUND_MIB = 72
PER_PAGE = 80


def load(pages, first=1):
    """A statement that fills that many pages."""
    return (
        f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n"
        f" WHERE i < {first + pages - 1}) INSERT INTO t SELECT i, randomblob(4000) FROM n;"
    )


def make(node, db, mode):
    answer = sql(node, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(i, x); SELECT 1")
    assert answer == f"{mode.lower()}\n1"


def peak_mib(node):
    for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"{node} tells no VmHWM")


def unnamed_files(node):
    """What a daemon has open of its data directory without a name: parts, an overlay."""
    found = []
    for fd in Path(f"/proc/{node.process.pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith(str(node.data)) and target.endswith("(deleted)"):
            found.append(target)
    return found


def check_memory(cluster, pages):
    bound = BOUND_MIB + pages * PER_PAGE / (1 << 20)
    peaks = {node.name: peak_mib(node) for node in cluster.running}
    assert all(peak < bound for peak in peaks.values()), f"over {bound:.0f} MiB: {peaks}"


def check_no_unnamed_files(cluster):
    def check():
        found = {node.name: unnamed_files(node) for node in cluster.running}
        assert not any(found.values()), f"left open: {found}"
        return True

    until("no file of parts is left", check)


class Loader:
    """The stock shell, on its way through one large transaction."""

    def __init__(self, node, db, pages, first=1):
        self.node = node
        self.base = node.status()["commit_index"]
        self.process = subprocess.Popen(
            sqlite3_command(node.path(db), 5000),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        node.workspace.children.append(self.process)
        self.process.stdin.write(load(pages, first))
        self.process.stdin.close()

    def wait_parts(self, count, timeout=60):
        """Until that many parts of its transaction are committed."""

        def check():
            assert self.process.poll() is None, f"ended: {self.process.stdout.read()}"
            status = self.node.status()
            return status["commit_index"] >= self.base + count

        until(f"{count} parts", check, timeout, 0.005)

    def wait(self, timeout=60):
        """Returns what it said."""
        text = []
        reader = threading.Thread(target=lambda: text.append(self.process.stdout.read()))
        reader.start()
        reader.join(timeout)
        assert not reader.is_alive(), f"the shell did not end within {timeout} s"
        self.process.wait(timeout)
        return "".join(text).strip()


def count(node, db):
    return int(sql(node, db, "SELECT count(*) FROM t", busy_ms=10000, timeout=60))


# --- what everybody sees ------------------------------------------------------------------------


@pytest.mark.limit(180)
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_large_transaction_reaches_all_in_bounded_memory(cluster, mode, soak):
    """One follower has the database open, the other has not."""
    pages = (256 if soak else 96) << 8
    leader = cluster.wait_follows()
    make(leader, "a.db", mode)
    cluster.wait_equal()
    hot, _ = cluster.followers()
    with Connection(hot, "a.db", busy_ms=10000, timeout=60) as reader:
        assert reader.value("SELECT count(*) FROM t") == 0
        sql(leader, "a.db", load(pages), timeout=300)
        until(
            "the reader sees it",
            lambda: reader.value("SELECT count(*) FROM t") == pages,
            timeout=120,
        )
        cluster.wait_equal(120)
        # VACUUM writes all of them again, and the database shrinks
        sql(leader, "a.db", "DELETE FROM t WHERE i % 3; VACUUM;", timeout=300)
        cluster.wait_equal(120)
        assert reader.value("SELECT count(*) FROM t") == pages // 3
    check_memory(cluster, pages)
    cluster.check_sound("a.db", timeout=120)
    check_no_unnamed_files(cluster)


@pytest.mark.soak
@pytest.mark.limit(90)
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_gibibyte_commits_in_bounded_memory(cluster, mode):
    pages = 1 << 18
    leader = cluster.wait_follows()
    make(leader, "a.db", mode)
    hot, _ = cluster.followers()
    with Connection(hot, "a.db", busy_ms=60000, timeout=300) as reader:
        assert reader.value("SELECT count(*) FROM t") == 0
        sql(leader, "a.db", load(pages), timeout=900)
        until("it is seen", lambda: reader.value("SELECT count(*) FROM t") == pages, 600)
    cluster.wait_equal(600)
    check_memory(cluster, pages)
    assert count(leader, "a.db") == pages
    sql(leader, "a.db", "INSERT INTO t VALUES (0, 'small')", busy_ms=10000, timeout=300)
    cluster.wait_equal(600)
    check_memory(cluster, pages)


# --- in the middle --------------------------------------------------------------------------------


def check_whole_or_nothing(cluster, pages):
    """And that it goes on."""
    cluster.wait_equal(60)
    leader = cluster.wait_follows()
    assert count(leader, "a.db") in (1, pages + 1)
    sql(leader, "a.db", "INSERT INTO t VALUES (0, 'after')", busy_ms=10000)
    cluster.check_sound("a.db", timeout=60)
    check_no_unnamed_files(cluster)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_leader_killed_between_parts_leaves_nothing_or_all(cluster, mode):
    pages = 64 << 8
    leader = cluster.wait_follows()
    make(leader, "a.db", mode)
    sql(leader, "a.db", "INSERT INTO t VALUES (0, 'before')")
    loader = Loader(leader, "a.db", pages)
    loader.wait_parts(20)
    leader.kill9()
    loader.wait()
    cluster.wait_leader(other_than=leader)
    check_whole_or_nothing(cluster, pages)
    cluster.restart_dead()
    cluster.wait_voters()
    cluster.check_sound("a.db", timeout=60)
    check_no_unnamed_files(cluster)


def test_leader_transferred_between_parts_leaves_nothing_or_all(cluster):
    pages = 64 << 8
    leader = cluster.wait_follows()
    make(leader, "a.db", "WAL")
    sql(leader, "a.db", "INSERT INTO t VALUES (0, 'before')")
    for _ in range(3):
        leader = cluster.wait_follows()
        before = count(leader, "a.db")
        loader = Loader(leader, "a.db", pages)
        loader.wait_parts(10)
        result = run([PROGRAM, "transfer", str(leader.mnt)])
        assert result.code == 0, result
        said = loader.wait()
        assert cluster.wait_follows() is not leader
        cluster.wait_equal(60)
        after = count(cluster.leader(), "a.db")
        assert after == before if said else after == before + pages, said
        sql(cluster.leader(), "a.db", "DELETE FROM t WHERE i > 0", busy_ms=10000)
        cluster.wait_equal(60)
    cluster.check_sound("a.db", timeout=60)
    check_no_unnamed_files(cluster)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_application_killed_in_the_middle_leaves_nothing_or_all(shared_cluster, mode):
    """While it writes, and while its commit is on its way (which the kernel makes it wait for)."""
    pages = 64 << 8
    db = f"killed-{mode.lower()}.db"
    leader = shared_cluster.wait_follows()
    make(leader, db, mode)
    sql(leader, db, "INSERT INTO t VALUES (0, 'before')")
    loader = Loader(leader, db, pages)
    size = "-wal" if mode == "WAL" else "-journal"
    until("it writes", lambda: (leader.data / f"{db}{size}").exists())
    time.sleep(0.2)
    loader.process.send_signal(signal.SIGKILL)
    loader.wait()
    assert count(leader, db) == 1
    loader = Loader(leader, db, pages)
    loader.wait_parts(5)
    loader.process.send_signal(signal.SIGKILL)
    loader.wait()
    shared_cluster.wait_equal(60)
    assert count(leader, db) in (1, pages + 1)
    sql(leader, db, "INSERT INTO t VALUES (0, 'after')", busy_ms=10000)
    shared_cluster.check_sound(db, timeout=60)


# --- over the limit -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited_node():
    import harness

    with harness.Workspace() as workspace:
        node = harness.Node(workspace, "limited", options=["--max-transaction", "8M"]).start()
        until("it leads", lambda: node.status()["role"] == "leader")
        yield node


@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE", "PERSIST"])
def test_transaction_over_the_limit_changes_nothing(limited_node, mode):
    node, db = limited_node, f"limited-{mode.lower()}.db"
    make(node, db, mode)
    # what is changed then lies all over the file, and most of it only in SQLite's cache
    sql(node, db, load(1500))
    before = node.database(db)
    digest = sql(node, db, ".sha3sum --schema")
    attempts = [
        load(4000, first=5000),
        f"PRAGMA cache_size=10; {load(4000, first=5000)}",
        f"PRAGMA cache_size=-100000; {load(4000, first=5000)}",
        f"PRAGMA cache_size=500; BEGIN; UPDATE t SET x = randomblob(4000);"
        f" {load(4000, first=5000)} COMMIT;",
    ]
    for attempt in attempts:
        with pytest.raises(SqlError, match="database or disk is full"):
            sql(node, db, attempt)
        assert sql(node, db, ".sha3sum --schema") == digest
        assert node.database(db) == before
    assert "--max-transaction" in node.log_text()
    with Connection(node, db) as connection:
        connection.execute("BEGIN")
        with pytest.raises(SqlError) as error:
            connection.execute(load(4000, first=5000))
        assert error.value.code == "SQLITE_FULL"
        assert connection.value("SELECT count(*) FROM t") == 1500
        connection.execute("INSERT INTO t VALUES (0, 'small')")
        assert connection.value("SELECT count(*) FROM t") == 1501
        # close to the limit is not over it
        connection.execute(load(1900, first=5000))
    assert node.database(db)["version"] == before["version"] + 2
    assert sql(node, db, "PRAGMA integrity_check") == "ok"
    assert not (node.data / f"{db}-journal").exists() or mode in ("TRUNCATE", "PERSIST")
    until("nothing is left", lambda: not unnamed_files(node))
