"""Three nodes in good health: replication, who may write, leadership handed over, joining."""

import json
import os
import subprocess
import time

import pytest
from harness import (
    PROGRAM,
    Cluster,
    Connection,
    Hang,
    Node,
    SqlError,
    Writer,
    run,
    sql,
    sql_file,
    sqlite3_command,
    until,
)

BUSY = "locked"


def transfer(cluster, to=None, by_address=False):
    leader = cluster.wait_follows()
    command = [PROGRAM, "transfer", str(leader.mnt)]
    if to:
        command += ["--to", to.address if by_address else to.status()["node"]]
    result = run(command)
    assert result.code == 0, result
    new = cluster.wait_leader(other_than=leader)
    assert result.out == f"leader {new.status()['node']} at {new.address}\n", result
    if to:
        assert new is to
    return new


# --- replication ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_rows_appear_on_followers_for_stock_readers(shared_cluster, db, mode):
    leader = shared_cluster.leader()
    sql(leader, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(a);")
    for i in range(10):
        sql(leader, db, f"INSERT INTO t VALUES({i});")
    for follower in shared_cluster.followers():
        until(
            f"{follower} shows the rows",
            lambda: sql(follower, db, "SELECT count(*), sum(a) FROM t", busy_ms=5000) == "10|45",
            5,
        )
        assert sql(follower, db, "PRAGMA journal_mode", busy_ms=5000) == mode
        assert db in run(["ls", str(follower.mnt)]).out.split()
    shared_cluster.check_sound(db)


def test_row_appears_on_open_follower_connection_quickly(shared_cluster, db):
    leader = shared_cluster.leader()
    follower = shared_cluster.followers()[0]
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);")
    until("the table arrives", lambda: "t" in sql(follower, db, ".tables", busy_ms=5000).split(), 5)
    with Connection(leader, db) as writer, Connection(follower, db) as reader:
        for i in range(1, 51):
            writer.execute("INSERT INTO t VALUES(?)", i)
            until(f"row {i}", lambda: reader.value("SELECT count(*) FROM t") == i, 2, 0.002)


def test_status_of_all_nodes_names_the_same_leader_members_and_databases(shared_cluster, db):
    sql(shared_cluster.leader(), db, "CREATE TABLE t(a);")
    shared_cluster.wait_equal()
    statuses = [node.status() for node in shared_cluster.nodes]
    assert len({json.dumps(status["leader"]) for status in statuses}) == 1
    assert len({status["term"] for status in statuses}) == 1
    assert sorted(status["role"] for status in statuses) == ["follower", "follower", "leader"]
    assert len({status["node"] for status in statuses}) == 3
    for status in statuses:
        assert sorted((m["node"], m["address"], m["role"]) for m in status["members"]) == sorted(
            (other["node"], other["address"], "voter") for other in statuses
        )


def test_attributes_and_removal_are_replicated(shared_cluster, db):
    leader = shared_cluster.leader()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);")
    path = str(leader.path(db))
    for command in (
        ["chmod", "640", path],
        ["chown", "12:34", path],
        ["touch", "-d", "@1000000000", path],
    ):
        result = run(command)
        assert result.code == 0, result

    def attributes(node):
        return run(["stat", "-c", "%a %u %g %Y", str(node.path(db))]).out.strip()

    for node in shared_cluster.nodes:
        until(f"attributes on {node}", lambda: attributes(node) == "640 12 34 1000000000", 5)
    result = run(["rm", path])
    assert result.code == 0, result
    for node in shared_cluster.nodes:
        until(
            f"{db} is gone on {node}", lambda: db not in run(["ls", str(node.mnt)]).out.split(), 5
        )


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_spills_large_transactions_and_vacuum_leave_all_nodes_equal(shared_cluster, db, mode):
    leader = shared_cluster.leader()
    script = f"""
    PRAGMA journal_mode={mode}; PRAGMA cache_size=2;
    CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE INDEX i ON t(b);
    BEGIN;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000)
    INSERT INTO t SELECT i, randomblob(300), i%7 FROM n;
    UPDATE t SET b=b+1 WHERE id%3=0;
    DELETE FROM t WHERE id%5=0;
    COMMIT;
    BEGIN; UPDATE t SET a=randomblob(100); ROLLBACK;
    """
    sql(leader, db, script, timeout=60)
    shared_cluster.check_sound(db)
    sql(leader, db, "DELETE FROM t WHERE id>200; VACUUM;", timeout=60)
    shared_cluster.check_sound(db)
    sql(leader, db, "INSERT INTO t(a, b) SELECT randomblob(2000), 1 FROM t;", timeout=60)
    shared_cluster.check_sound(db)
    pages = int(sql(leader, db, "PRAGMA page_count", busy_ms=2000))
    assert all(node.database(db)["pages"] == pages for node in shared_cluster.nodes)


