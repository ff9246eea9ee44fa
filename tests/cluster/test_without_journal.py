"""Databases that are written without a journal: journal_mode MEMORY and OFF, and programs that know
nothing of SQLite (cp and the like). A commit is an fsync of the database, or its close; without fsync see
test_without_fsync.py."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest
from harness import (
    PROGRAM,
    PYTHON,
    Cluster,
    Connection,
    SqlError,
    run,
    sql,
    sql_file,
    sqlite3_command,
    until,
)

PAGE = 4096
NO_JOURNAL = ["MEMORY", "OFF"]


def make(path, rows=2000, mode="delete", first=1):
    """A database of some 100 pages, which is what it is by `first`."""
    path.unlink(missing_ok=True)
    sql_file(
        path,
        f"PRAGMA journal_mode={mode}; CREATE TABLE t(i INTEGER PRIMARY KEY, x);"
        f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i+1 FROM n LIMIT {rows})"
        "INSERT INTO t SELECT i, hex(randomblob(100)) FROM n;",
    )
    return path


def count(node, db):
    return sql(node, db, "SELECT count(*), min(i) FROM t; PRAGMA integrity_check;", busy_ms=5000)


def copy(source, target, *options):
    return run(["cp", *options, str(source), str(target)], timeout=60)


def same_bytes(cluster, db, source):
    cluster.wait_equal()
    for node in cluster.running:
        assert run(["cmp", str(source), str(node.path(db))]).code == 0, f"{db} differs on {node}"


# --- SQLite without a journal --------------------------------------------------------------------


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_commit_without_journal_is_on_a_majority_when_it_returns(shared_cluster, db, journal):
    leader = shared_cluster.leader()
    with Connection(leader, db) as c:
        c.execute(f"PRAGMA journal_mode={journal}")
        c.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
        for turn in range(5):
            before = leader.database(db)["version"]
            c.execute("INSERT INTO t(x) VALUES(hex(randomblob(3000)))")
            assert leader.database(db)["version"] == before + 1
        c.execute("BEGIN")
        c.execute("DELETE FROM t")
        if journal == "MEMORY":
            c.execute("ROLLBACK")
            assert c.value("SELECT count(*) FROM t") == 5
        else:
            c.execute("COMMIT")
        shared_cluster.check_sound(db)
    shared_cluster.check_sound(db)


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_without_journal_and_fsync_each_transaction_is_committed(shared_cluster, db, journal):
    leader = shared_cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    version = leader.database(db)["version"]
    with Connection(leader, db) as c:
        c.execute(f"PRAGMA journal_mode={journal}")
        c.execute("PRAGMA synchronous=OFF")
        c.execute("INSERT INTO t(x) VALUES(1)")
        c.execute("INSERT INTO t(x) VALUES(2)")
        assert sql(leader, db, "SELECT count(*) FROM t") == "2"
    assert leader.database(db)["version"] == version + 2
    shared_cluster.check_sound(db)
    assert shared_cluster.wait_same(db, "SELECT count(*) FROM t") == "2"


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_writer_without_journal_killed_in_a_transaction_leaves_nothing(node, db, journal):
    sql(node, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 'kept');")
    before = sql(node, db, ".sha3sum")
    for turn in range(5):
        c = Connection(node, db)
        c.execute(f"PRAGMA journal_mode={journal}")
        c.execute("PRAGMA cache_size=5")  # so that it writes before it commits
        c.execute("BEGIN")
        for _ in range(20):
            c.execute("INSERT INTO t(x) VALUES(hex(randomblob(3000)))")
        c.kill9()
        answer = sql(node, db, "PRAGMA integrity_check;\n.sha3sum", busy_ms=5000)
        assert answer == f"ok\n{before}"
    # nor does anything stop the next one
    sql(node, db, "INSERT INTO t VALUES(2, 'next')", busy_ms=5000)
    assert sql(node, db, "SELECT count(*) FROM t") == "2"


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_commit_without_journal_and_quorum_fails(workspace, db, journal):
    cluster = Cluster(workspace, options=["--commit-timeout", "1"]).start()
    leader = cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 'before');")
    with Connection(leader, db, timeout=30) as c:
        c.execute(f"PRAGMA journal_mode={journal}")
        c.execute("INSERT INTO t VALUES(2, 'with all')")
        cluster.wait_equal()
        dead = [node for node in cluster.nodes if node is not leader]
        for node in dead:
            node.kill9()
        with pytest.raises(SqlError, match="IOERR"):
            c.execute("INSERT INTO t VALUES(3, 'alone')")
        # neither this connection nor another one sees what was refused
        for turn in range(2):
            assert c.execute("SELECT i FROM t") == [(1,), (2,)]
            assert sql(leader, db, "SELECT count(*) FROM t; PRAGMA integrity_check") == "2\nok"
        for node in dead:
            node.start()
        cluster.wait_leader(30)
    cluster.check_sound(db)
    # its outcome was unknown: all or nothing
    assert cluster.wait_same(db, "SELECT group_concat(i) FROM t") in ("1,2", "1,2,3")


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_writers_without_journal_and_leaders_killed_lose_nothing(cluster, db, journal):
    sql(cluster.leader(), db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    acknowledged = set()
    number = 0
    for turn in range(3):
        leader = cluster.wait_leader(30)
        c = Connection(leader, db, busy_ms=10000, timeout=40)
        c.execute(f"PRAGMA journal_mode={journal}")
        end = time.monotonic() + random.uniform(0.3, 0.9)
        victim = leader if turn % 2 == 0 else random.choice(cluster.followers())
        while time.monotonic() < end:
            number += 1
            c.execute(f"INSERT INTO t VALUES({number}, hex(randomblob(2000)))")
            acknowledged.add(number)
        number += 1
        c.send(f"INSERT INTO t VALUES({number}, 'in doubt')")
        victim.kill9()
        try:
            c.receive()
            acknowledged.add(number)
        except (SqlError, EOFError):
            pass
        c.kill9()
        victim.start()
    cluster.check_sound(db)
    present = {int(i) for i in cluster.wait_same(db, "SELECT i FROM t").split()}
    assert acknowledged <= present
    assert present <= set(range(1, number + 1))


def test_encrypted_database_is_refused(shared_node, db):
    """SQLCipher's and others' files look like noise."""
    shared_node.path(db).touch()
    with pytest.raises(OSError):
        with open(shared_node.path(db), "r+b") as file:
            file.write(os.urandom(8 * PAGE))
            os.fsync(file.fileno())
    until("it is thrown away", lambda: shared_node.path(db).stat().st_size == 0)
    assert "encrypted" in shared_node.log_text() or "no SQLite database" in shared_node.log_text()


# --- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("how", ["cp", "cp -a", "install", "dd", "cat", "python"])
def test_copied_database_is_the_same_on_all_nodes(shared_cluster, workspace, db, mode, how):
    leader = shared_cluster.leader()
    target = leader.path(db)
    for turn, first in enumerate((1, 1001)):  # a new one, and over the former one
        source = make(workspace.base / "source.db", 1500 * (turn + 1), mode, first)
        os.utime(source, ns=(10**18, 10**18 + turn))
        if how == "dd":
            command = ["dd", f"if={source}", f"of={target}", "bs=64k", "conv=fsync", "status=none"]
        elif how == "cat":
            command = ["sh", "-c", f"cat {source} > {target}"]
        elif how == "install":
            command = ["install", "-m", "640", str(source), str(target)]
        elif how == "python":
            shutil.copy2(source, target)
            command = ["true"]
        else:
            command = [*how.split(), str(source), str(target)]
        result = run(command, timeout=60)
        assert result.code == 0, result
        same_bytes(shared_cluster, db, source)
        shared_cluster.check_sound(db)
        for node in shared_cluster.nodes:
            about = node.path(db).stat()
            if how in ("cp -a", "python"):
                assert about.st_mtime_ns == source.stat().st_mtime_ns, f"on {node}"
            if how == "install":
                assert about.st_mode & 0o7777 == 0o640
            assert count(node, db) == f"{1500 * (turn + 1)}|{first}\nok"
    sql(leader, db, "INSERT INTO t VALUES(99999, 'after')")
    shared_cluster.check_sound(db)
    assert leader.database(db)["mode"] == mode


def test_copy_survives_a_kill_of_all_nodes(cluster, workspace, db):
    source = make(workspace.base / "source.db", 5000)
    assert copy(source, cluster.leader().path(db)).code == 0
    for node in cluster.nodes:
        node.kill9()
    for node in cluster.nodes:
        node.launch()
    for node in cluster.nodes:
        node.wait_mounted()
    cluster.wait_leader(30)
    same_bytes(cluster, db, source)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_copy_over_an_open_database_is_refused(shared_cluster, workspace, db, mode):
    leader = shared_cluster.leader()
    source = make(workspace.base / "source.db")
    sql(leader, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(i, x); INSERT INTO t VALUES(7, 7)")
    with Connection(leader, db) as c:
        assert c.value("SELECT count(*) FROM t") == 1
        result = copy(source, leader.path(db))
        assert result.code != 0 and "busy" in result.err, result
        with pytest.raises(OSError):  # without O_TRUNC
            with open(leader.path(db), "r+b", buffering=0) as file:
                file.write(b"x" * PAGE)
        with pytest.raises(OSError):
            os.truncate(leader.path(db), 0)
        c.execute("BEGIN IMMEDIATE")
        c.execute("INSERT INTO t VALUES(8, 8)")
        assert copy(source, leader.path(db)).code != 0
        c.execute("COMMIT")
        assert c.execute("SELECT i FROM t") == [(7,), (8,)]
    assert "an application has the database open" in leader.log_text()
    shared_cluster.check_sound(db)
    assert copy(source, leader.path(db)).code == 0
    same_bytes(shared_cluster, db, source)


@pytest.mark.parametrize("how", ["cp", "dd", "truncate", "create", "mv"])
def test_what_wants_a_database_to_itself_waits_for_who_is_about_to_close_it(
    node, workspace, db, how
):
    """The kernel closes a database a moment after close(2) has returned, or the process has ended."""
    source = make(workspace.base / "source.db")
    sql(node, db, "CREATE TABLE t(i, x); INSERT INTO t VALUES(7, 7)")
    commands = {
        "cp": ["cp", source, node.path(db)],
        "dd": ["dd", f"if={source}", f"of={node.path(db)}", "bs=1M", "conv=notrunc,fsync"],
        "truncate": [PYTHON, "-c", f"import os; os.truncate({str(node.path(db))!r}, 0)"],
        "create": ["sh", "-c", f"cat {source} >{node.path(db)}"],
        "mv": ["mv", node.path(db), node.path("other_" + db)],
    }
    with Connection(node, db) as last:
        assert last.value("SELECT count(*) FROM t") == 1
        command = subprocess.Popen([str(word) for word in commands[how]], stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)
        assert command.poll() is None, command.communicate()
    assert command.wait(20) == 0, command.communicate()
    if how == "truncate":
        assert node.path(db).stat().st_size == 0
    elif how == "mv":
        assert count(node, "other_" + db) == "1|7\nok"
    else:
        assert count(node, db) == "2000|1\nok"


WRITES_GARBAGE = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"x" * 4096, 0)
print(flush=True)
sys.stdin.read()
"""


