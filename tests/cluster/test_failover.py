"""Daemons that die or stop: nothing acknowledged is lost, and all nodes end equal."""

import random
import time

import pytest
from harness import PROGRAM, Connection, SqlError, Writer, run, sql, until


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_leader_killed_under_load_loses_nothing_acknowledged(cluster, db, mode):
    writer = Writer(cluster.nodes, db, "--mode", mode, "--busy-ms", 50, "--pause-ms", 4)
    for _ in range(2):
        writer.wait_acks(20, 30)
        old = cluster.wait_leader()
        old.kill9()
        writer.wait_acks(20, 30)
        old.start()
        cluster.wait_follows()
    writer.wait_acks(5)
    writer.stop()
    assert cluster.check_rows(db, [writer]) >= 400


def test_new_leader_is_there_well_under_two_seconds(cluster, db):
    writer = Writer(cluster.nodes, db, "--busy-ms", 20, "--pause-ms", 4)
    gaps = []
    for _ in range(3):
        writer.wait_acks(10, 30)
        old = cluster.wait_leader()
        killed = time.monotonic()
        old.kill9()
        writer.wait_acks(1, 30)
        gaps.append(next(event[3] for event in writer.acks() if event[3] > killed) - killed)
        old.start()
        cluster.wait_follows()
    writer.stop()
    # on a loaded machine an election may need a second round
    assert sorted(gaps)[1] < 3, gaps
    cluster.check_rows(db, [writer])


def test_follower_killed_under_load_catches_up_when_it_returns(cluster, db):
    writer = Writer([cluster.leader()], db, "--pause-ms", 4)
    writer.wait_acks(10)
    victim = cluster.followers()[0]
    victim.kill9()
    writer.wait_acks(50, 30)
    victim.start()
    cluster.wait_caught_up()
    writer.wait_acks(10)
    writer.stop()
    assert not writer.fails(), "one follower of two is enough"
    assert cluster.check_rows(db, [writer]) >= 350


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_all_nodes_killed_at_once_and_restarted_keep_every_acknowledged_row(cluster, db, mode):
    writers = []
    for _ in range(2):
        writer = Writer(cluster.nodes, db, "--mode", mode, "--busy-ms", 50, "--pause-ms", 4)
        writers.append(writer)
        writer.wait_acks(30, 30)
        for node in cluster.nodes:
            node.process.kill()
        for node in cluster.nodes:
            node.wait_ended()
        writer.kill9()
        for node in cluster.nodes:
            node.launch()
        for node in cluster.nodes:
            node.wait_mounted(30)
        cluster.wait_follows()
        cluster.check_rows(db, writers)
    assert cluster.check_rows(db, writers) >= 300


def test_reader_on_a_surviving_node_notices_nothing_of_a_failover(cluster, db):
    leader = cluster.leader()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    cluster.wait_same(db, "SELECT a FROM t")
    with Connection(cluster.followers()[0], db) as reader:
        assert reader.value("SELECT count(*) FROM t") == 1
        leader.kill9()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert reader.value("SELECT count(*) FROM t") == 1
            time.sleep(0.01)
        new = cluster.wait_leader()
        sql(new, db, "INSERT INTO t VALUES(2);", busy_ms=10000)
        until("the reader sees the new row", lambda: reader.value("SELECT count(*) FROM t") == 2, 5)


def test_application_on_a_killed_node_gets_an_error_and_does_not_hang(cluster, db):
    leader = cluster.leader()
    with Connection(leader, db, timeout=10) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t(a)")
        leader.kill9()
        for statement in ("INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)"):
            with pytest.raises(SqlError):
                connection.execute(statement)
    assert run(["ls", str(leader.mnt)]).code != 0
    cluster.wait_leader()
    leader.start()
    cluster.check_sound(db)


