"""The daemon beside its work: who asks it, signals, descriptors that run out, a mount that is taken away."""

import os
import resource
import signal
import socket
import time

import pytest
from harness import PROGRAM, Cluster, Connection, Node, SqlError, run, sql, until


def connect(node):
    """A client of the control socket that says nothing."""
    client = socket.socket(socket.AF_UNIX)
    directory = os.open(node.data / ".dqlitefs", os.O_PATH)
    try:
        client.connect(f"/proc/self/fd/{directory}/control")
    finally:
        os.close(directory)
    client.setblocking(False)
    return client


def is_connected(client):
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True


def cpu_s(node):
    fields = open(f"/proc/{node.process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- clients --------------------------------------------------------------------------------------


def test_silent_clients_do_not_delay_a_command(node):
    silent = [connect(node) for _ in range(8)]
    halfway = connect(node)
    halfway.send(b'{"command": ')
    assert node.status()["role"] == "leader"
    assert all(is_connected(client) for client in [*silent, halfway]), "it waited for one of them"
    halfway.send(b'"pid"}\n')
    halfway.setblocking(True)
    assert b"pid" in halfway.recv(100)


def test_more_silent_clients_than_places_do_not_keep_a_command_out(node):
    silent = [connect(node) for _ in range(200)]
    for _ in range(5):
        assert node.status()["role"] == "leader"
    assert run([PROGRAM, "transfer", str(node.mnt)]).err.count("\n") == 1
    descriptors = len(os.listdir(f"/proc/{node.process.pid}/fd"))
    assert descriptors < 150, "the clients are not bounded"
    for client in silent:
        client.close()


def test_client_that_takes_no_answer_does_not_delay_a_command(node):
    names = [node.path(f"{i:04}-{'long' * 40}.db") for i in range(1000)]
    assert run(["touch", *names], timeout=60).code == 0
    greedy = [connect(node) for _ in range(8)]
    for client in greedy:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.send(b'{"command": "status"}\n')
    assert len(node.status()["databases"]) == 1000
    assert run([PROGRAM, "transfer", str(node.mnt)]).err.count("\n") == 1
    assert all(is_connected(client) for client in greedy)


# --- descriptors ----------------------------------------------------------------------------------


def test_node_out_of_descriptors_does_not_spin_and_recovers(workspace):
    node = Node(workspace, "n1").start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    former = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
    taken = len(os.listdir(f"/proc/{node.process.pid}/fd"))
    highest = max(map(int, os.listdir(f"/proc/{node.process.pid}/fd")))
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (highest + 1, former[1]))
    host, port = node.address.split(":")
    others = [socket.create_connection((host, int(port))) for _ in range(highest + 1 - taken + 8)]
    others += [connect(node) for _ in range(8)]
    until("it says so", lambda: "raise the limit on descriptors" in node.log_text())
    begun, used = time.monotonic(), cpu_s(node)
    time.sleep(3)
    share = (cpu_s(node) - used) / (time.monotonic() - begun)
    assert share < 0.5, f"it uses {share:.0%} of a core"
    for _ in range(3):  # beside the silent ones, too
        assert node.status()["role"] == "leader"
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, former)
    for other in others:
        other.close()
    assert node.status()["role"] == "leader"
    second = Node(workspace, "n2").start(join=node.address)
    until("the other is a voter", lambda: [m["role"] for m in node.status()["members"]] == ["voter"] * 2)
    sql(node, "a.db", "CREATE TABLE t(a)", busy_ms=5000)
    until("it has it", lambda: second.database("a.db"))


# --- SIGHUP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_sighup_reopens_the_log_file(workspace, relative):
    log = workspace.base / "n1" / "node.log"
    name = os.path.relpath(log) if relative else log
    node = Node(workspace, "n1", options=("--log", str(name))).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    rotated = log.with_suffix(".1")
    log.rename(rotated)
    node.process.send_signal(signal.SIGHUP)
    until("it is made again", lambda: log.exists() and "log reopened" in log.read_text())
    assert "log reopened" not in rotated.read_text()
    node.process.send_signal(signal.SIGHUP)
    until("it goes on in it", lambda: log.read_text().count("log reopened") == 2)
    # no name for it: it goes on where it was
    aside = log.with_suffix(".2")
    log.rename(aside)
    log.mkdir()
    node.process.send_signal(signal.SIGHUP)
    until("it says why", lambda: "cannot reopen the log" in aside.read_text())
    node.stop()
    assert "ended exit=0" in aside.read_text()


def test_sighup_of_a_node_that_logs_to_stderr_is_a_line(node):
    node.process.send_signal(signal.SIGHUP)
    until("there is a line", lambda: "SIGHUP" in node.log_text())
    sql(node, "a.db", "CREATE TABLE t(a)")
    node.stop()


# --- a mount that nobody sees ---------------------------------------------------------------------


def test_leader_whose_mount_is_taken_away_hands_over_while_files_are_open(workspace, db):
    cluster = Cluster(workspace, options=("--election-timeout", "3000")).start()
    former = cluster.leader()
    others = [node for node in cluster.nodes if node is not former]
    number = former.status()["node"]
    sql(former, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a)")

    def leader():
        leaders = [node for node in others if node.status()["role"] == "leader"]
        return leaders[0] if leaders else None

    with Connection(former, db) as application:
        application.execute("INSERT INTO t VALUES(1)")
        assert run(["umount", "-l", str(former.mnt)]).code == 0
        new = until("another node leads", leader)
        with pytest.raises(SqlError, match="SQLITE_BUSY"):
            application.execute("INSERT INTO t VALUES(2)")
        sql(new, db, "INSERT INTO t VALUES(3)", busy_ms=10000)
        until("it still follows", lambda: application.value("SELECT max(a) FROM t") == 3)
        # Should it be made the leader, it does not stay so.
        became = former.log_text().count("role=leader")
        assert run([PROGRAM, "transfer", str(new.mnt), "--to", number]).code == 0
        until("it led", lambda: former.log_text().count("role=leader") > became)
        new = until("another node leads again", leader)
        sql(new, db, "INSERT INTO t VALUES(4)", busy_ms=10000)
        assert former.running
    assert former.wait_ended() == 0


def test_leader_whose_mount_is_taken_away_leads_on_while_nobody_else_can(workspace, db):
    cluster = Cluster(workspace, count=2, options=("--election-timeout", "3000")).start()
    former = cluster.leader()
    other = next(node for node in cluster.nodes if node is not former)
    sql(former, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a)")
    with Connection(former, db) as application:
        application.execute("INSERT INTO t VALUES(1)")
        other.kill9()
        assert run(["umount", "-l", str(former.mnt)]).code == 0
        until("it says so", lambda: "no other takes it over" in former.log_text())
        other.start()
        until("the other leads", lambda: other.status()["role"] == "leader")
    assert former.wait_ended() == 0
