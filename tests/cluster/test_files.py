"""Directories and names: mkdir, rmdir, mv, ownership and mode, as every program does them, on every
node, in order with the transactions, and after any crash."""

import json
import os
import random
import re
import shutil
import subprocess
import time

import pytest
from fetching import Fetches, fill, outgrow, push_log, segments
from harness import (
    PROGRAM,
    PYTHON,
    Cluster,
    Connection,
    LossyDisk,
    Node,
    SqlError,
    run,
    sql,
    until,
)


def ok(*command, node=None):
    result = run(command, cwd=str(node.mnt) if node else None)
    assert result.code == 0, result
    return result.out


def refused(node, word, *command):
    result = run(command, cwd=str(node.mnt))
    assert result.code != 0 and word in result.err, result
    return result


def listing(node):
    """{path: type, mode, owner, group, links of directories} of everything in the mount; side files
    are local, and left out."""
    out = ok("find", ".", "-printf", r"%P|%y|%m|%U|%G|%n\n", node=node)
    found = {}
    for line in out.splitlines():
        path, kind, mode, uid, gid, links = line.split("|")
        if path and not re.search(r"-(wal|shm|journal)$", path):
            found[path] = (kind, mode, uid, gid, links if kind == "d" else "")
    return found


def wait_listed(nodes, wanted=None):
    """Until all nodes show the same; returns it."""

    def check():
        seen = [listing(node) for node in nodes]
        assert all(one == seen[0] for one in seen), f"listings differ: {seen}"
        assert wanted is None or sorted(seen[0]) == sorted(wanted), f"it is {sorted(seen[0])}"
        return (seen[0],)

    return until("the listings are equal", check, 20, 0.1)[0]


