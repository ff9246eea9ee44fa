"""A node that starts while most others are down: what it knows it answers, what it cannot know fails after a
while, and all goes on once there is a majority."""

import time

import pytest
from harness import PROGRAM, PYTHON, Cluster, SqlError, run, sql, until

TIMEOUT = 3
UNANSWERED = 110  # ETIMEDOUT

# Prints the errno of a system call on a path, 0 for none.
CALL = """
import os, sys
what, path = sys.argv[1:]
try:
    os.stat(path) if what == "stat" else os.close(os.open(path, os.O_RDWR))
    print(0)
except OSError as error:
    print(error.errno)
"""


def call(node, what, name):
    result = run([PYTHON, "-c", CALL, what, str(node.path(name))])
    assert result.code == 0, result
    return int(result.out)


@pytest.fixture
def alone(workspace):
    """One of three nodes, restarted while the others are down."""
    cluster = Cluster(workspace, options=["--commit-timeout", str(TIMEOUT)]).start()
    leader = cluster.leader()
    assert run(["mkdir", str(leader.path("sub"))]).code == 0
    sql(leader, "a.db", "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    sql(leader, "sub/b.db", "CREATE TABLE t(a); INSERT INTO t VALUES(2);")
    for name in ("a.db", "sub/b.db"):
        cluster.check_sound(name)
    node = cluster.followers()[0]
    node.stop()
    for other in cluster.running:
        other.kill9()
    node.start()
    node.cluster = cluster
    return node


def test_known_names_without_a_majority_are_answered_at_once(alone):
    listing = run(["ls", "-la", str(alone.mnt), str(alone.path("sub"))])
    assert listing.code == 0 and "a.db" in listing.out and "b.db" in listing.out, listing
    assert run(["df", str(alone.mnt)]).code == 0
    assert run(["test", "-e", str(alone.path("a.db"))]).code == 0
    assert run(["stat", "-c", "%F", str(alone.path("sub/b.db"))]).out == "regular file\n"
    assert call(alone, "stat", "a.db-journal") == 2
    assert not run(["find", str(alone.mnt)]).err
    # nothing of it took a look at the clock
    assert alone.log_text().count("has not caught up") == 0


def test_unknown_names_without_a_majority_fail_and_are_not_said_to_be_missing(alone):
    assert call(alone, "stat", "new.db") == UNANSWERED
    assert call(alone, "stat", "sub/new.db") == UNANSWERED
    with pytest.raises(SqlError, match="unable to open"):
        sql(alone, "new.db", "CREATE TABLE t(a);")
    assert "new.db" not in run(["ls", str(alone.mnt)]).out
    assert "recover" in alone.log_text() and "name=new.db" in alone.log_text()


def test_opens_without_a_majority_fail_after_the_commit_timeout(alone):
    started = time.monotonic()
    assert call(alone, "open", "a.db") == UNANSWERED
    waited = time.monotonic() - started
    assert TIMEOUT * 0.6 < waited < TIMEOUT * 3, f"waited {waited:.1f} s"
    # SQLite tries to open it again, for reading: that is not waited for once more
    started = time.monotonic()
    with pytest.raises(SqlError, match="unable to open"):
        sql(alone, "a.db", "SELECT a FROM t")
    waited = time.monotonic() - started
    assert TIMEOUT * 0.6 < waited < TIMEOUT * 1.8, f"waited {waited:.1f} s"
    status = alone.status()
    assert status["state"] == "catching up" and "majority" in status["waits"]
    assert "majority" in run([PROGRAM, "status", str(alone.mnt)]).out
    assert "name=a.db" in alone.log_text()


def test_node_without_a_majority_serves_once_there_is_one(alone):
    assert call(alone, "open", "a.db") == UNANSWERED
    cluster = alone.cluster
    cluster.restart_dead()
    cluster.wait_leader()
    until("the node serves", lambda: alone.status()["waits"] is None)
    assert sql(alone, "a.db", "SELECT a FROM t", busy_ms=5000) == "1"
    assert sql(alone, "sub/b.db", "SELECT a FROM t", busy_ms=5000) == "2"
    assert call(alone, "stat", "new.db") == 2
    cluster.check_sound("a.db")


def test_name_removed_by_the_others_meanwhile_is_gone_once_the_node_knows(workspace):
    """It is listed as of before until then; an open of it waits, and finds what the others have made of it."""
    cluster = Cluster(workspace, options=["--commit-timeout", "20"]).start()
    leader = cluster.leader()
    for name in ("gone.db", "moved.db", "new.db"):
        sql(leader, name, f"CREATE TABLE t(a); INSERT INTO t VALUES('{name}');")
        cluster.check_sound(name)
    node = cluster.followers()[0]
    node.stop()
    others = cluster.running
    leader = cluster.wait_leader()
    assert run(["rm", str(leader.path("gone.db"))]).code == 0
    assert run(["rm", str(leader.path("new.db"))]).code == 0
    sql(leader, "new.db", "CREATE TABLE t(a); INSERT INTO t VALUES('another');")
    assert run(["mv", str(leader.path("moved.db")), str(leader.path("moved2.db"))]).code == 0
    for other in others:
        other.kill9()
    node.start()
    assert run(["ls", str(node.mnt)]).out.split() == ["gone.db", "moved.db", "new.db"]
    for other in others:
        other.launch()
    with pytest.raises(SqlError, match="unable to open"):
        sql(node, "gone.db", "SELECT a FROM t", options=["-readonly"], timeout=60)
    with pytest.raises(SqlError, match="unable to open"):
        sql(node, "moved.db", "SELECT a FROM t", options=["-readonly"], timeout=60)
    assert sql(node, "new.db", "SELECT a FROM t", timeout=60, busy_ms=5000) == "another"
    assert sql(node, "moved2.db", "SELECT a FROM t", busy_ms=5000) == "moved.db"
    assert run(["ls", str(node.mnt)]).out.split() == ["moved2.db", "new.db"]


def test_node_that_knows_no_names_fails_to_list_them(workspace):
    """Nothing is not an answer that it may give."""
    cluster = Cluster(workspace, options=["--commit-timeout", str(TIMEOUT)]).start()
    sql(cluster.leader(), "a.db", "CREATE TABLE t(a);")
    cluster.check_sound("a.db")
    node = cluster.followers()[0]
    for one in cluster.nodes:  # before there was a durable point
        one.kill9()
    node.start()
    listing = run(["ls", str(node.mnt)])
    assert listing.code != 0 and "Connection timed out" in listing.err, listing
    assert call(node, "stat", "a.db") == UNANSWERED
    assert "name=a.db" in node.log_text()
    cluster.restart_dead()
    until("it lists them", lambda: run(["ls", str(node.mnt)]).out.split() == ["a.db"])
