"""Databases copied and moved, with and without their side files, by every tool and in any order: what comes
out is what the same commands leave on a local disk."""

import os
import shutil

import pytest
from harness import PROGRAM, PYTHON, Connection, run, sql, sql_file, until

MODES = ["wal", "delete", "persist"]


def ok(*command, cwd=None):
    result = run([str(word) for word in command], cwd=cwd and str(cwd), timeout=60)
    assert result.code == 0, result
    return result.out


def rows(path):
    """Of a copy, with whatever lies beside it."""
    return sql_file(path, "SELECT group_concat(x) FROM (SELECT x FROM t ORDER BY x); PRAGMA integrity_check;")


def leave(node, db, mode):
    """Row 1 and 2 are committed; the process that wrote them, and is at row 3, is killed."""
    with Connection(node, db, busy_ms=5000) as victim:
        victim.execute(f"PRAGMA journal_mode={mode}")
        victim.execute("PRAGMA wal_autocheckpoint=0")
        victim.execute("PRAGMA cache_size=2")
        victim.execute("CREATE TABLE t(x, y)")
        victim.execute("INSERT INTO t VALUES(1, zeroblob(20000))")
        victim.execute("INSERT INTO t VALUES(2, zeroblob(20000))")
        victim.execute("BEGIN IMMEDIATE")
        victim.execute("INSERT INTO t VALUES(3, zeroblob(200000))")
        victim.execute("UPDATE t SET y=randomblob(20000)")
        victim.kill9()


def side_files(node, db):
    return sorted(name for name in os.listdir(node.mnt) if name.startswith(db + "-"))


# ---- what a dead application left -------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["mv", "mv *", "cp", "cp -a dir", "rsync", "tar", "shutil"])
def test_file_alone_has_everything_that_a_killed_application_committed(
    node, workspace, db, mode, how
):
    out = workspace.base / "out"
    out.mkdir()
    leave(node, db, mode)
    moved = out / db
    if how == "mv":
        ok("mv", node.path(db), out)
    elif how == "mv *":
        ok("sh", "-c", f"mv {db}* {out}", cwd=node.mnt)
    elif how == "cp":
        ok("cp", node.path(db), out)
    elif how == "cp -a dir":
        ok("cp", "-a", node.mnt, out / "all")
        moved = out / "all" / db
    elif how == "rsync":
        ok("rsync", "-a", f"{node.mnt}/", out)
    elif how == "tar":
        ok("sh", "-c", f"tar c . | tar x -C {out}", cwd=node.mnt)
    else:
        shutil.copy(node.path(db), out)
    assert rows(moved) == "1,2\nok"
    if how.startswith("mv"):
        until("nothing is left", lambda: os.listdir(node.mnt) == [])
    else:
        assert sql(node, db, "SELECT count(*) FROM t", busy_ms=5000) == "2"


@pytest.mark.parametrize("mode", MODES)
def test_what_a_killed_application_left_is_folded_at_once(cluster, db, mode):
    leader = cluster.wait_leader()
    leave(leader, db, mode)
    until("the -wal and the -journal are gone", lambda: not side_files(leader, db) or mode == "persist")
    assert rows(leader.data / db) == "1,2\nok"
    cluster.check_sound(db)
    sql(leader, db, "INSERT INTO t VALUES(4, NULL)", busy_ms=5000)
    assert cluster.wait_same(db, "SELECT group_concat(x) FROM t") == "1,2,4"
    for node in cluster.nodes:
        node.kill9()
    for node in cluster.nodes:
        node.launch()
    for node in cluster.nodes:
        node.wait_mounted(40)
    assert cluster.wait_same(db, "SELECT group_concat(x) FROM t") == "1,2,4"
    cluster.check_sound(db)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["close", "kill"])