def make(node, db, value, mode="WAL"):
    sql(node, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(x); INSERT INTO t VALUES({value});", busy_ms=5000)


def values(node, db):
    return sql(node, db, "SELECT group_concat(x) FROM (SELECT x FROM t ORDER BY x)", busy_ms=5000)


def check_values(nodes, wanted):
    """{database: values} on all nodes, each sound."""
    for db, text in wanted.items():
        for node in nodes:
            until(f"{db} on {node}", lambda: values(node, db) == text, 10, 0.1)
            assert sql(node, db, "PRAGMA integrity_check", busy_ms=5000) == "ok"


def backing(node):
    """Databases in the data directory, by path."""
    return sorted(
        str(path.relative_to(node.data))
        for path in node.data.rglob("*.db")
        if ".dqlitefs" not in path.parts
    )


def restart_all(nodes):
    for node in nodes:
        node.kill9()
    for node in nodes:
        node.launch()
    for node in nodes:
        node.wait_mounted(40)


def durable_point(nodes):
    """Leaving takes one."""
    for node in nodes:
        node.stop()
    for node in nodes:
        node.launch()
    for node in nodes:
        node.wait_mounted(40)


# ---- directories ------------------------------------------------------------------------------------


def test_directories_are_the_same_on_all_nodes(cluster):
    leader = cluster.wait_leader()
    ok("mkdir", "-p", "a/b/c/d", "e", node=leader)
    ok("mkdir", "-m", "2750", "a/f", node=leader)
    ok("chmod", "711", "a/b", node=leader)
    ok("chown", "12:34", "a/b/c", node=leader)
    ok("touch", "-d", "2001-02-03T04:05:06Z", "e", node=leader)
    ok("rmdir", "a/b/c/d", node=leader)
    seen = wait_listed(cluster.nodes, ["a", "a/b", "a/b/c", "a/f", "e"])
    assert seen["a"] == ("d", "755", "0", "0", "4")
    assert seen["a/b"] == ("d", "711", "0", "0", "3")
    assert seen["a/b/c"] == ("d", "755", "12", "34", "2")
    assert seen["a/f"][1] == "2750"
    for node in cluster.nodes:
        assert ok("stat", "-c", "%h", ".", node=node).strip() == "4"
        assert int(ok("stat", "-c", "%Y", "e", node=node)) == 981173106
        assert sorted(ok("ls", "-A", "a", node=node).split()) == ["b", "f"]


def test_directory_entries_have_their_own_inodes_and_types(node):
    ok("mkdir", "-p", "a/b", node=node)
    make(node, "a/x.db", 1)
    script = (
        "import os, sys; os.chdir(sys.argv[1])\n"
        "for d in ('.', 'a', 'a/b'):\n"
        "    for e in os.scandir(d):\n"
        "        s = os.stat(e.path)\n"
        "        assert e.inode() == s.st_ino, (e.path, e.inode(), s.st_ino)\n"
        "        assert e.is_dir(follow_symlinks=False) == os.path.isdir(e.path), e.path\n"
        "assert os.stat('a/b/..').st_ino == os.stat('a').st_ino\n"
        "assert os.stat('a/..').st_ino == os.stat('.').st_ino\n"
        "fd = os.open('a/b', os.O_RDONLY)\n"
        "os.rmdir('a/b')\n"
        "os.mkdir('a/b'); assert os.stat('a/b').st_nlink == 2\n"
        "try: os.open('x.db', os.O_CREAT | os.O_RDWR, dir_fd=fd)\n"
        "except OSError: pass\n"
        "else: raise AssertionError('made in a removed directory')\n"
    )
    ok(PYTHON, "-c", script, str(node.mnt))


def test_error_reaches_the_command_that_caused_it(cluster):
    leader = cluster.wait_leader()
    ok("mkdir", "-p", "a/b", node=leader)
    make(leader, "a/x.db", 1)
    refused(leader, "not empty", "rmdir", "a")
    refused(leader, "File exists", "mkdir", "a")
    refused(leader, "No such file", "mkdir", "x/y")
    refused(leader, "No such file", "rmdir", "x")
    refused(leader, "Not a directory", "mkdir", "a/x.db/y")
    refused(leader, "Not a directory", "rmdir", "a/x.db")
    refused(leader, "Is a directory", "rm", "a/b")
    refused(leader, "No such file", "mv", "a/y.db", "a/z.db")
    refused(leader, "not permitted", "mv", "a/x.db", "a/x.txt")
    refused(leader, "not permitted", "mkdir", "a/x.db-wal")
    refused(leader, "not permitted", "mkdir", "d.db")
    refused(leader, "not permitted", "ln", "a/x.db", "a/y.db")
    refused(leader, "not permitted", "ln", "-s", "x.db", "a/y.db")
    refused(leader, "not permitted", "mkfifo", "a/y.db")
    refused(leader, "not permitted", "touch", "a/notes.txt")
    refused(leader, "too long", "mkdir", "n" * 256)
    assert "rsync's .NAME.XXXXXX" in leader.log_text()  # the rule
    follower = cluster.followers()[0]
    until("the follower has it", lambda: "a/x.db" in listing(follower))
    refused(follower, "Read-only", "mkdir", "c")
    refused(follower, "Read-only", "rmdir", "a/b")
    refused(follower, "Read-only", "mv", "a/x.db", "a/y.db")
    refused(follower, "Read-only", "chmod", "700", "a")
    wait_listed(cluster.nodes, ["a", "a/b", "a/x.db"])


def test_names_that_are_too_long_are_refused_as_such(node):
    """EPERM would say that no shorter name helps."""
    deep = "/".join(["d" * 200] * 4)
    ok("mkdir", "-p", deep, node=node)
    ok("touch", f"{deep}/{'n' * 193}.db", "x.db", node=node)
    for name in (f"{deep}/{'n' * 194}.db", f"{deep}/{'n' * 208}.db", f"{'n' * 245}.db"):
        refused(node, "File name too long", "touch", name)
        refused(node, "File name too long", "mv", "x.db", name)
    refused(node, "File name too long", "mkdir", f"{deep}/{'n' * 197}")
    ok("mkdir", f"{deep}/{'n' * 196}", node=node)
    refused(node, "not permitted", "touch", f"{'n' * 250}")


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_databases_in_subdirectories_are_replicated(cluster, mode):
    leader = cluster.wait_leader()
    ok("mkdir", "-p", "a/b/c", node=leader)
    make(leader, "a/b/c/x.db", 1, mode)
    make(leader, "a/x.db", 10, mode)
    with Connection(leader, "a/b/c/x.db", busy_ms=5000) as writer:
        writer.execute("INSERT INTO t VALUES(2)")
        follower = cluster.followers()[0]
        with Connection(follower, "a/b/c/x.db", busy_ms=5000) as reader:
            until("the row", lambda: reader.value("SELECT count(*) FROM t") == 2)
            writer.execute("INSERT INTO t VALUES(3)")
            until("the next row", lambda: reader.value("SELECT count(*) FROM t") == 3)
    check_values(cluster.nodes, {"a/b/c/x.db": "1,2,3", "a/x.db": "10"})
    assert sorted(entry["name"] for entry in leader.status()["databases"]) == [
        "a/b/c/x.db",
        "a/x.db",
    ]
    for node in cluster.nodes:
        assert backing(node) == ["a/b/c/x.db", "a/x.db"]
    ok("rm", "-r", "a", node=leader)
    wait_listed(cluster.nodes, [])
    for node in cluster.nodes:
        until("nothing is left behind", lambda: not (node.data / "a").exists())


def test_transaction_over_databases_of_two_directories_is_one(cluster):
    leader = cluster.wait_leader()
    ok("mkdir", "a", "b", node=leader)
    make(leader, "a/x.db", 1, "DELETE")
    make(leader, "b/y.db", 2, "DELETE")
    ok(
        "sqlite3",
        "a/x.db",
        "ATTACH 'b/y.db' AS b; BEGIN; INSERT INTO main.t VALUES(3);"
        " INSERT INTO b.t VALUES(4); COMMIT",
        node=leader,
    )
    check_values(cluster.nodes, {"a/x.db": "1,3", "b/y.db": "2,4"})
    assert sorted(ok("ls", "-A", "a", "b", node=leader).split()) == ["a:", "b:", "x.db", "y.db"]
    ok("mv", "b/y.db", "a/y.db", node=leader)
    ok("rmdir", "b", node=leader)
    restart_all(cluster.nodes)
    check_values(cluster.nodes, {"a/x.db": "1,3", "a/y.db": "2,4"})


def test_directory_made_again_is_found_on_all_nodes(cluster):
    """The kernel keeps the names of directories, and what they meant."""
    leader = cluster.wait_leader()
    for value in range(3):
        ok("mkdir", "-p", "a/b", node=leader)
        make(leader, "a/b/x.db", value)
        wait_listed(cluster.nodes, ["a", "a/b", "a/b/x.db"])
        check_values(cluster.nodes, {"a/b/x.db": str(value)})
        ok("rm", "-r", "a", node=leader)
    wait_listed(cluster.nodes, [])


def test_group_is_inherited_where_the_directory_says_so(node):
    ok("mkdir", "-m", "2775", "a", node=node)
    ok("chown", "0:77", "a", node=node)
    ok("chmod", "2775", "a", node=node)
    ok("mkdir", "a/b", node=node)
    make(node, "a/b/x.db", 1)
    seen = listing(node)
    assert seen["a/b"][1] == "2755" and seen["a/b"][3] == "77"
    assert seen["a/b/x.db"][3] == "77"


# ---- renaming -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_rename_moves_and_replaces_on_all_nodes(cluster, mode):
    leader = cluster.wait_leader()
    ok("mkdir", "-p", "a/b", node=leader)
    make(leader, "x.db", 1, mode)
    ok("mv", "x.db", "a/b/y.db", node=leader)
    sql(leader, "a/b/y.db", "INSERT INTO t VALUES(2)")
    check_values(cluster.nodes, {"a/b/y.db": "1,2"})
    make(leader, "x.db", 7, mode)
    make(leader, "z.db", 8, mode)
    for node in cluster.nodes:
        assert sql(node, "x.db", ".timeout 5000\nSELECT * FROM t") == "7"  # the kernel keeps it now
    ok("mv", "-n", "z.db", "x.db", node=leader)
    assert "z.db" in listing(leader)
    ok("mv", "z.db", "x.db", node=leader)
    ok("mv", "a/b/y.db", "a/y.db", node=leader)
    sql(leader, "a/y.db", "INSERT INTO t VALUES(3)")
    wait_listed(cluster.nodes, ["a", "a/b", "a/y.db", "x.db"])
    check_values(cluster.nodes, {"a/y.db": "1,2,3", "x.db": "8"})
    for node in cluster.nodes:
        assert backing(node) == ["a/y.db", "x.db"]
        assert not list((node.data / ".dqlitefs").glob("moved-*"))
    cluster.wait_equal()


def test_rsyncs_name_of_an_incomplete_copy_is_a_database(cluster):
    leader = cluster.wait_leader()
    ok("mkdir", "a", node=leader)
    make(leader, "a/app.db", 1)
    make(leader, "a/.app.db.x1Y2z3", 2)
    ok("mv", "a/.app.db.x1Y2z3", "a/app.db", node=leader)
    wait_listed(cluster.nodes, ["a", "a/app.db"])
    check_values(cluster.nodes, {"a/app.db": "2"})


def test_directory_is_moved_with_what_is_empty_in_it(node):
    """The kernel is told EXDEV; mv copies and removes then."""
    ok("mkdir", "-p", "a/b", node=node)
    ok("mv", "a", "c", node=node)
    assert sorted(listing(node)) == ["c", "c/b"]


def test_rename_of_an_open_database_is_refused(node):
    make(node, "x.db", 1)
    with Connection(node, "x.db", busy_ms=1000) as connection:
        assert connection.value("SELECT x FROM t") == 1
        refused(node, "busy", "mv", "x.db", "y.db")
        assert "has the database open" in node.log_text()
        connection.execute("INSERT INTO t VALUES(2)")
    ok("mv", "x.db", "y.db", node=node)
    assert values(node, "y.db") == "1,2"


def test_what_a_dead_process_left_in_the_wal_is_renamed_with_it(node):
    make(node, "x.db", 1)
    with Connection(node, "x.db") as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("INSERT INTO t VALUES(2)")
        connection.kill9()
    ok("mv", "x.db", "y.db", node=node)
    assert not (node.data / "x.db-wal").exists()
    assert values(node, "y.db") == "1,2"
    make(node, "x.db", 5)
    assert values(node, "x.db") == "5"


def test_journal_of_a_dead_process_is_not_renamed(node):
    make(node, "x.db", 1, "DELETE")
    with Connection(node, "x.db") as connection:
        connection.execute("PRAGMA cache_size=2")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES(zeroblob(100000))")
        connection.kill9()
    ok("mv", "x.db", "y.db", node=node)
    assert sorted(os.listdir(node.data))[1:] == ["y.db"]
    assert values(node, "y.db") == "1"
    assert sql(node, "y.db", "PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_reader_of_a_renamed_database_loses_it(cluster, mode):
    leader = cluster.wait_leader()
    make(leader, "x.db", 1, mode)
    make(leader, "y.db", 5, mode)
    follower = cluster.followers()[0]
    cluster.check_sound("x.db")
    with Connection(follower, "x.db") as reader, Connection(follower, "y.db") as other:
        # in a read transaction, with frames in the -wal that it keeps there
        reader.execute("BEGIN")
        assert reader.value("SELECT count(*) FROM t") == 1
        if mode == "WAL":
            sql(leader, "x.db", "INSERT INTO t VALUES(2)")
        other.execute("BEGIN")
        assert other.value("SELECT x FROM t") == 5
        ok("mv", "x.db", "y.db", node=leader)
        wait_listed(cluster.nodes, ["y.db"])
        reader.execute("ROLLBACK")
        with pytest.raises(SqlError):
            reader.execute("SELECT count(*) FROM t")
        # what it replaced is still there for who has it open, as it is on any file system
        assert other.value("SELECT x FROM t") == 5
        sql(leader, "y.db", "INSERT INTO t VALUES(3)", busy_ms=5000)
        wanted = "1,2,3" if mode == "WAL" else "1,3"
        check_values(cluster.nodes, {"y.db": wanted})
    cluster.check_sound("y.db")


def test_rename_goes_on_after_a_failover(cluster):
    leader = cluster.wait_leader()
    ok("mkdir", "a", node=leader)
    make(leader, "a/x.db", 1)
    ok("mv", "a/x.db", "y.db", node=leader)
    leader.kill9()
    new = cluster.wait_leader(other_than=leader)
    assert until("the name", lambda: sorted(listing(new)) == ["a", "y.db"])
    ok("rmdir", "a", node=new)
    ok("mkdir", "b", node=new)
    ok("mv", "y.db", "b/y.db", node=new)
    sql(new, "b/y.db", "INSERT INTO t VALUES(2)", busy_ms=5000)
    leader.start()
    wait_listed(cluster.nodes, ["b", "b/y.db"])
    check_values(cluster.nodes, {"b/y.db": "1,2"})


@pytest.mark.parametrize("point", ["no_point", "point"])
def test_log_tells_of_directories_and_names(workspace, point):
    node = Node(workspace, "n1").start()
    until("it leads", lambda: node.status()["role"] == "leader")
    ok("mkdir", "a", "b", node=node)
    make(node, "x.db", 1)
    make(node, "y.db", 2)
    ok("mv", "x.db", "a/x.db", node=node)
    ok("mv", "y.db", "a/x.db", node=node)
    ok("chmod", "700", "a", node=node)
    ok("rmdir", "b", node=node)
    node.stop() if point == "point" else node.kill9()
    out = ok(PROGRAM, "log", "--data", str(node.data), "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    entries = [line for line in lines if line["kind"] == "entry" and "effect" in line]
    wanted_effect = None if point == "point" else True
    found = {}
    for entry in entries:
        if entry["type"] in ("mkdir", "rmdir", "rename"):
            assert entry["effect"] is wanted_effect
            found.setdefault(entry["type"], []).append(entry)
    assert [entry["directory"] for entry in found["mkdir"]] == ["a", "b"]
    assert [entry["to"] for entry in found["rename"]] == ["a/x.db", "a/x.db"]
    assert [entry["id"] for entry in found["rmdir"]] == [found["mkdir"][1]["id"]]
    if point == "no_point":
        assert found["rename"][1]["replaced"] == found["rename"][0]["id"]
        assert found["rename"][0]["database"] == "x.db"
    assert [line["name"] for line in lines if line["kind"] == "directory"] == ["a"]
    assert [line["name"] for line in lines if line["kind"] == "database"] == ["a/x.db"]
    text = ok(PROGRAM, "log", "--data", str(node.data))
    assert "mkdir a, mode 755" in text and " to a/x.db" in text
    if point == "point":
        (snapshot,) = [line for line in lines if line["kind"] == "snapshot"]
        assert [one["name"] for one in snapshot["directories"]] == ["a"]


# ---- what copies ---------------------------------------------------------------------------------------


@pytest.fixture
def source(workspace):
    """A tree of databases on the local disk."""
    base = workspace.base / "source"
    (base / "p" / "q").mkdir(parents=True)
    for name, value in (("p/1.db", 1), ("p/2.sqlite", 2), ("p/q/3.db", 3)):
        script = f"CREATE TABLE t(x); INSERT INTO t VALUES({value})"
        assert run(["sqlite3", str(base / name), script]).code == 0
    os.chmod(base / "p/1.db", 0o640)
    os.chown(base / "p/q", 5, 6)
    os.chmod(base / "p/q", 0o711)
    for path in ("p/1.db", "p/q", "p"):
        os.utime(base / path, (1e9, 1e9))
    return base


def times(node, *paths):
    return [int(word) for word in ok("stat", "-c", "%Y", *paths, node=node).split()]


def test_tree_is_copied_with_mode_owner_and_times(cluster, source):
    leader = cluster.wait_leader()
    ok("cp", "-a", str(source / "p"), ".", node=leader)
    seen = wait_listed(cluster.nodes, ["p", "p/1.db", "p/2.sqlite", "p/q", "p/q/3.db"])
    assert seen["p/1.db"][1] == "640"
    assert seen["p/q"] == ("d", "711", "5", "6", "2")
    check_values(cluster.nodes, {"p/1.db": "1", "p/2.sqlite": "2", "p/q/3.db": "3"})
    assert times(leader, "p", "p/1.db", "p/q") == [1000000000] * 3
    ok("cp", "-r", "p/q", "p/r", node=leader)
    ok("mv", "p", "s", node=leader)
    check_values(cluster.nodes, {"s/1.db": "1", "s/q/3.db": "3", "s/r/3.db": "3"})


def test_install_and_mv_from_elsewhere(cluster, source):
    leader = cluster.wait_leader()
    ok("install", "-D", "-m", "600", "-o", "7", "-g", "8", str(source / "p/1.db"), "a/b/i.db", node=leader)
    ok("mv", str(source / "p/q/3.db"), "a/m.db", node=leader)
    seen = wait_listed(cluster.nodes, ["a", "a/b", "a/b/i.db", "a/m.db"])
    assert seen["a/b/i.db"] == ("f", "600", "7", "8", "")
    check_values(cluster.nodes, {"a/b/i.db": "1", "a/m.db": "3"})


@pytest.mark.skipif(not shutil.which("rsync"), reason="needs rsync (apt-get install rsync)")
def test_rsync_copies_and_replaces(cluster, source):
    leader = cluster.wait_leader()
    follower = cluster.followers()[0]
    ok("rsync", "-a", f"{source}/p/", "r/", node=leader)
    wait_listed(cluster.nodes, ["r", "r/1.db", "r/2.sqlite", "r/q", "r/q/3.db"])
    check_values(cluster.nodes, {"r/1.db": "1", "r/2.sqlite": "2", "r/q/3.db": "3"})
    with Connection(follower, "r/1.db") as reader:
        assert reader.value("SELECT x FROM t") == 1
        assert run(["sqlite3", str(source / "p/1.db"), "INSERT INTO t VALUES(10)"]).code == 0
        (source / "p/2.sqlite").unlink()
        ok("rsync", "-a", "--delete", f"{source}/p/", "r/", node=leader)
        assert ok("rsync", "-ai", f"{source}/p/", "r/", node=leader) == ""
        seen = wait_listed(cluster.nodes, ["r", "r/1.db", "r/q", "r/q/3.db"])
        assert seen["r/1.db"][1] == "640" and seen["r/q"][1:4] == ("711", "5", "6")
        assert reader.value("SELECT x FROM t") == 1  # the former one, as on any file system
    check_values(cluster.nodes, {"r/1.db": "1,10", "r/q/3.db": "3"})


# ---- crashes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["no_point", "point"])
def test_names_outlive_a_crash_of_all_nodes(cluster, point):
    nodes = cluster.nodes
    leader = cluster.wait_leader()
    ok("mkdir", "-p", "a/b", "gone", node=leader)
    make(leader, "x.db", 1)
    make(leader, "a/b/w.db", 100)
    make(leader, "old.db", 50, "DELETE")
    if point == "point":
        durable_point(nodes)
        leader = cluster.wait_follows()
    # x.db goes from hand to hand, and others take the names that it had
    ok("mv", "x.db", "a/x.db", node=leader)
    make(leader, "x.db", 2)
    sql(leader, "a/x.db", "INSERT INTO t VALUES(11)", busy_ms=5000)
    ok("mv", "a/x.db", "old.db", node=leader)
    sql(leader, "old.db", "INSERT INTO t VALUES(12)", busy_ms=5000)
    ok("mv", "x.db", "a/x.db", node=leader)
    make(leader, "x.db", 3, "DELETE")
    ok("rmdir", "gone", node=leader)
    ok("mkdir", "-m", "700", "a/c", node=leader)
    ok("chmod", "750", "a/b", node=leader)
    ok("mv", "a/b/w.db", "a/c/w.db", node=leader)
    ok("rmdir", "a/b", node=leader)
    ok("chown", "7:8", "a/c", node=leader)
    wanted = {"old.db": "1,11,12", "a/x.db": "2", "x.db": "3", "a/c/w.db": "100"}
    before = wait_listed(nodes, ["a", "a/c", *wanted])
    check_values(nodes, wanted)
    restart_all(nodes)
    assert wait_listed(nodes) == before
    check_values(nodes, wanted)
    restart_all(nodes)
    check_values(nodes, wanted)
    cluster.wait_equal()
    for node in nodes:
        assert backing(node) == sorted(wanted)
    ok("mv", "x.db", "old.db", node=cluster.wait_follows())
    check_values(nodes, {"old.db": "3"})


def test_refused_rmdir_stays_refused_after_a_crash(cluster):
    """A manifest of later names is there, by which the directory is empty."""
    make(cluster.wait_follows(), "first.db", 1)
    cluster.wait_equal()
    durable_point(cluster.nodes)
    leader = cluster.wait_follows(30)
    ok("mkdir", "d", node=leader)
    make(leader, "d/a.db", 1)
    refused(leader, "not empty", "rmdir", "d")
    ok("mv", "d/a.db", "b.db", node=leader)  # which writes it
    cluster.wait_equal()
    restart_all(cluster.nodes)
    wait_listed(cluster.nodes, ["b.db", "d", "first.db"])


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_database_renamed_and_then_removed_is_gone_after_a_crash(cluster, mode):
    """Applied again, the entries in between find nothing to move."""
    leader = cluster.wait_follows()
    make(leader, "a.db", 1, mode)
    make(leader, "old.db", 2, mode)
    ok("mkdir", "d", node=leader)
    ok("mv", "a.db", "d/b.db", node=leader)
    ok("mv", "-f", "d/b.db", "old.db", node=leader)
    make(leader, "kept.db", 3, mode)
    ok("rm", "old.db", node=leader)
    ok("rmdir", "d", node=leader)
    cluster.wait_equal()
    restart_all(cluster.nodes)
    wait_listed(cluster.nodes, ["kept.db"])
    check_values(cluster.nodes, {"kept.db": "3"})


def lead(node, timeout=30):
    node.start(timeout=timeout)
    until("it leads", lambda: node.status()["role"] == "leader")
    return node


def test_crashes_amid_renames_leave_one_of_the_two_names(workspace):
    """A node alone is killed at any time while a script renames back and forth and writes."""
    node = lead(Node(workspace, "n1"))
    ok("mkdir", "a", node=node)
    for i in range(3):
        make(node, f"{i}.db", i)
    script = (
        "cd '%s' && i=%d; while :; do i=$((i+1)); for d in 0 1 2; do"
        " mv $d.db a/$d.db && sqlite3 a/$d.db"
        ' "PRAGMA busy_timeout=5000; INSERT INTO t VALUES(1000+$i)" >&2'
        " && mv a/$d.db $d.db || exit 0; done;"
        " sqlite3 n.db 'CREATE TABLE t(x)' && mv n.db a/n.db || exit 0; echo $i; done"
    )
    done = 0
    for turn in range(6):
        if turn % 3 == 0:  # the next crashes are behind a manifest
            node.stop()
            lead(node)
        with open(workspace.base / "script.out", "w+") as out:
            child = subprocess.Popen(
                ["sh", "-c", script % (node.mnt, done)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
            )
            workspace.children.append(child)
            time.sleep(random.uniform(0.4, 1.5))
            node.kill9()
            child.wait(20)
            out.seek(0)
            told = [int(word) for word in out.read().split()]
        lead(node)
        done = max([done, *told])
        files = [path for path, about in listing(node).items() if about[0] == "f"]
        for i in range(3):
            (path,) = [path for path in files if os.path.basename(path) == f"{i}.db"]
            found = values(node, path).split(",")
            assert found[0] == str(i)
            lacking = [n for n in range(1, done + 1) if str(1000 + n) not in found]
            assert not lacking, f"{path} lacks {lacking}: {found}"
            assert sql(node, path, "PRAGMA integrity_check") == "ok"
            if path.startswith("a/"):
                ok("mv", path, f"{i}.db", node=node)
            # what an unfinished turn has written, or not
            done_now = f"INSERT INTO t SELECT 1000+{done + 1} WHERE 1000+{done + 1} NOT IN t"
            sql(node, f"{i}.db", done_now)
        done += 1
        ok("rm", "-f", "n.db", "a/n.db", node=node)
    assert done > 6


@pytest.mark.limit(240)
def test_power_cut_in_every_operation_of_renames(workspace, soak):
    """On a disk that loses what was not synced (tests/lossy), recorded once, cut anywhere."""
    disk = LossyDisk(workspace, "disk")
    node = Node(workspace, "n1", options=("--log-size", "16M"), disk=disk)
    disk.command("record")
    lead(node)
    ok("mkdir", "a", node=node)
    for name, value in (("x.db", 1), ("y.db", 2), ("n.db", 3)):
        make(node, name, value)
    node.stop()
    lead(node)
    state = {"x.db": "1", "y.db": "2", "n.db": "3"}
    steps = [(0, 0, dict(state))]  # began, acknowledged, left

    def move(source, target):
        state[target] = state.pop(source)
        return ["mv", source, target]

    def insert(db, value):
        state[db] += f",{value}"
        return ["sqlite3", db, f"INSERT INTO t VALUES({value})"]

    def remove(db):
        del state[db]
        return ["rm", db]

    first = disk.ops()
    for step in (
        lambda: move("x.db", "a/x.db"),
        lambda: insert("a/x.db", 11),
        lambda: move("a/x.db", "y.db"),
        lambda: move("n.db", "x.db"),
        lambda: insert("x.db", 12),
        lambda: move("x.db", "a/x.db"),
        lambda: move("y.db", "x.db"),
        lambda: remove("x.db"),
        lambda: move("a/x.db", "x.db"),
    ):
        began = disk.ops()
        ok(*step(), node=node)
        steps.append((began, disk.ops(), dict(state)))
    last = disk.ops()
    node.lose_power()

    def check(operation):
        began = [step for step in steps if step[0] < operation]
        least = max(n for n, step in enumerate(began) if step[1] < operation)
        names = [path for path, about in listing(node).items() if about[0] == "f"]
        found = {name: values(node, name) for name in names}
        assert found in [step[2] for step in began[least:]], found
        for line in node.log_text().splitlines():
            for word in ("damaged", "does not", "getting", " E "):
                assert word not in line, line
        assert sorted(backing(node)) == sorted(names)
        assert not list((node.data / ".dqlitefs").glob("moved-*"))
        return found

    chance = random.Random(random.randrange(1 << 32))
    cuts = list(range(first + 1, last + 1))
    if not soak:
        cuts = sorted(chance.sample(cuts, min(30, len(cuts))))
    for operation in cuts:
        seed = chance.randrange(1 << 32)
        try:
            node.stderr_path.write_text("")
            disk.replay(operation, seed)
            lead(node)
            found = check(operation)
            node.kill9()
            lead(node)
            assert check(operation) == found
            node.lose_power()
        except BaseException:
            print(f"power failed in operation {operation} of {first}..{last}, seed {seed}")
            raise


def test_empty_node_that_joins_gets_directories_and_names(workspace):
    nodes = [Node(workspace, "n1", options=("--log-size", "16M"))]
    nodes[0].start()
    until("it leads", lambda: nodes[0].status()["role"] == "leader")
    ok("mkdir", "-p", "a/b", "c/d", node=nodes[0])
    ok("chmod", "710", "a/b", node=nodes[0])
    ok("chown", "3:4", "c/d", node=nodes[0])
    make(nodes[0], "x.db", 1)
    make(nodes[0], "a/b/y.db", 2)
    ok("mv", "x.db", "c/d/x.db", node=nodes[0])
    push_log(nodes[0], "big.db", segments(nodes[0])[:1])
    ok("mv", "a/b/y.db", "a/y.db", node=nodes[0])
    nodes.append(Node(workspace, "n2"))
    fetches = Fetches(nodes[1])
    nodes[1].start(join=nodes[0].address)
    fetches.wait()
    seen = wait_listed(nodes, ["a", "a/b", "a/y.db", "big.db", "c", "c/d", "c/d/x.db"])
    assert seen["a/b"] == ("d", "710", "0", "0", "2")
    assert seen["c/d"] == ("d", "755", "3", "4", "2")
    check_values(nodes, {"a/y.db": "2", "c/d/x.db": "1"})
    sql(nodes[0], "c/d/x.db", "INSERT INTO t VALUES(9)", busy_ms=5000)
    check_values(nodes, {"c/d/x.db": "1,9"})


def test_node_that_was_away_for_long_finds_the_new_names(workspace):
    cluster = Cluster(workspace, options=("--log-size", "16M")).start()
    leader = cluster.wait_follows()
    away, other = cluster.followers()
    ok("mkdir", "-p", "a/b", "gone/deep", node=leader)
    make(leader, "a/b/x.db", 1)
    make(leader, "gone/deep/z.db", 4)
    fill(leader, "large.db", 500)
    wait_listed(cluster.nodes)
    cluster.wait_equal()
    away.kill9()
    ok("mv", "a/b/x.db", "y.db", node=leader)
    ok("rm", "-r", "gone", "a", node=leader)
    ok("mkdir", "-p", "a", "new", node=leader)
    ok("mv", "large.db", "new/large.db", node=leader)
    make(leader, "a/x.db", 2)
    outgrow(leader, "push.db")
    fetches = Fetches(away)
    away.start()
    fetches.wait()
    wait_listed(cluster.nodes, ["a", "a/x.db", "new", "new/large.db", "push.db", "y.db"])
    check_values(cluster.nodes, {"y.db": "1", "a/x.db": "2"})
    cluster.wait_equal()
    assert not (away.data / "gone").exists()
    assert backing(away) == backing(leader)


def test_what_somebody_put_into_the_data_directory_is_not_followed(workspace):
    node = Node(workspace, "n1").start()
    until("it leads", lambda: node.status()["role"] == "leader")
    ok("mkdir", "-p", "a/b", node=node)
    make(node, "a/b/x.db", 1)
    node.stop()
    outside = workspace.base / "outside"
    outside.mkdir()
    (outside / "precious.db").write_text("precious")
    (node.data / "link").symlink_to(outside)
    (node.data / "a" / "link").symlink_to(outside)
    (node.data / "a" / "stray.db").write_text("stray")
    (node.data / "strange").mkdir()
    (node.data / "strange" / "notes.txt").write_text("notes")
    node.start()
    until("it leads", lambda: node.status()["role"] == "leader")
    assert sorted(listing(node)) == ["a", "a/b", "a/b/x.db"]
    assert (outside / "precious.db").read_text() == "precious"
    assert (node.data / "strange" / "notes.txt").exists()
    assert not (node.data / "a" / "stray.db").exists()
    assert values(node, "a/b/x.db") == "1"
