"""No majority: commits fail, reads go on, nothing refused appears, and writing goes on later."""

import time

import pytest
from harness import Cluster, Connection, Network, SqlError, Writer, sql, until

BUSY = "locked"


def insert_until_accepted(connection, statement, timeout=30):
    """An application that tries again whatever the error is; the number of tries."""
    tries = 0
    end = time.monotonic() + timeout
    while True:
        tries += 1
        try:
            connection.execute(statement)
            return tries
        except SqlError as error:
            if time.monotonic() > end:
                raise AssertionError(f"not accepted within {timeout} s, {tries} tries: {error}")
            time.sleep(0.05)


# --- no quorum -----------------------------------------------------------------------------------


def test_commit_without_quorum_fails_after_its_timeout_and_goes_on_later(workspace, db):
    """Two of three are dead. One connection stays open through all of it."""
    cluster = Cluster(workspace, options=["--commit-timeout", "2"]).start()
    leader = cluster.leader()
    with Connection(leader, db, timeout=30) as writer, Connection(leader, db) as reader:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t(a)")
        writer.execute("INSERT INTO t VALUES('before')")
        cluster.check_sound(db)
        dead = [node for node in cluster.nodes if node is not leader]
        for node in dead:
            node.kill9()

        started = time.monotonic()
        with pytest.raises(SqlError, match="SQLITE_IOERR.*disk I/O error"):
            writer.execute("INSERT INTO t VALUES('refused 1')")
        waited = time.monotonic() - started
        assert 1.5 < waited < 6, f"waited {waited:.1f} s for --commit-timeout 2"

        # reads go on, in that connection, another, and a new one
        for turn in range(3):
            assert writer.execute("SELECT a FROM t") == [("before",)]
            assert reader.execute("SELECT a FROM t") == [("before",)]
            assert sql(leader, db, "SELECT a FROM t; PRAGMA integrity_check;") == "before\nok"
        # the next ones fail too, with whichever code, and soon
        for turn in range(2, 4):
            started = time.monotonic()
            with pytest.raises(SqlError, match="SQLITE_(IOERR|BUSY)"):
                writer.execute(f"INSERT INTO t VALUES('refused {turn}')")
            assert time.monotonic() - started < 6
        status = leader.status()
        assert status["commit_index"] >= 1

        dead[0].start()
        tries = insert_until_accepted(writer, "INSERT INTO t VALUES('after')", 30)
        assert tries < 200
        # From here on it is decided whether a transaction of unknown outcome was committed.
        decided = cluster.wait_same(db, "SELECT a FROM t ORDER BY a")
        rows = decided.split("\n")
        assert rows.count("before") == 1 and rows.count("after") == 1
        assert set(rows) <= {"before", "after", "refused 1", "refused 2", "refused 3"}
        assert len(set(rows)) == len(rows)
        insert_until_accepted(writer, "INSERT INTO t VALUES('and on')", 10)
        rows.append("and on")
    dead[1].start()
    cluster.check_sound(db)
    # and no crash brings a refused one back
    for node in cluster.nodes:
        node.kill9()
    for node in cluster.nodes:
        node.launch()
    for node in cluster.nodes:
        node.wait_mounted(30)
    cluster.check_sound(db)
    assert sorted(cluster.wait_same(db, "SELECT a FROM t").split("\n")) == sorted(rows)


def test_rollback_mode_commit_without_quorum_fails_and_goes_on_later(workspace, db):
    cluster = Cluster(workspace, options=["--commit-timeout", "2"]).start()
    leader = cluster.leader()
    with Connection(leader, db, timeout=30) as writer:
        writer.execute("CREATE TABLE t(a)")
        writer.execute("INSERT INTO t VALUES('before')")
        dead = [node for node in cluster.nodes if node is not leader]
        for node in dead:
            node.kill9()
        with pytest.raises(SqlError, match="SQLITE_(IOERR|BUSY)"):
            writer.execute("INSERT INTO t VALUES('refused')")
        assert sql(leader, db, "SELECT a FROM t", busy_ms=5000) == "before"
        dead[0].start()
        insert_until_accepted(writer, "INSERT INTO t VALUES('after')", 30)
    dead[1].start()
    cluster.check_sound(db)
    rows = cluster.wait_same(db, "SELECT a FROM t").split("\n")
    assert rows in (["before", "after"], ["before", "refused", "after"])


