"""An application creates a database on a node that does not lead: it waits, as for any writer there."""

import os
import signal
import subprocess

import pytest
from harness import PROGRAM, PYTHON, Connection, SqlError, run, sql, until

MODES = ["wal", "delete"]


def listed(node):
    return run(["ls", "-A", str(node.mnt)]).out.split()


def check_nowhere(cluster, *names):
    for node in cluster.nodes:
        assert not set(names) & set(listed(node))
        assert all(node.database(name) is None for name in names)


def lead(cluster, node):
    leader = cluster.wait_follows()
    if leader is not node:
        assert run([PROGRAM, "transfer", str(leader.mnt), "--to", node.address]).code == 0
    until(f"{node} leads", lambda: cluster.leader() is node)


@pytest.fixture
def follower(shared_cluster):
    return shared_cluster.followers()[0]


def test_create_on_a_follower_finds_it_locked_and_leaves_nothing(shared_cluster, follower, db):
    with Connection(follower, db) as first, Connection(follower, db, busy_ms=300) as second:
        assert first.execute("SELECT count(*) FROM sqlite_schema") == [(0,)]
        for statement in (
            "CREATE TABLE t(a)",
            "PRAGMA journal_mode=WAL",
            "BEGIN IMMEDIATE",
            "BEGIN EXCLUSIVE",
        ):
            for connection in (first, second):
                with pytest.raises(SqlError, match="SQLITE_BUSY"):
                    connection.execute(statement)
        check_nowhere(shared_cluster, db)
    check_nowhere(shared_cluster, db)
    with pytest.raises(SqlError, match="locked"):
        sql(follower, db, "CREATE TABLE t(a)")
    # and it is nobody's: the leader makes it
    sql(shared_cluster.leader(), db, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    shared_cluster.check_sound(db)
    assert sql(follower, db, "SELECT a FROM t", busy_ms=5000) == "1"


@pytest.mark.parametrize("mode", MODES)
def test_busy_timeout_bridges_until_the_node_leads(cluster, db, mode):
    node = cluster.followers()[0]
    with Connection(node, db, busy_ms=20000, timeout=30) as one, Connection(
        node, db, busy_ms=20000, timeout=30
    ) as two:
        # both have it open, before there is one
        assert one.execute("SELECT count(*) FROM sqlite_schema") == [(0,)]
        assert two.execute("SELECT count(*) FROM sqlite_schema") == [(0,)]
        one.send("CREATE TABLE t(a)")
        lead(cluster, node)
        one.receive()
        one.execute(f"PRAGMA journal_mode={mode}")
        one.execute("INSERT INTO t VALUES(1)")
        two.execute("INSERT INTO t VALUES(2)")
        assert two.execute("SELECT a FROM t") == [(1,), (2,)]
        cluster.check_sound(db)
    cluster.check_sound(db)
    assert cluster.wait_same(db, "SELECT a FROM t") == "1\n2"
    # and what they had open was counted: as on any other, the last has gone
    assert run(["rm", str(node.path(db))]).code == 0
    until("it is gone", lambda: all(db not in listed(one) for one in cluster.nodes))


@pytest.mark.parametrize("mode", MODES)
def test_open_database_is_that_which_another_node_creates(shared_cluster, follower, db, mode):
    with Connection(follower, db) as connection:
        with pytest.raises(SqlError, match="SQLITE_BUSY"):
            connection.execute("CREATE TABLE mine(a)")
        sql(
            shared_cluster.leader(),
            db,
            f"PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES(7);",
        )
        shared_cluster.check_sound(db)
        assert connection.execute("SELECT a FROM t") == [(7,)]
        for _ in range(3):
            with pytest.raises(SqlError, match="SQLITE_BUSY"):
                connection.execute("INSERT INTO t VALUES(8)")
        sql(shared_cluster.leader(), db, "INSERT INTO t VALUES(9)", busy_ms=5000)
        shared_cluster.check_sound(db)
        assert connection.execute("SELECT a FROM t") == [(7,), (9,)]
    shared_cluster.check_sound(db)


def test_writer_that_polls_while_the_database_comes_is_never_refused_otherwise(
    shared_cluster, follower
):
    """The lock passes from the stand-in to the fence."""
    for turn in range(15):
        name = f"polled{turn}.db"
        poll = (
            "import sqlite3, sys, time\n"
            "db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
            "end = time.monotonic() + 1.5\n"
            "print('polling', flush=True)\n"
            "while time.monotonic() < end:\n"
            "    try:\n"
            "        db.execute('CREATE TABLE IF NOT EXISTS u(a)')\n"
            "        print('created')\n"
            "    except sqlite3.Error as error:\n"
            "        if error.sqlite_errorcode & 255 != sqlite3.SQLITE_BUSY:\n"
            "            print(error.sqlite_errorname)\n"
        )
        process = subprocess.Popen(
            [PYTHON, "-c", poll, str(follower.path(name))], stdout=subprocess.PIPE, text=True
        )
        follower.workspace.children.append(process)
        assert process.stdout.readline() == "polling\n"
        sql(shared_cluster.leader(), name, "CREATE TABLE t(a)")
        out, _ = process.communicate(timeout=20)
        assert not out, f"turn {turn}: {out}"


def test_what_is_no_sqlite_cannot_write_there(shared_cluster, follower, workspace):
    source = workspace.base / "source.db"
    assert run(["sqlite3", str(source), "CREATE TABLE t(a)"]).code == 0
    path = follower.path("tool.db")
    for command in (
        ["touch", path],
        ["cp", source, path],
        ["sh", "-c", f"echo text > '{path}'"],
        ["sh", "-c", f"echo text >> '{path}'"],
        ["truncate", "-s", "100", path],
        ["dd", f"if={source}", f"of={path}"],
    ):
        result = run(command)
        assert result.code != 0 and "Read-only file system" in result.err, (command, result)
    assert "refused to create a database" in follower.log_text()
    # who opens it as SQLite does, and writes
    script = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o640)\n"
        "def attempt(call, *arguments):\n"
        "    try:\n"
        "        print(call(*arguments))\n"
        "    except OSError as error:\n"
        "        print(error.strerror)\n"
        "attempt(os.pwrite, fd, b'x' * 100, 0)\n"
        "attempt(os.pwrite, fd, b'x' * 8192, 0)\n"
        "attempt(os.ftruncate, fd, 100)\n"
        "attempt(os.fchmod, fd, 0o600)\n"
        "attempt(os.utime, fd)\n"
        "print(os.pread(fd, 100, 0), os.fstat(fd).st_size, oct(os.fstat(fd).st_mode))\n"
        "os.close(fd)\n"
    )
    result = run([PYTHON, "-c", script, path])
    refused = ["Read-only file system"] * 5
    assert result.out.splitlines() == [*refused, "b'' 0 0o100640"], result
    check_nowhere(shared_cluster, "tool.db")


