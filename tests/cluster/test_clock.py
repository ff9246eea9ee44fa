"""The wall clock is set back while the daemon waits: nothing waits for longer."""

import pytest
from fetching import PAGE, fill
from harness import Connection, Node, flip, sql, until


@pytest.fixture
def unsteady(workspace, stepped_clock):
    """A node alone whose wall clock goes back by an hour after every look at it."""
    options = ["--log-size", "16M"]
    prefix = ["env", f"LD_PRELOAD={stepped_clock}"]
    return Node(workspace, "n1", options=options, prefix=prefix).start()


def test_durable_points_and_scrub_go_on_when_the_wall_clock_is_set_back(unsteady):
    node = unsteady
    until("the node leads", lambda: node.status()["role"] == "leader")
    with Connection(node, "busy.db", busy_ms=5000) as connection:  # no last close wakes anybody
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body)")
        assert node.status()["log"]["snapshot_index"] == 0
        for _ in range(4):
            connection.execute("INSERT INTO t(body) VALUES(randomblob(2000000))")
        until("a durable point", lambda: node.status()["log"]["snapshot_index"])
    fill(node, "large.db", 500)
    node.stop()
    flip(node.data / "large.db", PAGE * 300 + 100)
    node.start()
    found = "a page of a database file is damaged"
    until("the scrub finds it", lambda: found in node.log_text())
    assert sql(node, "busy.db", "SELECT count(*) FROM t") == "4"
