"""Power cuts: nodes on lossy disks (tests/lossy) that keep, lose or tear what was not synced.

A power cut in each operation of a recorded workload is explained in power.py. A failure names the
operation and the seed, and keeps the recording, from which it is repeated:

    DQLITEFS_RECORDING=DIR DQLITEFS_CUT=OPERATION:SEED scripts/test -k every_operation_loses_nothing
"""

import random
import time

import power
import pytest
from harness import (
    Cluster,
    Connection,
    LossyDisk,
    Node,
    SqlError,
    Writer,
    mounts_from,
    run,
    sql,
    sql_file,
    until,
)
from power import (
    HOWS,
    Database,
    check_log,
    check_states,
    content,
    launch_and_lose_power,
    lose_power,
    points,
    rows,
    start,
)

OPTIONS = ("--log-size", "16M", "--scrub-rate", "1G")


# --- a node alone ------------------------------------------------------------------------------


def work(node):
    """Every kind of change that a node's disk sees. Returns {name: states}."""
    wal = Database(node, "w.db", "WAL")
    old = Database(node, "r.db", "DELETE")
    brief = Database(node, "b.db", "WAL")
    for database in (wal, old, brief):
        database.create()
    for i in range(4):
        for database in (wal, old, brief):
            database.do(rows(i * 10, 10, i))
    wal.run("PRAGMA wal_checkpoint(PASSIVE)")
    # a cache that spills: frames are written twice, before the transaction ends
    for database in (wal, old):
        database.run("PRAGMA cache_size=2")
        database.do(rows(100, 200, 5, 400), "UPDATE t SET x = x || 'u' WHERE i % 3 = 0")
        database.do("UPDATE t SET x = 'v' || x")
    wal.run("PRAGMA wal_checkpoint(TRUNCATE)")
    wal.do("DELETE FROM t WHERE i % 2 = 1")
    wal.run("VACUUM")
    old.run("PRAGMA journal_mode=TRUNCATE")
    old.do("DELETE FROM t WHERE i % 2 = 1")
    old.run("VACUUM")
    old.run("PRAGMA journal_mode=PERSIST")
    for database in (wal, old):
        database.run("PRAGMA cache_size=2000")
    # in parts; and enough for durable points, new segments and an end of old ones
    for i in range(4):
        wal.do("DELETE FROM t WHERE i >= 1000", rows(1000, 400, i, 4000))
        wal.do(rows(5000 + i, 1, i))
        old.do("DELETE FROM t WHERE i >= 1000", rows(1000, 250 + 100 * i, i, 4000))
        if i == 1:
            brief.remove()
        if i == 2:
            wal.run("PRAGMA wal_checkpoint(RESTART)")
            brief.create()
            run(["chmod", "640", node.path(brief.name)])
    # a durable point that has to leave frames in the -wal, because of a reader, and its end
    with Connection(node, wal.name) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t")
        before = points(node)
        for i in range(3):
            wal.do("DELETE FROM t WHERE i >= 1000", rows(1000, 400, 10 + i, 4000))
        until("a durable point", lambda: points(node) > before, 10, 0.01)
        wal.do(rows(6000, 1, 1))
        brief.do(rows(1, 3, 3))
        reader.execute("COMMIT")
        wal.run("PRAGMA wal_checkpoint(TRUNCATE)")
        wal.do(rows(6001, 1, 1))
    old.do("DELETE FROM t WHERE i >= 1000")
    wal.run("VACUUM")
    wal.do(rows(6002, 1, 1))
    states = {}
    for database in (wal, old, brief):
        database.connection.close()  # and so the -wal goes
        states[database.name] = database.states
    return states


def record(node):
    """Returns {name: states}; the operations are in the disk."""
    node.disk.command("record")
    start(node)
    states = work(node)
    lose_power(node)
    return states


def check_cut(node, states, operation, seed):
    """One power cut, and another while, or after, it is repaired."""
    chance = random.Random(seed)
    disk = node.disk
    disk.replay(operation, seed)
    start(node)
    found = check_states(node, states, operation)
    check_log(node)
    # again: the power fails at the end, or somewhere on the way up to it
    again = chance.choice((0, 0, chance.randint(1, 40), chance.randint(1, 400)))
    node.kill9()
    if again:
        launch_and_lose_power(node, again, chance.choice(HOWS))
    else:
        lose_power(node)
    disk.restore(seed + 1)
    start(node)
    after = check_states(node, states, operation)
    assert after == found, f"after the second start {after}, after the first {found}"
    for name in states:
        if found[name]:
            sql(node, name, "INSERT INTO t VALUES(-1, 'after')", busy_ms=10000)
    check_log(node)
    lose_power(node)


@pytest.mark.limit(300)
def test_power_cut_in_every_operation_loses_nothing(workspace, soak):
    node = Node(workspace, "n1", options=OPTIONS, disk=LossyDisk(workspace, "disk"))
    states = power.load(node.disk) if power.recording() else record(node)
    power.each_cut(
        node.disk,
        lambda operation, seed: check_cut(node, states, operation, seed),
        lambda: power.keep(node.disk, states),
        "every_operation_loses_nothing",
        soak,
    )
    left = [point for point in mounts_from(workspace.base) if point != str(node.mnt)]
    assert not left, f"killed daemons left mounts: {left}"


# --- disks with errors --------------------------------------------------------------------------


@pytest.fixture
def lossy_node(workspace):
    return start(Node(workspace, "n1", options=OPTIONS, disk=LossyDisk(workspace, "disk")))


