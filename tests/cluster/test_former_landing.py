"""Nodes of the former landing and of this tree in one cluster: each reads what the other writes, in its log,
on the wire and on the disk, in all roles; so a cluster is upgraded node by node, and back.

Where this tree can write newer forms it does not before all members read them, so the former landing never
meets one here.
"""

import json

import former
import pytest
from fetching import Fetches, fill, push_log, segments
from harness import PROGRAM, Cluster, Connection, Node, Writer, run, sql, until

# The first test may have to build the program.
pytestmark = pytest.mark.limit(400)

KINDS = {
    *("create", "unlink", "setattr", "pages", "commit", "discard", "group"),
    *("mkdir", "rmdir", "rename", "members", "barrier"),
}


@pytest.fixture
def programs():
    """{"former": ..., "present": ...}"""

    def build():
        try:
            return {"former": former.program(), "present": PROGRAM}
        except former.Unavailable as error:
            return pytest.skip(str(error))

    return build


def mixed(workspace, programs, *versions, options=()):
    """A cluster that is not started, of nodes of these versions."""
    cluster = Cluster(workspace, count=len(versions), options=options)
    for node, version in zip(cluster.nodes, versions):
        node.program = programs[version]
    return cluster


def other(version):
    return "present" if version == "former" else "former"


def change(node, program):
    """Stop a node, and start it as another version."""
    if node.running:
        node.stop()
    node.program = program
    node.start()


def unmounted(node):
    """The node ended, as nobody uses its mount."""
    result = run([node.program, "umount", str(node.mnt)])
    assert result.code == 0 or "are open" in result.err, result
    return result.code == 0 and node.wait_ended() == 0


def shell(*words):
    result = run(words)
    assert result.code == 0, f"{' '.join(map(str, words))}: {result}"