def test_leader_stopped_and_continued_steps_down_and_forks_nothing(cluster, db):
    """SIGSTOP: the old leader wakes up and still believes that it leads."""
    old = cluster.leader()
    sql(
        old,
        db,
        "PRAGMA journal_mode=WAL;"
        "CREATE TABLE rows(writer TEXT, seq INTEGER, body BLOB, PRIMARY KEY(writer, seq));",
    )
    cluster.check_sound(db)
    stuck = Writer([old], db, "--busy-ms", 100, "--pause-ms", 4)
    stuck.wait_acks(10)
    old.pause()
    cluster.wait_leader(other_than=old)
    other = Writer(cluster.running, db, "--busy-ms", 50, "--pause-ms", 10)
    other.wait_acks(20, 30)
    old.resume()
    other.wait_acks(20, 30)
    other.stop()
    stuck.kill9()
    cluster.wait_follows()
    assert cluster.check_rows(db, [stuck, other]) >= 200


@pytest.mark.limit(300)
def test_random_kills_of_one_node_at_a_time_lose_nothing(cluster, db, soak):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    writers = [Writer(cluster.nodes, db, "--busy-ms", 50, "--pause-ms", 20) for _ in range(2)]
    end = time.monotonic() + (600 if soak else 10)
    while time.monotonic() < end:
        victim = chance.choice([cluster.leader() or cluster.nodes[0], chance.choice(cluster.nodes)])
        victim.kill9()
        time.sleep(chance.random())
        victim.start()
        cluster.wait_follows(30)
        cluster.wait_caught_up()
        time.sleep(chance.random())
    for writer in writers:
        writer.stop()
    assert cluster.check_rows(db, writers) > 0


@pytest.mark.soak
def test_random_kills_of_any_number_of_nodes_lose_nothing(cluster, db):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    writers = [Writer(cluster.nodes, db, "--busy-ms", 50, "--pause-ms", 20) for _ in range(2)]
    end = time.monotonic() + 600
    while time.monotonic() < end:
        for node in chance.sample(cluster.nodes, chance.randint(1, 3)):
            node.kill9()
        time.sleep(chance.random())
        for node in cluster.nodes:
            if not node.running:
                node.launch()
        for node in cluster.nodes:
            node.wait_mounted(60)
        cluster.wait_caught_up(60)
        time.sleep(chance.random() * 2)
    for writer in writers:
        writer.stop(60)
    assert cluster.check_rows(db, writers) > 0


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist", "memory", "off"])
def test_commit_refused_because_leadership_moved_is_told_in_the_log(cluster, db, mode):
    leader = cluster.leader()
    with Connection(leader, db) as writer:
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("CREATE TABLE t(a)")
        cluster.check_sound(db)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES('refused')")
        assert run([PROGRAM, "transfer", str(leader.mnt)]).code == 0
        cluster.wait_leader(other_than=leader)
        with pytest.raises(SqlError, match="SQLITE_IOERR"):
            writer.execute("COMMIT")
    lines = [line for line in leader.log_text().splitlines() if "commit refused" in line]
    assert lines and all(f"database={db}" in line for line in lines), leader.log_tail(10)
    cluster.check_sound(db)
    assert cluster.wait_same(db, "SELECT count(*) FROM t") == "0"


def test_group_refused_because_leadership_moved_is_told_in_the_log(cluster):
    leader = cluster.leader()
    with Connection(leader, "one.db") as writer:
        writer.execute("CREATE TABLE t(a)")
        writer.execute(f"ATTACH '{leader.path('two.db')}' AS two")
        writer.execute("CREATE TABLE two.u(a)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES('refused')")
        writer.execute("INSERT INTO u VALUES('refused')")
        assert run([PROGRAM, "transfer", str(leader.mnt)]).code == 0
        cluster.wait_leader(other_than=leader)
        with pytest.raises(SqlError, match="SQLITE_IOERR"):
            writer.execute("COMMIT")
    assert "commit refused" in leader.log_text(), leader.log_tail(10)
    for name, table in (("one.db", "t"), ("two.db", "u")):
        cluster.check_sound(name)
        assert cluster.wait_same(name, f"SELECT count(*) FROM {table}") == "0"