def test_failed_fsync_of_a_database_is_not_tried_again(lossy_node, workspace):
    """A second fsync would succeed, and what the first one lost would be nowhere any more."""
    node, name, twin = lossy_node, "w.db", workspace.base / "twin.db"
    transactions = [["CREATE TABLE seq(n)", "INSERT INTO seq VALUES(0)", "CREATE TABLE t(i, x)"]]
    transactions += [[rows(1000 * i + 1, 400, i, 4000)] for i in range(9)]
    digests = []
    for number, statements in enumerate(transactions, 1):
        script = [*statements, f"UPDATE seq SET n = {number}"]
        sql_file(twin, "BEGIN;" + ";".join(script) + ";COMMIT")
        digests.append(sql_file(twin, ".sha3sum"))
    acknowledged = 0
    with Connection(node, name, timeout=60) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for number, statements in enumerate(transactions, 1):
            if number == 3:
                node.disk.command("fail", "fsync", name, 1)
            try:
                connection.execute("BEGIN IMMEDIATE")
                for statement in [*statements, f"UPDATE seq SET n = {number}", "COMMIT"]:
                    connection.execute(statement)
                acknowledged = number
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except (SqlError, EOFError):
                break
    assert node.wait_ended(20) != 0
    assert "repair the disk and mount again" in node.log_text()
    for seed in range(8):
        node.disk.restore(seed)
        start(node)
        number, digest = content(node, name)
        assert acknowledged <= number <= acknowledged + 1
        assert digest == digests[number - 1]
        node.lose_power()


def test_full_disk_refuses_and_loses_nothing(lossy_node):
    node = lossy_node
    database = Database(node, "w.db", "WAL")
    database.create()
    database.do(rows(1, 10, 1))
    node.disk.command("quota", 40 << 20)
    for i in range(200):
        try:
            database.do(rows(1000 * i, 400, i, 4000))
        except (SqlError, AssertionError):
            break
    else:
        raise AssertionError("40 MiB were not filled by more than 300")
    known = len(database.states)
    node.lose_power()
    node.disk.restore(1)
    node.disk.command("quota", "none")
    start(node)
    number, digest = content(node, database.name)
    assert known <= number <= known + 1
    assert number > known or digest == database.states[known - 1]["digest"]


# --- clusters -----------------------------------------------------------------------------------


@pytest.fixture
def lossy_cluster(workspace):
    return Cluster(workspace, options=OPTIONS, lossy=True).start()


def load(nodes, db, mode="wal"):
    """A writer of some 80 KiB in a transaction: after 50 of them a durable point is due, and
    after 300 the log does not go back to where they began."""
    return Writer(
        nodes, db, "--mode", mode, "--busy-ms", 50, "--pause-ms", 5, "--rows", 20, "--body", 4000
    )


def test_flipped_bit_on_a_follower_is_found_and_mended(lossy_cluster, db):
    cluster = lossy_cluster
    writer = Writer(cluster.nodes, db, "--mode", "delete", "--count", 20, "--body", 4000)
    writer.wait()
    cluster.wait_equal()
    follower = cluster.followers()[0]
    follower.disk.command("flip", db, 20 * 4096 + 1000, 3)
    try:
        sql(follower, db, "SELECT sum(length(body)) FROM rows", busy_ms=5000)
    except SqlError:
        pass  # better than a wrong answer
    found = "a page of a database file is damaged"
    until("the damage is found", lambda: found in follower.log_text(), 20)
    cluster.check_rows(db, [writer])


@pytest.mark.limit(300)
def test_power_cut_of_all_nodes_at_once_loses_nothing(lossy_cluster, workspace, db, soak):
    cluster = lossy_cluster
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    written = {f"wal-{db}": [], f"old-{db}": []}
    for _ in range(20 if soak else 2):
        for name, writers in written.items():
            writers.append(load(cluster.nodes, name, "wal" if name.startswith("wal") else "delete"))
        for writers in written.values():
            writers[-1].wait_acks(chance.randint(5, 80), 60)
        for node in cluster.nodes:
            node.disk.cut()
        for node in cluster.nodes:
            node.process.kill()
        for node in cluster.nodes:
            node.lose_power()
        for writers in written.values():
            writers[-1].kill9()
        for node in cluster.nodes:
            node.disk.restore(chance.randrange(1 << 32))
            node.launch()
        for node in cluster.nodes:
            node.wait_mounted(60)
        cluster.wait_follows(30)
        for name, writers in written.items():
            assert cluster.check_rows(name, writers) > 0


@pytest.mark.limit(300)
@pytest.mark.parametrize("away", ["a moment", "until the log is compacted"])
def test_power_cuts_of_one_node_again_and_again_lose_nothing(
    lossy_cluster, workspace, db, away, soak
):
    cluster = lossy_cluster
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    writer = load(cluster.nodes, db)
    writer.wait_acks(20, 30)
    told = ""
    for _ in range(12 if soak else 2):
        victim = chance.choice(cluster.nodes)
        victim.disk.cut(chance.randint(1, 500), "hang")
        until("the power cut", victim.disk.is_off, 60, 0.005)
        victim.lose_power()
        writer.wait_acks(20 if away == "a moment" else 350, 100)
        # up again, mostly for less than it takes to catch up
        for ups in range(4):
            victim.disk.restore(chance.randrange(1 << 32))
            victim.stderr_path.write_text("")
            if ups < 3:
                victim.disk.cut(chance.randint(1, 600), chance.choice(HOWS))
            victim.launch()
            end = time.monotonic() + (2 if ups < 3 else 0)
            while victim.running and not victim.disk.is_off() and time.monotonic() < end:
                time.sleep(0.01)
            if ups < 3:
                victim.lose_power()
            told += victim.log_text()
        victim.wait_mounted(60)
        cluster.wait_follows(30)
        cluster.wait_caught_up(60)
        told += victim.log_text()
    writer.stop()
    if away != "a moment":
        assert "getting the databases from the leader" in told
    assert cluster.check_rows(db, [writer]) > 0
