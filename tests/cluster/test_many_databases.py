"""A thousand databases in one mount: made, written, idle, open all at once, removed and made again. An
idle one costs no file descriptor, and running out of descriptors breaks nothing."""

import os
import select
import subprocess
import time

import pytest
from harness import (
    PROGRAM,
    PYTHON,
    WORKERS,
    Cluster,
    Connection,
    Node,
    SqlError,
    end_process,
    run,
    sql,
    until,
)

IDLE = 150  # descriptors of a daemon whatever the number of databases: a few that are not synced yet
# and on a node that does not lead, its connections to those that applications closed last
CONNECTED = IDLE + 32 * 9


def descriptors(node):
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


def wait_idle(nodes, limit=IDLE):
    for node in nodes:

        def check():
            count = descriptors(node)
            assert count < limit, f"{count} descriptors"
            return True

        until(f"{node} has closed the files of idle databases", check)


def many(node, work, numbers):
    """workers/many.py, as a process."""
    process = subprocess.Popen(
        [PYTHON, "-B", str(WORKERS / "many.py"), str(node.mnt), work, *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    node.workspace.children.append(process)
    return process


def finish(process, timeout=60):
    """What it could not open."""
    try:
        out, _ = process.communicate("", timeout)
    except subprocess.TimeoutExpired:
        end_process(process)
        raise
    assert process.returncode == 0, out
    return [line for line in out.splitlines() if line != "ready"]


def visit(node, work, numbers, processes=4):
    """By several processes, each with its own share."""
    working = [many(node, work, numbers[i::processes]) for i in range(processes)]
    for process in working:
        assert not finish(process)


def hold(node, numbers):
    """A process that has them open, and what it could not open."""
    process = many(node, "hold", numbers)
    failed = []
    while (line := process.stdout.readline().strip()) != "ready":
        assert line, "the process of many open databases died"
        failed.append(line)
    return process, failed


def lead(cluster, node):
    leader = cluster.wait_leader()
    if leader is not node:
        result = run([PROGRAM, "transfer", str(leader.mnt), "--to", node.address])
        assert result.code == 0, result
    until(f"{node} leads", lambda: cluster.leader() is node)


def test_thousand_databases_are_written_and_cost_nothing_when_idle(cluster, soak):
    numbers = range(5000 if soak else 1000)
    leader, (follower, other) = cluster.leader(), cluster.followers()
    visit(leader, "make", numbers)
    wait_idle(cluster.nodes)
    assert len(cluster.wait_equal(60)) == len(numbers)
    visit(follower, "read", numbers[::2])
    wait_idle(cluster.nodes, CONNECTED)  # it keeps the connections to those that were open last

    other.kill9()
    visit(leader, "write", numbers[::5])
    other.start()
    follower.kill9()
    follower.start()
    cluster.wait_equal(60)
    wait_idle(cluster.nodes)
    visit(other, "read", numbers[::5])
    for node in cluster.nodes:
        node.process.kill()
    for node in cluster.nodes:
        node.wait_ended()
        node.launch()
    for node in cluster.nodes:
        node.wait_mounted(30)
    cluster.wait_follows()
    assert len(cluster.wait_equal(60)) == len(numbers)
    wait_idle(cluster.nodes)
    assert sql(cluster.leader(), "many5.db", "SELECT count(*) FROM t") == "2"


def test_many_databases_open_on_all_nodes_stay_so_through_a_failover(cluster, soak):
    """All connections of the daemon to databases that applications have open, made at once."""
    numbers = range(1000 if soak else 200)
    leader = cluster.leader()
    visit(leader, "make", numbers)
    holders = [hold(node, numbers) for node in cluster.nodes]
    assert not any(failed for _, failed in holders)
    leader.kill9()
    end_process(holders[cluster.nodes.index(leader)][0])
    new = cluster.wait_leader(other_than=leader)
    visit(new, "write", numbers[::10])
    leader.start()
    cluster.wait_equal(60)
    for (process, _), node in zip(holders, cluster.nodes):
        if node is not leader:
            assert not finish(process)
    wait_idle(cluster.nodes, CONNECTED)


def test_node_without_descriptors_refuses_opens_and_goes_on(workspace):
    node = Node(workspace, "n1", prefix=["prlimit", "--nofile=400:400"]).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    numbers = range(400)
    visit(node, "make", numbers, processes=1)
    holder, failed = hold(node, numbers)
    assert failed and all("unable to open" in line for line in failed), failed
    assert len(failed) < 290, "a database in WAL mode takes three descriptors, another one"
    assert "out of file descriptors" in node.log_text()
    with pytest.raises(SqlError):
        sql(node, "another.db", "CREATE TABLE t(a)")
    # what is open goes on
    assert not finish(holder)
    visit(node, "write", numbers)
    wait_idle([node])
    sql(node, "another.db", "CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES(1)")


def test_follower_without_descriptors_goes_on_when_there_are_some(workspace):
    cluster = Cluster(workspace, prefixes=[[], [], ["prlimit", "--nofile=400:400"]]).start()
    poor = cluster.nodes[2]
    lead(cluster, cluster.nodes[0])
    numbers = range(150)
    visit(cluster.nodes[0], "make", numbers)
    cluster.wait_equal()
    holder, failed = hold(poor, numbers)
    assert failed, "each takes up to nine descriptors there"
    assert "out of file descriptors" in poor.log_text()
    visit(cluster.nodes[0], "write", numbers)
    assert poor.running
    assert not finish(holder)
    cluster.wait_equal()
    visit(poor, "read", numbers)
    # as the leader it needs one each, and its gates close again when it follows
    lead(cluster, poor)
    holder, failed = hold(poor, numbers)
    lead(cluster, cluster.nodes[0])
    visit(cluster.nodes[0], "write", numbers)
    assert not finish(holder)
    cluster.wait_equal()
    assert poor.running


CHECK = """
import select, sqlite3, sys
path, seen = sys.argv[1], set()
while not select.select([sys.stdin], [], [], 0)[0]:
    db = None
    try:
        db = sqlite3.connect(f"file:{path}?mode=rw", timeout=5, isolation_level=None, uri=True)
        rows = db.execute("SELECT x, count(*) FROM t GROUP BY x").fetchall()
        assert len(rows) <= 1 and all(count == 50 for _, count in rows), rows
        if rows and not seen:
            print("seen", flush=True)
        seen.update(x for x, _ in rows)
        if rows and len(seen) % 2:
            again = db.execute("SELECT x, count(*) FROM t GROUP BY x").fetchall()
            assert again in (rows, []), (rows, again)
    except sqlite3.Error as error:
        assert "malformed" not in str(error), error
    if db:
        db.close()
"""


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_database_removed_and_made_again_is_never_mixed_up(cluster, db, mode, soak):
    leader, seconds = cluster.leader(), 60 if soak else 5
    readers = []
    for node in cluster.followers():
        readers.append(
            subprocess.Popen(
                [PYTHON, "-c", CHECK, str(node.path(db))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        node.workspace.children.append(readers[-1])
    before = max(descriptors(node) for node in cluster.nodes)
    end, rounds, waiting = time.monotonic() + seconds, 0, [reader.stdout for reader in readers]
    while time.monotonic() < end or rounds <= 20 or waiting:
        for out in select.select(waiting, [], [], 0)[0]:
            assert out.readline() == b"seen\n"
            waiting.remove(out)
        rounds += 1
        sql(
            leader,
            db,
            f"PRAGMA journal_mode={mode}; BEGIN; CREATE TABLE t(x);"
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)"
            f"INSERT INTO t SELECT {rounds} FROM n; COMMIT;",
            busy_ms=5000,
        )
        time.sleep(0.02 * (rounds % 3))
        assert run(["rm", "-f", str(leader.path(db))]).code == 0
    for reader in readers:
        reader.communicate(timeout=30)
        assert reader.returncode == 0
    cluster.wait_equal()
    wait_idle(cluster.nodes, before + 50)


def test_read_transaction_keeps_its_snapshot_across_failovers(cluster, db):
    """Leadership goes by force, comes to the reader's node, and goes away again."""
    leader = cluster.leader()
    node, other = cluster.followers()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    cluster.wait_same(db, "SELECT count(*) FROM t")

    def write(on):
        script = "INSERT INTO t SELECT a + 1 FROM t ORDER BY a DESC LIMIT 1;"
        for _ in range(20):
            sql(on, db, script, busy_ms=10000)

    with Connection(node, db, busy_ms=1000) as reader:
        reader.execute("BEGIN")
        assert reader.value("SELECT max(a) FROM t") == 1
        write(leader)
        assert reader.value("SELECT max(a) FROM t") == 1
        leader.kill9()
        cluster.wait_follows()
        assert reader.value("SELECT max(a) FROM t") == 1
        lead(cluster, node)
        assert reader.value("SELECT max(a) FROM t") == 1
        write(node)
        assert reader.value("SELECT max(a) FROM t") == 1
        lead(cluster, other)
        write(other)
        cluster.wait_caught_up()
        assert reader.value("SELECT max(a) FROM t") == 1
        assert reader.value("PRAGMA integrity_check") == "ok"
        reader.execute("COMMIT")
        until("the reader sees what came since", lambda: reader.value("SELECT max(a) FROM t") == 61)
    leader.start()
    cluster.check_sound(db)


def test_long_reader_on_every_node_keeps_its_snapshot_under_writes(cluster, db, soak):
    leader = cluster.leader()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a, b); INSERT INTO t VALUES(0, 0);")
    cluster.wait_same(db, "SELECT count(*) FROM t")
    readers = [Connection(node, db) for node in cluster.nodes]
    for reader in readers:
        reader.execute("BEGIN")
        assert reader.value("SELECT sum(a) FROM t") == 0
    for _ in range(200 if soak else 20):
        sql(
            leader,
            db,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
            "INSERT INTO t SELECT 1, randomblob(200) FROM n; PRAGMA wal_checkpoint;",
            busy_ms=5000,
        )
        for reader in readers:
            assert reader.value("SELECT sum(a) FROM t") == 0
    for reader in readers:
        reader.execute("COMMIT")
        reader.close()
    cluster.check_sound(db)