def test_reads_go_on_upon_the_last_follower_without_quorum(cluster, db):
    leader = cluster.leader()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    last, other = cluster.followers()
    with Connection(last, db) as reader:
        assert reader.value("SELECT count(*) FROM t") == 1
        leader.kill9()
        other.kill9()
        for _ in range(5):
            assert reader.value("SELECT count(*) FROM t") == 1
            assert sql(last, db, "SELECT count(*) FROM t") == "1"
            with pytest.raises(SqlError, match=BUSY):
                sql(last, db, "INSERT INTO t VALUES(2);")
            time.sleep(0.2)
        assert last.status()["role"] != "leader"
    cluster.restart_dead()
    cluster.check_sound(db)


def test_killed_leader_with_an_unreplicated_transaction_never_shows_it(workspace, db):
    """The transaction reached the leader's own disk only; the leader dies, the others go on
    without it, and when it returns its transaction is gone for good."""
    cluster = Cluster(workspace, options=["--commit-timeout", "20"]).start()
    old = cluster.leader()
    connection = Connection(old, db, timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t(a)")
    connection.execute("INSERT INTO t VALUES('before')")
    cluster.check_sound(db)
    others = [node for node in cluster.nodes if node is not old]
    for node in others:
        node.kill9()
    connection.send("INSERT INTO t VALUES('never')")
    time.sleep(0.5)
    old.kill9()
    with pytest.raises((SqlError, EOFError)):
        connection.receive()
    connection.kill9()
    for node in others:
        node.launch()
    for node in others:
        node.wait_mounted(30)
    new = cluster.wait_leader()
    sql(new, db, "INSERT INTO t VALUES('after');", busy_ms=10000)
    old.start()
    cluster.check_sound(db)
    assert cluster.wait_same(db, "SELECT a FROM t") == "before\nafter"


# --- a network that splits -----------------------------------------------------------------------


@pytest.fixture
def split_cluster(workspace):
    """Three nodes, each in a network namespace of its own."""
    try:
        network = Network(workspace, 3)
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    cluster = Cluster(
        workspace,
        options=["--commit-timeout", "3"],
        hosts=network.hosts,
        prefixes=network.prefixes(),
    )
    cluster.network = network
    return cluster.start()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_leader_cut_off_acknowledges_nothing_that_is_lost(split_cluster, db, mode):
    cluster, network = split_cluster, split_cluster.network
    old = cluster.leader()
    sql(
        old,
        db,
        f"PRAGMA journal_mode={mode};"
        "CREATE TABLE rows(writer TEXT, seq INTEGER, body BLOB, PRIMARY KEY(writer, seq));",
    )
    cluster.check_sound(db)
    inside = Writer([old], db, "--mode", mode, "--busy-ms", 100)
    inside.wait_acks(20)
    network.cut(cluster.nodes.index(old))
    cut = time.monotonic()
    others = [node for node in cluster.nodes if node is not old]

    def elected():
        return any(node.status()["role"] == "leader" for node in others)

    until("the majority has a new leader", elected, 15)
    outside = Writer(others, db, "--mode", mode, "--busy-ms", 50, "--pause-ms", 10)
    outside.wait_acks(20, 30)
    until("the old leader knows", lambda: old.status()["role"] != "leader", 15)
    # its readers still read; with a rollback journal SQLite keeps them out while a commit waits
    if mode == "wal":
        assert int(sql(old, db, "SELECT count(*) FROM rows", busy_ms=5000)) >= 100
    late = [event for event in inside.acks() if event[3] > cut + 1]
    assert not late, f"acknowledged without a majority: {late[:3]}"

    network.heal(cluster.nodes.index(old))
    outside.wait_acks(10, 30)
    inside.kill9()
    outside.stop()
    cluster.wait_follows(30)
    assert cluster.check_rows(db, [inside, outside], timeout=60) >= 200


def test_follower_cut_off_disturbs_nobody_and_catches_up(split_cluster, db):
    cluster, network = split_cluster, split_cluster.network
    leader = cluster.leader()
    term = leader.status()["term"]
    writer = Writer([leader], db, "--pause-ms", 20)
    writer.wait_acks(10)
    victim = cluster.followers()[0]
    network.cut(cluster.nodes.index(victim))
    time.sleep(3)
    writer.wait_acks(20)
    with pytest.raises(SqlError, match=BUSY):
        sql(victim, db, "DELETE FROM rows;")
    network.heal(cluster.nodes.index(victim))
    writer.wait_acks(20)
    writer.stop()
    assert not writer.fails()
    cluster.wait_equal(60)
    assert cluster.leader() is leader and leader.status()["term"] == term, "pre-vote keeps the term"
    assert cluster.check_rows(db, [writer]) >= 250