def test_copy_on_a_follower_that_was_read_there_is_complete(cluster, workspace, db, mode, how):
    leader = cluster.wait_leader()
    follower = cluster.followers()[0]
    sql(leader, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(x, y); INSERT INTO t VALUES(1, 1);")
    cluster.wait_equal()
    with Connection(follower, db) as reader:
        until("the row", lambda: reader.value("SELECT count(*) FROM t") == 1)
        sql(leader, db, "INSERT INTO t VALUES(2, zeroblob(50000))", busy_ms=5000)
        until("the next", lambda: reader.value("SELECT count(*) FROM t") == 2)
        if how == "kill":
            reader.kill9()
    for number in range(3):
        ok("cp", follower.path(db), workspace.base / "copy.db")
        assert rows(workspace.base / "copy.db") == "1,2" + (",4" if number else "") + "\nok"
        if number == 0:
            sql(leader, db, "INSERT INTO t VALUES(4, 4)", busy_ms=5000)
            cluster.wait_equal()
    cluster.check_sound(db)


# ---- what comes in by copying -----------------------------------------------------------------------

SHELL_COPY = "for f in {names}; do cat {source}/$f >{target}/$f; done"


def copied(tool, names, source, target):
    """Commands that copy the files in this order."""
    files = [source / name for name in names]
    return {
        "cp": [["cp", *files, target]],
        "cp -a": [["cp", "-a", file, target] for file in files],
        "rsync": [["rsync", "-a", file, f"{target}/"] for file in files],
        "rsync dir": [["rsync", "-a", f"{source}/", f"{target}/"]],
        "rsync inplace": [["rsync", "-a", "--inplace", file, f"{target}/"] for file in files],
        "tar": [["sh", "-c", f"tar c -C {source} {' '.join(names)} | tar x -C {target}"]],
        "shell": [
            ["sh", "-c", SHELL_COPY.format(names=" ".join(names), source=source, target=target)]
        ],
        "shutil": [
            [
                PYTHON,
                "-c",
                "import shutil, sys\nfor f in sys.argv[2:]: shutil.copy(f, sys.argv[1])",
                target,
                *files,
            ]
        ],
        "dd": [["dd", f"if={file}", f"of={target}/{file.name}", "bs=5000"] for file in files],
        "mv": [["mv", *files, target]],
    }[tool]


TOOLS = ["cp", "cp -a", "rsync", "rsync dir", "rsync inplace", "tar", "shell", "shutil", "dd", "mv"]


def source_of(folder, mode, value=0):
    """A directory that holds what a killed application left: rows value + 1 and 2 count."""
    folder.mkdir()

    statements = [
        f"PRAGMA journal_mode={mode}",
        "PRAGMA wal_autocheckpoint=0",
        "PRAGMA cache_size=2",
        "CREATE TABLE t(x, y)",
        f"INSERT INTO t VALUES({value + 1}, zeroblob(20000))",
        f"INSERT INTO t VALUES({value + 2}, zeroblob(20000))",
        "BEGIN IMMEDIATE",
        "INSERT INTO t VALUES(3, zeroblob(200000))",
        "UPDATE t SET y=randomblob(20000), x=x+100",
    ]
    script = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for s in sys.argv[2:]: c.execute(s).fetchall()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert run([PYTHON, "-c", script, str(folder / "x.db"), *statements]).code == -9
    names = sorted(os.listdir(folder))
    assert names == (["x.db", "x.db-shm", "x.db-wal"] if mode == "wal" else ["x.db", "x.db-journal"])
    return folder


@pytest.mark.parametrize("before", ["new", "replaced"])
@pytest.mark.parametrize("order", ["database first", "database last"])
@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("tool", TOOLS)
def test_copied_directory_is_what_it_is_on_a_local_disk(
    shared_cluster, workspace, tool, mode, order, before
):
    if tool == "rsync inplace" and before == "replaced":
        before = "new"  # it reads the former content while it writes: EBUSY, and a line says why
    leader = shared_cluster.leader()
    name = workspace.base.name
    ok("mkdir", leader.path(name))
    target, local = leader.path(name), workspace.base / "local"
    local.mkdir()
    if before == "replaced":  # twice: the second finds what became of the first
        source = source_of(workspace.base / "former", mode, 10)
        for command in copied(tool, sorted(os.listdir(source)), source, target):
            ok(*command)
        assert sql(leader, f"{name}/x.db", "SELECT group_concat(x) FROM t") == "11,12"
    source = source_of(workspace.base / "source", mode)
    shutil.copytree(source, local, dirs_exist_ok=True)
    names = sorted(os.listdir(source), reverse=order == "database last")
    commands = copied(tool, names, source, target)
    for command in commands:
        ok(*command)
    shared_cluster.wait_equal()
    for node in shared_cluster.nodes:
        assert rows(node.data / name / "x.db") == "1,2\nok", "the file alone has it, on all nodes"
    assert rows(local / "x.db") == "1,2\nok"
    sql(leader, f"{name}/x.db", "INSERT INTO t VALUES(4, 4)", busy_ms=5000)
    shared_cluster.check_sound(f"{name}/x.db")
    assert sql(leader, f"{name}/x.db", "SELECT group_concat(x) FROM t") == "1,2,4"
    if mode == "wal":
        assert sql(leader, f"{name}/x.db", "PRAGMA journal_mode") == "wal"
    ok("rm", "-rf", leader.path(name))
    until("nothing is left", lambda: not list((leader.data / ".dqlitefs").glob("stray-*")))


def test_copied_side_file_without_its_database_is_never_passed_over(node, workspace):
    """Nor mixed with what it does not belong to."""
    source = source_of(workspace.base / "source", "wal")
    sql(node, "x.db", "CREATE TABLE t(x, y); INSERT INTO t VALUES(7, 7);")
    ok("cp", source / "x.db-wal", node.mnt)
    assert side_files(node, "x.db") == ["x.db-wal"]
    for _ in range(2):
        result = run(["sqlite3", str(node.path("x.db")), "SELECT x FROM t"])
        assert result.code != 0 and "7" not in result.out, result
        assert "copy the database again, or remove" in node.log_text()
        node.kill9()
        node.start()
        assert ok("cmp", source / "x.db-wal", node.path("x.db-wal")) == ""
    ok("rm", node.path("x.db-wal"))
    assert sql(node, "x.db", "SELECT x FROM t") == "7"
    ok("cp", source / "x.db-wal", node.mnt)
    ok("cp", source / "x.db", node.mnt)
    assert sql(node, "x.db", "SELECT group_concat(x) FROM t") == "1,2"


def test_side_file_is_not_copied_beside_an_open_database(node, workspace):
    source = source_of(workspace.base / "source", "wal")
    sql(node, "x.db", "CREATE TABLE t(x, y); INSERT INTO t VALUES(7, 7);")
    with Connection(node, "x.db") as connection:
        assert connection.value("SELECT x FROM t") == 7
        for name in ("x.db-wal", "x.db-journal"):
            result = run(["cp", str(source / "x.db-wal"), str(node.path(name))])
            assert result.code != 0 and "busy" in result.err, result
            assert not side_files(node, "x.db")
        connection.execute("INSERT INTO t VALUES(8, 8)")
    assert "an application has the database open" in node.log_text()
    assert sql(node, "x.db", "SELECT group_concat(x) FROM t") == "7,8"


@pytest.mark.parametrize("tool", ["cp", "rsync --inplace", "dd conv=notrunc", ">>"])
@pytest.mark.parametrize("written", [False, True])
def test_side_file_of_an_open_database_is_not_overwritten(cluster, workspace, tool, written):
    """On the leader, and on a follower. What is in a copied -wal must not count as this application's."""
    source = source_of(workspace.base / "source", "wal")
    leader, follower = cluster.leader(), cluster.followers()[0]
    sql(
        leader,
        "kept.db",
        "DROP TABLE IF EXISTS t; PRAGMA journal_mode=WAL; CREATE TABLE t(x, y); INSERT INTO t VALUES(7, 7);",
        busy_ms=5000,
    )
    for node in (leader, follower):
        with Connection(node, "kept.db", busy_ms=5000) as connection:
            until("it is there", lambda: connection.value("SELECT count(*) FROM t") == 1)
            if written and node is leader:
                connection.execute("UPDATE t SET y=8")
            for suffix in ("-wal", "-shm"):
                target = node.path("kept.db" + suffix)
                before = target.stat().st_size
                result = run(
                    {
                        "cp": ["cp", source / "x.db-wal", target],
                        "rsync --inplace": ["rsync", "--inplace", source / "x.db-wal", target],
                        "dd conv=notrunc": [
                            "dd", f"if={source / 'x.db-wal'}", f"of={target}", "conv=notrunc"
                        ],
                        ">>": ["sh", "-c", 'cat "$1" >> "$2"', "sh", source / "x.db-wal", target],
                    }[tool]
                )
                assert result.code != 0 and "busy" in result.err.lower(), result
                assert target.stat().st_size == before
            assert connection.value("SELECT x FROM t") == 7
            assert connection.value("PRAGMA integrity_check") == "ok"
        assert "refused to write over a file that is in use" in node.log_text()
    sql(leader, "kept.db", "INSERT INTO t VALUES(9, 9)", busy_ms=5000)
    cluster.check_sound("kept.db")
    for node in cluster.nodes:
        until(
            "all have both rows",
            lambda: sql(node, "kept.db", "SELECT group_concat(x) FROM t", busy_ms=5000) == "7,9",
        )


def test_killed_copy_of_a_side_file_is_not_taken_for_all_of_it(node, workspace):
    source = source_of(workspace.base / "source", "wal")
    ok("cp", source / "x.db", node.mnt)
    script = (
        "import os, sys; f = open(sys.argv[2], 'wb', 0); f.write(open(sys.argv[1], 'rb').read()[:30000]);"
        "os.kill(os.getpid(), 9)"
    )
    assert run([PYTHON, "-c", script, str(source / "x.db-wal"), str(node.path("x.db-wal"))]).code == -9
    result = run(["sqlite3", str(node.path("x.db")), "SELECT x FROM t"])
    assert result.code != 0, result
    ok("cp", source / "x.db-wal", node.mnt)
    assert sql(node, "x.db", "SELECT group_concat(x) FROM t") == "1,2"


def test_side_file_that_does_not_belong_to_its_database_fails_its_copy(node, workspace):
    source = source_of(workspace.base / "source", "wal")
    sql_file(workspace.base / "other.db", "PRAGMA page_size=8192; CREATE TABLE t(x); INSERT INTO t VALUES(5);")
    ok("cp", workspace.base / "other.db", node.path("x.db"))
    result = run(["cp", str(source / "x.db-wal"), str(node.path("x.db-wal"))])
    assert result.code != 0, result
    assert "does not belong to the database" in node.log_text()
    ok("rm", node.path("x.db-wal"))
    assert sql(node, "x.db", "SELECT x FROM t") == "5"


# ---- what a removed database leaves ----------------------------------------------------------------


@pytest.mark.parametrize("order", ["database first", "database last", "all at once", "rm", "rm -r"])
def test_side_files_of_a_removed_database_stay_as_on_a_local_disk(cluster, workspace, order):
    leader = cluster.wait_leader()
    out = workspace.base / "out"
    out.mkdir()
    ok("mkdir", leader.path("d"))
    with Connection(leader, "d/x.db") as user:
        for statement in ("PRAGMA journal_mode=wal", "CREATE TABLE t(x, y)", "INSERT INTO t VALUES(1, 1)"):
            user.execute(statement)
        names = ["x.db", "x.db-shm", "x.db-wal"]
        assert sorted(os.listdir(leader.path("d"))) == names
        if order == "all at once":
            ok("mv", *[leader.path("d") / name for name in names], out)
        elif order == "database first":
            for name in names:
                ok("mv", leader.path("d") / name, out)
        elif order == "database last":  # it would be half a database
            assert "busy" in run(["mv", str(leader.path("d/x.db-wal")), str(out)]).err
            ok("sh", "-c", f"mv d/x.db d/x.db-wal {out}; rm d/x.db-shm", cwd=leader.mnt)
        elif order == "rm":
            ok("rm", leader.path("d/x.db"))
            assert sorted(os.listdir(leader.path("d"))) == names[1:]
            assert "not empty" in run(["rmdir", str(leader.path("d"))]).err
            ok("rm", *[leader.path("d") / name for name in names[1:]])
        else:
            ok("rm", "-r", leader.path("d"))
    if not order.startswith("rm"):
        assert rows(out / "x.db") == "1\nok"
    if order != "rm -r":
        assert os.listdir(leader.path("d")) == []
        ok("rmdir", leader.path("d"))
    for node in cluster.nodes:
        until("it is gone there, too", lambda: os.listdir(node.mnt) == [])


@pytest.mark.parametrize("again", ["sqlite", "cp", "mv", "from a follower's lead"])
def test_left_side_file_outlives_a_restart_but_no_new_database_takes_it(cluster, workspace, again):
    leader = cluster.wait_leader()
    with Connection(leader, "x.db") as user:
        for statement in ("PRAGMA journal_mode=wal", "CREATE TABLE t(x, y)", "INSERT INTO t VALUES(1, 1)"):
            user.execute(statement)
        ok("rm", leader.path("x.db"))
        user.kill9()
    left = leader.path("x.db-wal").read_bytes()
    assert len(left) > 4096
    leader.kill9()
    leader.start()
    assert leader.path("x.db-wal").read_bytes() == left
    new = cluster.wait_leader()
    if again == "from a follower's lead":
        assert new is not leader
        sql(new, "x.db", "CREATE TABLE t(x, y); INSERT INTO t VALUES(9, 9);", busy_ms=5000)
    else:
        if new is not leader:
            ok(PROGRAM, "transfer", new.mnt, "--to", leader.address)
            until("it leads", lambda: cluster.leader() is leader)
        made = workspace.base / "made.db"
        sql_file(made, "PRAGMA journal_mode=wal; CREATE TABLE t(x, y); INSERT INTO t VALUES(9, 9);")
        if again == "sqlite":
            sql(leader, "x.db", "CREATE TABLE t(x, y); INSERT INTO t VALUES(9, 9);", busy_ms=5000)
        elif again == "cp":
            ok("cp", made, leader.path("x.db"))
        else:
            ok("cp", made, leader.path("y.db"))
            ok("mv", leader.path("y.db"), leader.path("x.db"))
    cluster.wait_equal()
    assert cluster.wait_same("x.db", "SELECT x FROM t") == "9"
    for node in cluster.nodes:
        until("it is gone", lambda: "x.db-wal" not in os.listdir(node.mnt) or node.path("x.db-wal").stat().st_size == 0)
        assert not list((node.data / ".dqlitefs").glob("stray-*.is"))
    cluster.check_sound("x.db")


def test_left_side_file_can_be_renamed_and_is_a_copy_then(node, workspace):
    with Connection(node, "x.db") as user:
        for statement in ("PRAGMA journal_mode=wal", "CREATE TABLE t(x, y)", "INSERT INTO t VALUES(1, 1)"):
            user.execute(statement)
        ok("mv", node.path("x.db"), workspace.base)
        ok("mv", node.path("x.db-wal"), node.path("y.db-wal"))
        user.kill9()
    ok("cp", workspace.base / "x.db", node.path("y.db"))
    assert sql(node, "y.db", "SELECT x FROM t") == "1"