def write_all_kinds(node, db):
    """Everything that leads to an entry of a kind of its own. Returns the databases that are there then."""
    wal, journal, moved = f"wal_{db}", f"journal_{db}", f"moved_{db}"
    sql(node, wal, "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    sql(node, journal, "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    sql(node, journal, "INSERT INTO t VALUES(2);")
    # several parts, and those of one that was sent in part when it was taken back
    for rows, end in ((1000, "COMMIT"), (6000, "ROLLBACK")):
        script = f"""PRAGMA cache_size=20; BEGIN;
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{rows})
            INSERT INTO t SELECT randomblob(3900) FROM n; {end};"""
        sql(node, wal, script, timeout=60, busy_ms=5000)
    sql(node, wal, "INSERT INTO t VALUES(2);", busy_ms=5000)
    # two databases at once
    with Connection(node, journal, busy_ms=5000) as connection:
        connection.execute("ATTACH ? AS other", str(node.path(moved)))
        connection.execute("CREATE TABLE other.t(x)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO main.t VALUES(3)")
        connection.execute("INSERT INTO other.t VALUES(3)")
        connection.execute("COMMIT")
    # names and attributes
    kept, gone = f"kept_{db}.d", f"gone_{db}.d"
    shell("mkdir", node.path(kept), node.path(gone))
    shell("rmdir", node.path(gone))
    shell("mv", node.path(moved), node.path(kept) / moved)
    shell("chmod", "640", node.path(journal))
    sql(node, f"gone_{db}", "CREATE TABLE t(x);")
    shell("rm", node.path(f"gone_{db}"))
    # not by SQLite
    copy = node.dir / "copy.db"
    copy.unlink(missing_ok=True)
    shell("sqlite3", copy, "CREATE TABLE t(x); INSERT INTO t VALUES('copied');")
    shell("cp", copy, node.path(f"copied_{db}"))
    return [wal, journal, f"{kept}/{moved}", f"copied_{db}"]


def log_of(program, node):
    """What `dqlitefs log` says of a stopped node: {kind: [object, ...]}."""
    result = run([program, "log", "--data", str(node.data), "--json"], timeout=60)
    assert result.code == 0 and not result.err, result
    found = {}
    for line in result.out.splitlines():
        item = json.loads(line)
        found.setdefault(item["kind"], []).append(item)
    return found


def transfer(cluster, to):
    leader = cluster.wait_follows()
    result = run([leader.program, "transfer", str(leader.mnt), "--to", to.address])
    assert result.code == 0, result
    until(f"{to} leads", lambda: cluster.wait_follows() is to)


def no_complaints(nodes):
    """Nobody was told something that it did not understand, or had to get its databases anew."""
    for node in nodes:
        for line in node.log_text().splitlines():
            for word in ("speaks something else", "damage", "later version", "another version"):
                assert word not in line, f"{node}: {line}"


@pytest.mark.parametrize("writer", ["former", "present"])
def test_data_directory_is_read_by_the_other_version_and_back(workspace, programs, db, writer):
    programs = programs()
    reader = programs[other(writer)]
    node = Node(workspace, "n1")
    node.program = programs[writer]
    node.start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    names = write_all_kinds(node, db)
    contents = {name: sql(node, name, ".sha3sum --schema") for name in names}
    known = sorted(node.status()["databases"], key=lambda entry: entry["name"])
    # the client of one asks the daemon of the other
    status = run([reader, "status", str(node.mnt), "--json"])
    assert status.code == 0 and json.loads(status.out)["node"] == node.status()["node"], status

    # killed: the log is to be replayed
    node.kill9()
    run(["umount", "-l", str(node.mnt)])
    seen = log_of(reader, node)
    assert seen == log_of(programs[writer], node)
    missing = KINDS - {"members", "barrier"} - {entry["type"] for entry in seen["entry"]}
    assert not missing, f"the log has no {missing}"

    node.program = reader
    node.start()
    for turn in ("replayed", "from its snapshot"):
        until("the node leads", lambda: node.status()["role"] == "leader")
        assert sorted(node.status()["databases"], key=lambda entry: entry["name"]) == known, turn
        assert {name: sql(node, name, ".sha3sum --schema") for name in names} == contents, turn
        if turn == "replayed":
            change(node, programs[writer])
    sql(node, names[0], "INSERT INTO t VALUES('last');", busy_ms=5000)
    change(node, reader)
    assert sql(node, names[0], "SELECT count(*) FROM t WHERE x='last'; PRAGMA integrity_check;") == "1\nok"
    no_complaints([node])


@pytest.mark.parametrize("first", ["former", "present"])
def test_each_follows_the_other_and_takes_over_from_it(workspace, programs, db, first):
    programs = programs()
    cluster = mixed(workspace, programs, first, other(first), other(first)).start()
    leader, second, third = cluster.nodes
    names = write_all_kinds(leader, db)
    for name in names:
        cluster.check_sound(name)
    writer = Writer(cluster.nodes, f"rows_{db}", "--busy-ms", 50, "--pause-ms", 4)
    writer.wait_acks(10, 30)
    # handed over, there and back
    transfer(cluster, second)
    writer.wait_acks(10, 30)
    transfer(cluster, leader)
    writer.wait_acks(10, 30)
    # killed: of those that are left none is of its version
    leader.kill9()
    assert cluster.wait_leader(other_than=leader) in (second, third)
    writer.wait_acks(20, 30)
    leader.start()
    cluster.wait_caught_up()
    # and it follows, and takes over again
    transfer(cluster, leader)
    writer.wait_acks(10, 30)
    more = write_all_kinds(leader, f"again_{db}")
    writer.stop()
    cluster.check_rows(f"rows_{db}", [writer])
    for name in names + more:
        cluster.check_sound(name)
    for node in cluster.nodes:
        node.stop()
    logs = [log_of(PROGRAM, node) for node in cluster.nodes]
    states = [sorted((d["name"], d["version"], d["checksum"]) for d in log["database"]) for log in logs]
    assert states[0] == states[1] == states[2]
    no_complaints(cluster.nodes)


@pytest.mark.parametrize("first", ["former", "present"])
def test_each_gets_its_databases_from_the_other(workspace, programs, db, first):
    """The log no longer holds what a new node lacks: pages and manifest go from one version to the other."""
    programs = programs()
    cluster = mixed(workspace, programs, first, other(first), options=["--log-size", "16M"])
    old, new = cluster.nodes
    old.start()
    until("the node leads", lambda: old.status()["role"] == "leader")
    beginning = segments(old)
    names = write_all_kinds(old, db)
    fill(old, f"large_{db}", 2000)
    push_log(old, "pushed.db", beginning)
    seen = Fetches(new)
    new.start(join=old.address, timeout=60)
    cluster.wait_voters(2, 60)
    compared, fetched = seen.wait()
    assert len(seen.done()) == 1 and fetched == compared > 2000, seen.text()
    for name in [*names, f"large_{db}", "pushed.db"]:
        cluster.check_sound(name)
    transfer(cluster, new)
    sql(new, names[0], "INSERT INTO t VALUES('last');", busy_ms=5000)
    query = "SELECT count(*) FROM t WHERE x='last'"
    assert cluster.wait_same(names[0], query) == "1"
    no_complaints(cluster.nodes)


def levels_are_those_of_the_first(cluster):
    """An upgraded node says so; nothing of a newer form is in the log, so that all may go back."""
    for node in cluster.nodes:
        formats = node.status()["format"]
        leads = node is cluster.leader()
        assert formats["reads"] >= 1 and formats["needed"] == 1, formats
        assert leads == (formats["all_read"] is not None), formats
        assert f"format   reads level {formats['reads']}, the log needs 1" in node.text_status()
    leader = cluster.wait_leader()
    until(
        "the leader has heard of all members",
        lambda: leader.status()["format"]["all_read"] == leader.status()["format"]["reads"],
    )


def test_cluster_is_upgraded_node_by_node_under_a_writer_and_back(workspace, programs, db):
    programs = programs()
    cluster = mixed(workspace, programs, "former", "former", "former").start()
    writer = Writer(cluster.nodes, db, "--busy-ms", 50, "--pause-ms", 4)
    for version in ("present", "former"):
        # followers first, as one would; the application leaves the last one with the leadership
        for node in [*cluster.followers(), cluster.wait_leader()]:
            writer.wait_acks(10, 30)
            if node is cluster.leader():
                transfer(cluster, cluster.followers()[0])
                writer.wait_acks(10, 30)
            until(f"nobody has a file of {node} open", lambda: unmounted(node))
            change(node, programs[version])
            cluster.wait_caught_up()
            cluster.wait_follows()
        assert {node.program for node in cluster.nodes} == {programs[version]}
        if version == "present":
            levels_are_those_of_the_first(cluster)
        writer.wait_acks(10, 30)
        sql(cluster.wait_leader(), f"{version}_{db}", "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    writer.wait_acks(10, 30)
    writer.stop()
    cluster.check_rows(db, [writer])
    for version in ("present", "former"):
        cluster.check_sound(f"{version}_{db}")
    no_complaints(cluster.nodes)