def test_name_that_becomes_another_thing_is_lost_to_who_waits(cluster):
    leader, node = cluster.leader(), cluster.followers()[0]
    sql(leader, "old.db", "CREATE TABLE t(a); INSERT INTO t VALUES(3);")
    cluster.check_sound("old.db")
    with Connection(node, "new.db") as connection:
        with pytest.raises(SqlError, match="SQLITE_BUSY"):
            connection.execute("CREATE TABLE t(a)")
        assert run(["mv", str(leader.path("old.db")), str(leader.path("new.db"))]).code == 0
        until("it has the name", lambda: listed(node) == ["new.db"])

        def lost():
            try:
                connection.execute("SELECT * FROM sqlite_schema")
            except SqlError as error:
                return error.code

        assert until("it is lost", lost).startswith("SQLITE_IOERR")
    assert sql(node, "new.db", "SELECT a FROM t", busy_ms=5000) == "3"
    cluster.check_sound("new.db")


@pytest.mark.parametrize("how", ["term", "umount", "kill9"])
def test_node_ends_while_a_database_is_waited_for(cluster, how):
    node = cluster.followers()[0]
    with Connection(node, "new.db", busy_ms=30000, timeout=30) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema")
        connection.send("CREATE TABLE t(a)")
        if how == "term":
            node.process.send_signal(signal.SIGTERM)
            assert node.wait_ended() == 0
        elif how == "umount":
            # what the application has open stays behind
            assert run(["umount", "-l", str(node.mnt)]).code == 0
            connection.kill9()
            assert node.wait_ended() == 0
        else:
            node.kill9()
        connection.kill9()
    node.start()
    cluster.wait_leader()
    until("it serves", lambda: listed(node) == [])


def test_many_open_and_close_while_leadership_moves(cluster, soak):
    """Whatever the moment: who has created it has created it, everywhere, and nobody else has."""
    for turn in range(30 if soak else 5):
        name = f"n{turn}.db"
        connections = [Connection(node, name, busy_ms=15000, timeout=40) for node in cluster.nodes]
        for i, connection in enumerate(connections):
            connection.send("CREATE TABLE IF NOT EXISTS t(a)")
        target = cluster.followers()[turn % 2]
        lead(cluster, target)
        ends = []
        for connection in connections:
            try:
                connection.receive()
                ends.append("done")
            except SqlError as error:
                ends.append(error.code)
                assert error.code in ("SQLITE_BUSY", "SQLITE_CANTOPEN") or error.code.startswith(
                    "SQLITE_IOERR"
                ), error
        for connection in connections:
            connection.close()
        assert "done" in ends, ends
        cluster.check_sound(name)
        assert cluster.wait_same(name, "SELECT count(*) FROM t") == "0"
    assert all(os.path.exists(f"/proc/{node.process.pid}") for node in cluster.nodes)
