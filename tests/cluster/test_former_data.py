"""Data directories that former builds left (tests/fixtures) are opened by this one: nothing is missing, nothing
is new, and they are written on."""

import json
import os
import tarfile

import pytest
from harness import TOP, Cluster, Network, sql, until

ARCHIVES = sorted((TOP / "tests" / "fixtures").glob("data-*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.split(".")[0])
def former(request, workspace):
    """A cluster whose first node has the data of a former build, and what is expected of it."""
    network = Network(workspace, 2)
    cluster = Cluster(workspace, 2, hosts=network.hosts, prefixes=network.prefixes())
    node = cluster.nodes[0]
    with tarfile.open(request.param) as archive:
        archive.extractall(node.dir, numeric_owner=True)
    expected = json.loads((node.dir / "expected.json").read_text())
    assert node.address == expected["address"], "the log knows the node by it"
    return cluster, expected


def start(node):
    node.start(timeout=30)
    until("the node leads", lambda: node.status()["role"] == "leader")
    return node


def entries(node):
    found = {}
    for folder, folders, files in os.walk(node.mnt):
        for name in folders + files:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            if not name.endswith(("-wal", "-shm", "-journal")):
                found[os.path.relpath(path, node.mnt)] = [about.st_mode, about.st_uid, about.st_gid]
    return found


def check(node, expected):
    assert entries(node) == expected["entries"]
    status = {entry["name"]: entry for entry in node.status()["databases"]}
    assert set(status) == set(expected["databases"])
    for name, wanted in expected["databases"].items():
        assert status[name]["version"] == wanted["version"], name
        assert status[name]["checksum"] == wanted["checksum"], name
        assert sql(node, name, ".dump", busy_ms=5000) == wanted["dump"], name
        assert sql(node, name, "PRAGMA journal_mode; PRAGMA integrity_check;") == f"{wanted['journal']}\nok"


def test_former_data_is_all_there(former):
    cluster, expected = former
    node = start(cluster.nodes[0])
    check(node, expected)
    # what was read changed nothing, so another start finds the same
    node.stop()
    check(start(node), expected)


def test_former_data_is_written_on_and_goes_to_others(former):
    cluster, expected = former
    node, other = cluster.nodes
    start(node)
    names = sorted(expected["databases"])
    for name in names:
        more = "INSERT INTO log(what) VALUES('of this build'); UPDATE t SET r = -1 WHERE i = 1;"
        sql(node, name, more, busy_ms=5000)
    os.mkdir(node.path("new"))
    os.rename(node.path(names[0]), node.path("new/renamed.db"))
    names[0] = "new/renamed.db"
    sql(node, "new/new.db", "CREATE TABLE t(i); INSERT INTO t VALUES(7);")
    node.kill9()
    start(node)
    other.start(join=node.address)
    cluster.wait_voters()
    for name in [*names, "new/new.db"]:
        cluster.check_sound(name)
    for one in cluster.nodes:
        for name in names:
            query = "SELECT what FROM log ORDER BY n DESC LIMIT 1; SELECT r FROM t WHERE i = 1;"
            assert sql(one, name, query, busy_ms=5000) == "of this build\n-1.0", name
        assert sql(one, "new/new.db", "SELECT i FROM t") == "7"