@pytest.mark.parametrize("page_size", [512, 1024, 65536])
def test_page_sizes_are_equal_on_all_nodes(shared_cluster, db, page_size):
    sql(
        shared_cluster.leader(),
        db,
        f"PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL; CREATE TABLE t(a);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)"
        "INSERT INTO t SELECT randomblob(300) FROM n;",
    )
    shared_cluster.check_sound(db)
    assert shared_cluster.wait_same(db, "PRAGMA page_size") == str(page_size)


@pytest.mark.parametrize("journal", ["TRUNCATE", "PERSIST", "MEMORY", "OFF"])
def test_other_journal_modes_never_leave_the_leader_alone_with_rows(shared_cluster, db, journal):
    leader = shared_cluster.leader()
    sql(leader, db, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    try:
        sql(leader, db, f"PRAGMA journal_mode={journal}; INSERT INTO t VALUES(2);")
        wanted = ["1,2"]
    except SqlError:
        wanted = ["1", "1,2"]
    assert shared_cluster.wait_same(db, "SELECT group_concat(a) FROM t") in wanted
    shared_cluster.check_sound(db)


def test_wal_on_followers_stays_bounded_under_constant_writing(shared_cluster, db):
    leader = shared_cluster.leader()
    writer = Writer([leader], db, "--count", 1200, "--rows", 2, "--body", 2000)
    writer.wait(100)
    shared_cluster.wait_equal()
    for node in shared_cluster.nodes:
        wal = node.data / f"{db}-wal"
        size = wal.stat().st_size if wal.exists() else 0
        assert size < 12 << 20, f"{size} bytes on {node}"
    shared_cluster.check_rows(db, [writer])


# --- who may write -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_follower_refuses_writers_with_busy_and_serves_readers(shared_cluster, db, mode):
    leader = shared_cluster.leader()
    sql(leader, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    shared_cluster.wait_equal()
    for follower in shared_cluster.followers():
        until(
            "the row is there", lambda: sql(follower, db, "SELECT a FROM t", busy_ms=5000) == "1", 5
        )
        started = time.monotonic()
        with pytest.raises(SqlError, match=BUSY):
            sql(follower, db, "INSERT INTO t VALUES(2);")
        with pytest.raises(SqlError, match=BUSY):
            sql(follower, db, "BEGIN IMMEDIATE;")
        assert time.monotonic() - started < 5, "it does not wait"
        with Connection(follower, db, busy_ms=400) as connection:
            started = time.monotonic()
            with pytest.raises(SqlError, match="SQLITE_BUSY"):
                connection.execute("INSERT INTO t VALUES(3)")
            assert 0.2 < time.monotonic() - started < 5, "the busy timeout is respected"
            assert connection.value("SELECT count(*) FROM t") == 1
    sql(leader, db, "INSERT INTO t VALUES(4);", busy_ms=5000)
    assert shared_cluster.wait_same(db, "SELECT group_concat(a) FROM t") == "1,4"


def test_follower_refuses_to_create_a_database(shared_cluster, db):
    follower = shared_cluster.followers()[0]
    with pytest.raises(SqlError):
        sql(follower, db, "CREATE TABLE t(a);")
    assert db not in run(["ls", str(follower.mnt)]).out.split()
    assert follower.database(db) is None
    sql(shared_cluster.leader(), db, "CREATE TABLE t(a);")
    shared_cluster.check_sound(db)


def test_follower_refuses_removal_and_attributes(shared_cluster, db):
    sql(shared_cluster.leader(), db, "CREATE TABLE t(a);")
    shared_cluster.wait_equal()
    follower = shared_cluster.followers()[0]
    path = str(follower.path(db))
    until("it arrives", lambda: run(["stat", path]).code == 0, 5)
    assert run(["chmod", "777", path]).code != 0
    assert run(["rm", "-f", path]).code != 0
    shared_cluster.check_sound(db)


def test_follower_reader_with_a_long_snapshot_does_not_stop_the_others(shared_cluster, db):
    leader, follower = shared_cluster.leader(), shared_cluster.followers()[0]
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(0);")
    assert shared_cluster.wait_same(db, "SELECT a FROM t") == "0"
    with Connection(follower, db) as old, Connection(leader, db) as writer:
        old.execute("BEGIN")
        assert old.value("SELECT count(*) FROM t") == 1
        for _ in range(300):
            writer.execute("INSERT INTO t VALUES(randomblob(2000))")
        shared_cluster.wait_equal()
        until("new readers see it", lambda: sql(follower, db, "SELECT count(*) FROM t") == "301", 5)
        assert old.value("SELECT count(*) FROM t") == 1
        old.execute("COMMIT")
        assert old.value("SELECT count(*) FROM t") == 301
    shared_cluster.check_sound(db)


# --- leadership handed over ----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stopped", "dead"])
def test_transfer_to_a_node_that_does_not_answer_is_refused_and_holds_no_write_up(workspace, db, end):
    cluster = Cluster(workspace, options=("--election-timeout", "3000")).start()
    leader, target = cluster.leader(), cluster.followers()[1]
    to = target.status()["node"]
    with Connection(leader, db, busy_ms=0) as writer:
        writer.execute("CREATE TABLE t(a)")
        if end == "stopped":
            target.pause()
        else:
            target.kill9()
        term = leader.status()["term"]
        command = [PROGRAM, "transfer", str(leader.mnt), "--to", to]
        for _ in range(5):  # the first may be begun when nobody can know yet
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as refused:
                writer.execute("INSERT INTO t VALUES(1)")
                error = refused.communicate(timeout=20)[1]
            assert refused.returncode == 1 and "does not answer" in error, error
        assert leader.status()["role"] == "leader" and leader.status()["term"] == term
    if end == "stopped":
        target.resume()
    else:
        target.start()
    cluster.check_sound(db)
    transfer(cluster, target)


@pytest.mark.parametrize("by_address", [False, True], ids=["by_node_id", "by_address"])
def test_transfer_moves_leadership_to_the_named_node(shared_cluster, db, by_address):
    sql(shared_cluster.leader(), db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);")
    to = shared_cluster.followers()[1]
    new = transfer(shared_cluster, to, by_address)
    assert new is to
    sql(new, db, "INSERT INTO t VALUES(1);", busy_ms=10000)
    shared_cluster.check_sound(db)


def test_transfer_without_a_name_finds_a_successor(shared_cluster, db):
    old = shared_cluster.leader()
    new = transfer(shared_cluster)
    assert new is not old
    sql(new, db, "CREATE TABLE t(a);", busy_ms=10000)
    with pytest.raises(SqlError):
        sql(old, db, "CREATE TABLE u(a);")
    shared_cluster.check_sound(db)


def test_transfer_from_a_follower_or_to_a_stranger_is_refused_in_one_line(shared_cluster):
    leader, follower = shared_cluster.leader(), shared_cluster.followers()[0]
    for command in (
        [PROGRAM, "transfer", str(leader.mnt), "--to", "00000001"],
        [PROGRAM, "transfer", str(leader.mnt), "--to", "127.0.0.1:1"],
    ):
        result = run(command)
        assert result.code != 0 and len(result.err.strip().splitlines()) == 1, result
    # on a follower: forwarded, or refused
    result = run([PROGRAM, "transfer", str(follower.mnt)])
    assert result.code == 0 or len(result.err.strip().splitlines()) == 1, result
    shared_cluster.wait_follows()


def test_waiting_writer_on_a_follower_goes_on_after_transfer(shared_cluster, db):
    """The busy timeout bridges the change of the leader."""
    old = shared_cluster.leader()
    to = shared_cluster.followers()[0]
    sql(old, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);")
    until("the table arrives", lambda: "t" in sql(to, db, ".tables", busy_ms=5000).split(), 5)
    with Connection(to, db, busy_ms=20000) as waiting, Connection(old, db) as former:
        former.execute("INSERT INTO t VALUES(1)")
        waiting.send("INSERT INTO t VALUES(2)")
        time.sleep(0.3)
        transfer(shared_cluster, to)
        waiting.receive()
        with pytest.raises(SqlError, match="SQLITE_BUSY"):
            former.execute("INSERT INTO t VALUES(3)")
        assert shared_cluster.wait_same(db, "SELECT a FROM t ORDER BY a") == "1\n2"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_writers_on_all_nodes_go_on_through_repeated_transfers(cluster, db, mode):
    sql(
        cluster.leader(),
        db,
        f"PRAGMA journal_mode={mode};"
        "CREATE TABLE rows(writer TEXT, seq INTEGER, body BLOB, PRIMARY KEY(writer, seq));",
    )
    cluster.check_sound(db)
    writer = Writer(cluster.nodes, db, "--mode", mode, "--busy-ms", 50, "--pause-ms", 5)
    for _ in range(4):
        writer.wait_acks(5)
        transfer(cluster)
    writer.wait_acks(5)
    writer.stop()
    assert cluster.check_rows(db, [writer]) >= 100


def test_umount_of_the_leader_hands_over_and_exits_zero(cluster, db):
    old = cluster.leader()
    writer = Writer(cluster.nodes, db, "--busy-ms", 50)
    writer.wait_acks(10)
    writer.stop()  # nobody has a file open there
    old.stop()
    started = time.monotonic()
    new = cluster.wait_leader()
    assert new is not old and time.monotonic() - started < 3
    more = Writer(cluster.running, db, "--busy-ms", 50, "--count", 10)
    more.wait(20)
    old.start()
    assert cluster.check_rows(db, [writer, more]) >= 100
    cluster.wait_voters()


def test_umount_without_quorum_still_ends_cleanly(cluster, db):
    sql(cluster.leader(), db, "CREATE TABLE t(a);")
    cluster.check_sound(db)
    first, second, last = cluster.nodes
    first.kill9()
    second.kill9()
    last.stop(timeout=30)
    cluster.restart_dead()
    cluster.check_sound(db)


def test_node_restarted_with_its_data_directory_needs_no_join(cluster, db):
    leader = cluster.leader()
    sql(leader, db, "CREATE TABLE t(a);")
    follower = cluster.followers()[0]
    follower.stop()
    sql(leader, db, "INSERT INTO t VALUES(1);")
    follower.start()  # without --join
    cluster.wait_voters()
    cluster.check_sound(db)
    follower.stop()
    follower.start(join=leader.address)  # and with it again, as a service file would have it
    cluster.wait_voters()
    cluster.check_sound(db)


def test_node_joins_by_a_follower_and_gets_existing_databases(workspace):
    cluster = Cluster(workspace, 2).start()
    leader = cluster.leader()
    for mode in ("delete", "wal"):
        sql(
            leader,
            f"{mode}.db",
            f"PRAGMA journal_mode={mode}; CREATE TABLE t(a);"
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000)"
            "INSERT INTO t SELECT randomblob(500) FROM n;",
        )
    [follower] = cluster.followers()
    third = Node(workspace, "n3")
    cluster.nodes.append(third)
    third.start(join=follower.address)
    # an open waits until the node has caught up
    assert sql(third, "wal.db", "SELECT count(*) FROM t", busy_ms=5000) == "2000"
    cluster.wait_voters(3)
    cluster.check_sound("wal.db")
    cluster.check_sound("delete.db")


# --- opening while a node is not ready -----------------------------------------------------------


def test_open_on_a_node_that_cannot_catch_up_waits_and_can_be_interrupted(cluster, db):
    sql(cluster.leader(), db, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    for node in cluster.nodes:
        node.kill9()
    alone = cluster.nodes[0]
    alone.start()
    process = subprocess.Popen(
        sqlite3_command(alone.path(db)) + ["SELECT a FROM t"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    alone.workspace.children.append(process)
    time.sleep(1.5)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            raise Hang("an open that waits cannot be interrupted") from None
    else:
        # it may serve what it knows to be committed, but nothing else
        assert process.stdout.read().strip() in ("1", "")
    waiting = Connection(alone, db, timeout=30)
    waiting.send("SELECT count(*) FROM t")
    cluster.restart_dead()
    assert waiting.receive() == [(1,)]
    waiting.close()
    cluster.check_sound(db)


def test_reader_that_holds_up_replication_can_open_other_databases(shared_cluster, db):
    """Without WAL a reader keeps what comes from the leader waiting, with all that is behind it. It
    may be the same program that opens another database before it ends its transaction."""
    leader, follower = shared_cluster.leader(), shared_cluster.followers()[0]
    other, third = f"other-{db}", f"third-{db}"
    for name in (db, other):  # the other one is opened there for the first time below
        sql(leader, name, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    shared_cluster.check_sound(db)
    with Connection(follower, db, busy_ms=5000) as reader:
        reader.execute("BEGIN")
        assert reader.value("SELECT count(*) FROM t") == 1
        for name in (db, other):
            sql(leader, name, "INSERT INTO t VALUES(2);")
        sql(leader, third, "CREATE TABLE t(a);")
        time.sleep(0.3)
        assert sql(follower, other, "SELECT count(*) FROM t", timeout=5) == "1"
        reader.execute("COMMIT")
        until("the reader sees it", lambda: reader.value("SELECT count(*) FROM t") == 2, 5)
    for name in (db, other, third):
        shared_cluster.check_sound(name)


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
def test_removed_database_is_gone_for_those_who_only_look_at_its_name(shared_cluster, db, opened):
    leader, follower = shared_cluster.leader(), shared_cluster.followers()[0]
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    shared_cluster.check_sound(db)
    look = ["stat", "-c", "%s", str(follower.path(db))]
    with Connection(follower, db) as reader:
        if opened:
            assert reader.value("SELECT count(*) FROM t") == 1
        assert run(look).code == 0
        assert run(["rm", str(leader.path(db))]).code == 0
        shared_cluster.wait_caught_up()
        if opened:
            run(look)
    until("the name is gone", lambda: run(look).code != 0, 5)
    sql(leader, db, "CREATE TABLE t(a, b); CREATE TABLE u(a, b); CREATE TABLE v(a, b);")
    until("the new one is seen", lambda: run(look).out == "16384\n", 5)
    shared_cluster.check_sound(db)


def test_node_that_missed_transactions_serves_none_of_its_old_state(cluster, db):
    """What a node shows after its start is at least what the leader had committed by then."""
    leader = cluster.leader()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    victim = cluster.followers()[0]
    for turn in range(2, 5):
        victim.kill9()
        sql(leader, db, f"INSERT INTO t VALUES({turn});", busy_ms=5000)
        victim.start()
        assert sql(victim, db, "SELECT count(*) FROM t", busy_ms=5000) == str(turn)


def test_data_directory_of_a_stopped_node_holds_the_database(cluster, db):
    """After a clean umount the file in the data directory is what SQLite reads."""
    sql(
        cluster.leader(), db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);"
    )
    cluster.check_sound(db)
    follower = cluster.followers()[0]
    follower.stop()
    copy = cluster.workspace.base / "copy"
    copy.mkdir()
    for name in os.listdir(follower.data):
        if name.startswith(db) and not name.endswith("-shm"):
            (copy / name).write_bytes((follower.data / name).read_bytes())
    assert sql_file(copy / db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "1\nok"