def test_open_waits_for_a_copy_that_has_failed_and_is_about_to_be_closed(node, db):
    sql(node, db, "CREATE TABLE t(i, x); INSERT INTO t VALUES(7, 7)")
    writes = subprocess.Popen(
        [PYTHON, "-c", WRITES_GARBAGE, str(node.path(db))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    node.workspace.children.append(writes)
    assert writes.stdout.readline() == b"\n"
    opens = subprocess.Popen(
        sqlite3_command(node.path(db)) + ["SELECT i FROM t"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    node.workspace.children.append(opens)
    time.sleep(0.3)
    assert opens.poll() is None, opens.communicate()
    writes.stdin.close()
    assert opens.communicate(timeout=20) == ("7\n", "")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_readers_elsewhere_lose_a_replaced_database_and_find_the_new_one(
    shared_cluster, workspace, db, mode
):
    """Both contents have the same change counter, by which alone SQLite tells its cache outdated."""
    leader = shared_cluster.leader()
    old = make(workspace.base / "old.db", mode=mode, first=1)
    new = make(workspace.base / "new.db", mode=mode, first=5001)
    assert copy(old, leader.path(db)).code == 0
    shared_cluster.wait_equal()
    readers = [Connection(node, db, busy_ms=5000) for node in shared_cluster.followers()]
    for reader in readers:
        assert reader.value("SELECT min(i) FROM t") == 1
        reader.execute("BEGIN")
        assert reader.value("SELECT max(i) FROM t") == 2000
    assert copy(new, leader.path(db)).code == 0
    shared_cluster.wait_equal()
    for reader in readers:
        try:
            # of its own snapshot, or nothing
            assert reader.value("SELECT max(i) FROM t") == 2000
        except SqlError as error:
            assert "IOERR" in str(error), error
        reader.close()
    for node in shared_cluster.nodes:
        assert count(node, db) == "2000|5001\nok"
    same_bytes(shared_cluster, db, new)


@pytest.mark.parametrize("content", ["text", "half", "cut", "longer"])
def test_copy_of_what_is_no_database_fails_and_changes_nothing(
    shared_cluster, workspace, db, content
):
    leader = shared_cluster.leader()
    good = make(workspace.base / "good.db")
    bad = make(workspace.base / "bad.db", 3000)
    assert copy(good, leader.path(db)).code == 0
    size = bad.stat().st_size
    if content == "text":
        bad.write_text("no database\n" * 1000)
    elif content == "half":
        os.truncate(bad, size // 2 // PAGE * PAGE)
    elif content == "cut":
        os.truncate(bad, size - 100)
    else:
        with open(bad, "ab") as file:
            file.write(b"x" * 100)
    result = copy(bad, leader.path(db))
    assert result.code != 0 and "error" in result.err, result
    same_bytes(shared_cluster, db, good)
    shared_cluster.check_sound(db)
    sql(leader, db, "INSERT INTO t VALUES(99999, 'after')", busy_ms=2000)


def test_killed_copy_leaves_the_former_content(node, workspace, db):
    good = make(workspace.base / "good.db")
    big = make(workspace.base / "big.db", 100_000)
    assert copy(good, node.path(db)).code == 0
    for turn in range(6):
        process = subprocess.Popen(["cp", str(big), str(node.path(db))])
        node.workspace.children.append(process)
        time.sleep(random.uniform(0, 0.02))
        process.kill()
        process.wait()
        seen = until(
            "somebody can look", lambda: count_or_none(node, db), timeout=10, pause=0.05
        )
        assert seen in ("2000|1\nok", "100000|1\nok"), seen
        if seen.startswith("1"):  # it was faster
            assert copy(good, node.path(db)).code == 0


def count_or_none(node, db):
    try:
        return count(node, db)
    except SqlError as error:  # the copy's descriptor is not closed yet
        assert "unable to open" in str(error), error
        return None


def test_copy_without_quorum_fails_and_leaves_the_former_content(workspace, db):
    cluster = Cluster(workspace, options=["--commit-timeout", "1"]).start()
    leader = cluster.leader()
    good = make(workspace.base / "good.db")
    other = make(workspace.base / "other.db", first=9001)
    assert copy(good, leader.path(db)).code == 0
    cluster.wait_equal()
    dead = [node for node in cluster.nodes if node is not leader]
    for node in dead:
        node.kill9()
    result = copy(other, leader.path(db))
    assert result.code != 0, "cp said that it is there"
    assert count(leader, db) == "2000|1\nok"
    for node in dead:
        node.start()
    cluster.wait_leader(30)
    cluster.check_sound(db)
    assert cluster.wait_same(db, "SELECT min(i) FROM t") in ("1", "9001")


@pytest.mark.parametrize("end", ["transfer", "kill"])
def test_copy_never_claims_success_when_the_lead_changes(cluster, workspace, db, end):
    """Written by hand, so that the lead is lost in the middle of it."""
    leader = cluster.leader()
    good = make(workspace.base / "good.db")
    other = make(workspace.base / "other.db", first=9001).read_bytes()
    assert copy(good, leader.path(db)).code == 0
    cluster.wait_equal()
    fd = os.open(leader.path(db), os.O_RDWR | os.O_TRUNC)
    failed = False
    try:
        os.pwrite(fd, other[: 20 * PAGE], 0)
        if end == "kill":
            leader.kill9()
        else:
            assert run([PROGRAM, "transfer", str(leader.mnt)]).code == 0
        cluster.wait_leader(30, other_than=leader)
        time.sleep(0.3)
        for off in range(20 * PAGE, len(other), PAGE):
            os.pwrite(fd, other[off : off + PAGE], off)
    except OSError:
        failed = True
    finally:
        try:
            os.close(fd)
        except OSError:
            failed = True
    assert failed, "all went well, it says"
    if end == "kill":
        leader.start()
    cluster.wait_follows(30)
    same_bytes(cluster, db, good)


def test_times_mode_and_owner_set_on_the_leader_are_the_same_everywhere(shared_cluster, db):
    leader = shared_cluster.leader()
    path = leader.path(db)
    assert run(["touch", str(path)]).code == 0  # makes it
    sql(leader, db, "CREATE TABLE t(a)")
    for command in (
        ["touch", "-d", "2001-02-03 04:05:06.789", str(path)],
        ["chmod", "604", str(path)],
        ["chown", "12:34", str(path)],
    ):
        assert run(command).code == 0, command
    shared_cluster.wait_equal()

    def check():
        seen = set()
        for node in shared_cluster.nodes:
            about = node.path(db).stat()
            seen.add((about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns))
        return len(seen) == 1 and seen.pop()

    mode, uid, gid, mtime = until("the same on all nodes", check)
    assert (mode & 0o7777, uid, gid) == (0o604, 12, 34)
    assert mtime % 10**9 == 789 * 10**6


def test_truncate_to_nothing_empties_it_everywhere(shared_cluster, workspace, db):
    leader = shared_cluster.leader()
    good = make(workspace.base / "good.db")
    for how in ("command", "call"):
        assert copy(good, leader.path(db)).code == 0
        if how == "command":
            assert run(["truncate", "-s", "0", str(leader.path(db))]).code == 0
        else:
            os.truncate(leader.path(db), 0)
        shared_cluster.wait_equal()
        for node in shared_cluster.nodes:
            assert node.path(db).stat().st_size == 0
    for size in (5 * PAGE, 2**63 - 1):  # no database, and no file at all
        with pytest.raises(OSError):
            os.truncate(leader.path(db), size)
        assert leader.path(db).stat().st_size == 0
    assert copy(good, leader.path(db)).code == 0  # nothing is in its way
    with pytest.raises(OSError):  # half of a database
        os.truncate(leader.path(db), 5 * PAGE)
    assert count(leader, db) == "2000|1\nok"
    sql(leader, db, "INSERT INTO t VALUES(99999, 'after')", busy_ms=2000)
    shared_cluster.check_sound(db)


def test_copy_on_a_follower_is_refused(shared_cluster, workspace, db):
    leader = shared_cluster.leader()
    good = make(workspace.base / "good.db")
    assert copy(good, leader.path(db)).code == 0
    shared_cluster.wait_equal()
    other = make(workspace.base / "other.db", 10)
    for follower in shared_cluster.followers():
        for name in (db, f"new_{db}"):
            result = copy(other, follower.path(name))
            assert result.code != 0 and "Read-only" in result.err, result
    same_bytes(shared_cluster, db, good)


def test_large_copy_is_committed_in_parts(shared_cluster, workspace, db, soak):
    leader = shared_cluster.leader()
    source = make(workspace.base / "source.db", 3_000_000 if soak else 300_000)
    assert copy(source, leader.path(db)).code == 0
    same_bytes(shared_cluster, db, source)
    assert run(["rm", str(leader.path(db))]).code == 0


def test_copy_that_finds_no_room_says_so(workspace, db):
    """A transaction has a limit, and a copy is one."""
    from harness import Node

    node = Node(workspace, "n1", options=["--max-transaction", "1M"]).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    good = make(workspace.base / "good.db", 1000)
    large = make(workspace.base / "large.db", 20000)
    assert copy(good, node.path(db)).code == 0
    result = copy(large, node.path(db))
    assert result.code != 0 and "No space" in result.err, result
    assert run(["cmp", str(good), str(node.path(db))]).code == 0


def test_writer_without_journal_survives_a_daemon_out_of_descriptors(node, db):
    """Where to gather what is written cannot be opened: nothing is there to be committed."""
    sql(node, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 'kept');")
    pid = node.process.pid
    with Connection(node, db) as c:
        c.execute("PRAGMA journal_mode=MEMORY")
        assert c.value("SELECT count(*) FROM t") == 1
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        free = min(set(range(len(used) + 1)) - used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with pytest.raises(SqlError):
                c.execute("INSERT INTO t(x) VALUES('too many')")
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert node.running
    assert sql(node, db, "SELECT x FROM t; PRAGMA integrity_check", busy_ms=2000) == "kept\nok"


@pytest.mark.parametrize("next_journal", ["MEMORY", "OFF", "DELETE", "WAL"])
@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_what_a_process_closed_does_not_hang_on_the_next_writer(
    shared_cluster, db, journal, next_journal
):
    """Without fsync, and before it is closed, another process goes on, and dies in the middle."""
    leader = shared_cluster.leader()
    sql(leader, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    first = Connection(leader, db, busy_ms=5000)
    for pragma in (f"journal_mode={journal}", "synchronous=OFF"):
        first.execute(f"PRAGMA {pragma}")
    for number in range(1, 31):
        first.execute(f"INSERT INTO t VALUES({number}, hex(randomblob(2000)))")
    second = Connection(leader, db, busy_ms=5000)
    for pragma in ("cache_size=5", "synchronous=OFF", f"journal_mode={next_journal}"):
        if "WAL" in pragma:
            first.close()
        second.execute(f"PRAGMA {pragma}")
    second.execute("BEGIN")
    for _ in range(20):
        second.execute("INSERT INTO t(x) VALUES(hex(randomblob(3000)))")
    first.close()
    second.kill9()
    answer = "SELECT count(*), max(i) FROM t; PRAGMA integrity_check"
    assert sql(leader, db, answer, busy_ms=5000) == "30|30\nok"
    shared_cluster.check_sound(db)
    assert shared_cluster.wait_same(db, "SELECT count(*) FROM t") == "30"


@pytest.mark.parametrize("journal", NO_JOURNAL)
def test_wal_mode_begins_with_all_that_was_written_before(shared_cluster, db, journal):
    leader = shared_cluster.leader()
    with Connection(leader, db) as c:
        c.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
        for turn in range(1, 4):
            for pragma in (f"journal_mode={journal}", "synchronous=OFF"):
                c.execute(f"PRAGMA {pragma}")
            for _ in range(20):
                c.execute("INSERT INTO t(x) VALUES(hex(randomblob(2000)))")
            assert c.value("PRAGMA journal_mode=WAL") == "wal"
            c.execute("INSERT INTO t(x) VALUES('wal')")
            assert shared_cluster.wait_same(db, "SELECT count(*) FROM t") == str(21 * turn)
            shared_cluster.check_sound(db)


def test_copy_waits_until_an_unfinished_transaction_is_rolled_back(node, workspace, db):
    """Its journal would be played back into the copy."""
    small = make(workspace.base / "small.db", 200)
    large = make(workspace.base / "large.db", 3000)
    assert copy(small, node.path(db)).code == 0
    c = Connection(node, db)
    c.execute("PRAGMA synchronous=OFF")  # so that the journal counts from its first page on
    c.execute("BEGIN")
    c.execute("UPDATE t SET x='gone'")
    c.kill9()
    for how in ("cp", "truncate"):
        if how == "cp":
            result = copy(large, node.path(db))
        else:
            script = "import os, sys; os.truncate(sys.argv[1], 0)"
            result = run([PYTHON, "-c", script, node.path(db)])
        assert result.code != 0 and "busy" in result.err, result
    assert "its -journal holds" in node.log_text()
    assert count(node, db) == "200|1\nok"
    assert copy(large, node.path(db)).code == 0
    assert count(node, db) == "3000|1\nok"


REDIRECTED = {
    "dd": ["dd", "if=SOURCE", "of=TARGET", "bs=4k", "status=none"],
    "dd in place": ["dd", "if=SOURCE", "of=TARGET", "bs=4k", "conv=notrunc", "status=none"],
    "sh": ["sh", "-c", "cat SOURCE > TARGET"],
    "bash": ["bash", "-c", "cat < SOURCE > TARGET"],
}


@pytest.mark.parametrize("how", REDIRECTED)
def test_redirected_copy_that_fails_leaves_the_former_content(node, workspace, db, how):
    """A shell opens the file, and moves it to another descriptor before anything is written."""
    good = make(workspace.base / "good.db", 3000)
    other = make(workspace.base / "other.db", 3000, first=9001)
    assert copy(good, node.path(db)).code == 0
    version = node.database(db)["version"]

    def command(source):
        names = {"SOURCE": str(source), "TARGET": str(node.path(db))}
        return [re.sub("SOURCE|TARGET", lambda m: names[m[0]], word) for word in REDIRECTED[how]]

    pipe = workspace.base / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen(command(pipe), start_new_session=True)
    workspace.children.append(process)
    with open(pipe, "wb", buffering=0) as file:
        file.write(other.read_bytes()[: 20 * PAGE])
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    until("somebody can look", lambda: count_or_none(node, db) == "3000|1\nok")
    if "in place" not in how:
        bad = workspace.base / "bad.db"
        bad.write_text("no database\n" * 1000)
        assert run(command(bad)).code != 0
        until("somebody can look", lambda: count_or_none(node, db) == "3000|1\nok")
    assert node.database(db)["version"] == version
    assert run(command(other)).code == 0
    assert count(node, db) == "3000|9001\nok"


def test_redirection_of_nothing_empties_the_database(node, workspace, db):
    good = make(workspace.base / "good.db")
    for script in (": > DB", "exec 3>DB; true; exec 3>&-", "true > DB"):
        assert copy(good, node.path(db)).code == 0
        version = node.database(db)["version"]
        assert run(["bash", "-c", script.replace("DB", str(node.path(db)))]).code == 0
        assert node.database(db)["version"] == version + 1
        assert sql(node, db, "SELECT count(*) FROM sqlite_schema") == "0"


def test_several_commands_write_one_copy(node, workspace, db):
    good = make(workspace.base / "good.db")
    parts = [workspace.base / "head", workspace.base / "tail"]
    content = good.read_bytes()
    parts[0].write_bytes(content[: 10 * PAGE])
    parts[1].write_bytes(content[10 * PAGE :])
    run(["sh", "-c", f"{{ true; cat {parts[0]}; true; cat {parts[1]}; }} > {node.path(db)}"])
    assert count(node, db) == "2000|1\nok"


def test_child_of_who_copies_commits_nothing(node, workspace, db):
    """It inherits the descriptor, and ends."""
    good = make(workspace.base / "good.db", 3000)
    other = make(workspace.base / "other.db", 3000, first=9001)
    assert copy(good, node.path(db)).code == 0
    version = node.database(db)["version"]
    script = """if True:
        import os, subprocess, sys
        content = open(sys.argv[1], "rb").read()
        half = len(content) // 2
        fd = os.open(sys.argv[2], os.O_RDWR)
        os.pwrite(fd, content[:half], 0)
        subprocess.run(["true"])
        if not os.fork():
            os._exit(0)
        os.wait()
        input()
        os.pwrite(fd, content[half:], half)
        os.close(fd)
        """
    process = subprocess.Popen(
        [PYTHON, "-c", script, str(other), str(node.path(db))], stdin=subprocess.PIPE
    )
    workspace.children.append(process)
    time.sleep(0.5)
    assert node.database(db)["version"] == version
    process.communicate(b"\n", 20)
    assert process.returncode == 0
    assert node.database(db)["version"] == version + 1
    assert count(node, db) == "3000|9001\nok"


def test_failed_write_in_place_commits_nothing(workspace, db):
    """The copy is not whole, even if its header says so."""
    from harness import Node

    node = Node(workspace, "n1", options=["--max-transaction", "1M"]).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    small = make(workspace.base / "small.db", 1000)
    other = make(workspace.base / "other.db", 20000, first=90001)
    assert copy(small, node.path(db)).code == 0
    for first in (5001, 9001):
        sql(
            node,
            db,
            f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i+1 FROM n LIMIT 2500)"
            "INSERT INTO t SELECT i, hex(randomblob(100)) FROM n;",
        )
    size = node.path(db).stat().st_size
    assert size > 2**20
    content = other.read_bytes()[:size]
    content = content[:28] + (size // PAGE).to_bytes(4, "big") + content[32:]
    other.write_bytes(content)
    result = run(["dd", f"if={other}", f"of={node.path(db)}", "bs=4k", "conv=notrunc"])
    assert result.code != 0 and "No space" in result.err, result
    assert count(node, db) == "6000|1\nok"


def test_reader_elsewhere_whose_cache_holds_all_notices_a_replaced_database(
    shared_cluster, workspace, db
):
    """In WAL mode it looks at nothing but the wal-index."""
    leader = shared_cluster.leader()
    old = make(workspace.base / "old.db", rows=20, mode="wal")
    new = make(workspace.base / "new.db", rows=20, mode="wal", first=5001)
    assert copy(old, leader.path(db)).code == 0
    shared_cluster.wait_equal()
    readers = [Connection(node, db, busy_ms=5000) for node in shared_cluster.followers()]
    for reader in readers:
        assert reader.value("SELECT max(i) FROM t") == 20
    sql(leader, db, "INSERT INTO t VALUES(3000, 'in the -wal of the others')")
    shared_cluster.wait_equal()
    for reader in readers:
        assert reader.value("SELECT max(i) FROM t") == 3000
    assert copy(new, leader.path(db)).code == 0
    shared_cluster.wait_equal()
    for reader in readers:
        with pytest.raises(SqlError, match="IOERR"):
            reader.value("SELECT max(i) FROM t")
        reader.close()
    for node in shared_cluster.nodes:
        assert count(node, db) == "20|5001\nok"
    shared_cluster.check_sound(db)


MANY_LOCKS = """if True:
    import fcntl, sys
    file = open(sys.argv[1], "w+")
    for at in range(0, 1000, 2):  # each a lock of its own
        fcntl.lockf(file, fcntl.LOCK_EX, 1, at)
    print("ready", flush=True)
    while True:
        for at in range(0, 1000, 2):
            fcntl.lockf(file, fcntl.LOCK_UN, 1, at)
            fcntl.lockf(file, fcntl.LOCK_EX, 1, at)
    """


@pytest.mark.parametrize("journal", ["DELETE", "MEMORY"])
def test_writers_are_known_among_many_locks_that_come_and_go(node, workspace, db, journal):
    """The kernel lists locks in pieces, of different moments."""
    command = [PYTHON, "-c", MANY_LOCKS, str(workspace.base / "locked")]
    busy = subprocess.Popen(command, stdout=subprocess.PIPE)
    workspace.children.append(busy)
    assert busy.stdout.readline() == b"ready\n"
    sql(node, db, "CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    with Connection(node, db, busy_ms=5000) as a, Connection(node, db, busy_ms=5000) as b:
        for writer in (a, b):
            writer.execute(f"PRAGMA journal_mode={journal}")
        for number in range(300):
            (a, b)[number % 2].execute(f"INSERT INTO t VALUES({number}, 'x')")
    busy.kill()
    assert sql(node, db, "SELECT count(*) FROM t; PRAGMA integrity_check") == "300\nok"
