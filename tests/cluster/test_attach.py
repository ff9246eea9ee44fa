"""Transactions over several databases: on every node, and after any crash, in all of them or in none."""

import random
import threading
import time

import pytest
from harness import Cluster, Connection, Hang, Node, SqlError, sql, sql_file, until
from test_application_death import run_killed
from test_log_command import log, objects

TURNS = "SELECT DISTINCT turn FROM t ORDER BY turn"
JOURNALS = ["DELETE", "TRUNCATE", "PERSIST"]


def pair(db):
    return db, db[:-3] + "_b.db"


def make(node, db, journal="DELETE"):
    """Two databases, and the statement that attaches the second; rows carry a turn."""
    a, b = pair(db)
    for name in (a, b):
        sql(node, name, f"PRAGMA journal_mode={journal}; CREATE TABLE t(turn, body)")
    return a, b, attach(node, b, journal)


def attach(node, b, journal="DELETE"):
    return (
        f"ATTACH '{node.path(b)}' AS o; PRAGMA journal_mode={journal};"
        f" PRAGMA o.journal_mode={journal};"
    )


def both(turn, body="'x'"):
    return (
        f"BEGIN; INSERT INTO t VALUES({turn}, {body}); INSERT INTO o.t VALUES({turn}, {body});"
        " COMMIT;"
    )


def turns(node, name, busy_ms=10000):
    return [int(line) for line in sql(node, name, TURNS, busy_ms=busy_ms).splitlines()]


def leftovers(node, db=""):
    """Super-journals that are still there, in the mount or beneath it."""
    return [
        path.name
        for folder in (node.mnt, node.data)
        for path in folder.iterdir()
        if "-mj" in path.name and path.name.startswith(db[:-3])
    ]


# --- commits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", JOURNALS)
def test_transaction_over_several_is_one_entry(shared_cluster, db, journal):
    cluster, leader = shared_cluster, shared_cluster.leader()
    a, b, prepare = make(leader, db, journal)
    before = leader.database(a)["version"], leader.database(b)["version"]
    index = leader.status()["commit_index"]
    sql(leader, a, prepare + both(1) + both(2, "randomblob(9000)"))
    assert leader.status()["commit_index"] == index + 2
    assert (leader.database(a)["version"], leader.database(b)["version"]) == (
        before[0] + 2,
        before[1] + 2,
    )
    for name in (a, b):
        cluster.check_sound(name)
        assert cluster.wait_same(name, TURNS) == "1\n2"
    # larger than an entry, in one of them and in both
    sql(leader, a, prepare + both(3, "randomblob(4000000)"))
    sql(
        leader,
        a,
        prepare + "BEGIN; INSERT INTO t VALUES(4, 1);"
        "INSERT INTO o.t VALUES(4, randomblob(2500000)); COMMIT",
    )
    # three
    c = db[:-3] + "_c.db"
    sql(
        leader,
        a,
        prepare + f"ATTACH '{leader.path(c)}' AS p; CREATE TABLE p.t(turn, body);"
        "BEGIN; INSERT INTO t VALUES(5, 1); INSERT INTO o.t VALUES(5, 1);"
        "INSERT INTO p.t VALUES(5, 1); COMMIT;",
    )
    for name in (a, b):
        cluster.check_sound(name)
        assert cluster.wait_same(name, TURNS) == "1\n2\n3\n4\n5"
    assert cluster.wait_same(c, TURNS) == "5"
    assert not leftovers(leader, db)


def test_parts_that_left_before_the_commit_are_those_of_the_group(shared_cluster, db):
    """Of large ones most pages are sent while SQLite still writes; some of them change again."""
    cluster, leader = shared_cluster, shared_cluster.leader()
    a, b, prepare = make(leader, db)
    for name in (a, b):
        sql(leader, name, "CREATE INDEX i ON t(body)")
    fill = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<7000)"
        " INSERT INTO {}.t SELECT i, randomblob(3000) FROM n;"
    )
    prepare += "PRAGMA main.cache_size=100; PRAGMA o.cache_size=100; BEGIN;"
    script = prepare + fill.format("main") + fill.format("o")
    sql(leader, a, script + "ROLLBACK;", timeout=60)
    script += "DELETE FROM t WHERE turn%3=0; UPDATE o.t SET body='short' WHERE turn>5000;"
    sql(leader, a, script + "COMMIT;", timeout=60)
    sql(leader, a, prepare + "DELETE FROM t WHERE turn>10; DELETE FROM o.t; COMMIT;", timeout=60)
    for name in (a, b):
        cluster.check_sound(name, 60)
    assert cluster.wait_same(a, TURNS).split() == ["1", "2", "4", "5", "7", "8", "10"]
    assert cluster.wait_same(b, TURNS) == ""


def test_reader_of_both_sees_a_transaction_in_both_or_in_none(shared_cluster, db):
    """In one statement, so in one read transaction over both, on every node."""
    cluster, leader = shared_cluster, shared_cluster.leader()
    a, b, _ = make(leader, db)
    cluster.check_sound(a)
    cluster.check_sound(b)
    query = "SELECT (SELECT max(turn) FROM t), (SELECT max(turn) FROM o.t)"
    stop, wrong, seen = threading.Event(), [], {}

    def read(node):
        with Connection(node, a, busy_ms=20000, timeout=60) as reader:
            reader.execute(f"ATTACH '{node.path(b)}' AS o")
            while not stop.is_set():
                one, other = reader.execute(query)[0]
                seen[node] = one
                if one != other:
                    wrong.append((node, one, other))
                time.sleep(0.002)

    threads = [threading.Thread(target=read, args=(node,)) for node in cluster.nodes]
    for thread in threads:
        thread.start()
    try:
        with Connection(leader, a, busy_ms=20000, timeout=60) as writer:
            writer.execute(f"ATTACH '{leader.path(b)}' AS o")
            for turn in range(120):
                writer.execute("BEGIN IMMEDIATE")
                writer.execute("INSERT INTO t VALUES(?, randomblob(300))", turn)
                writer.execute("INSERT INTO o.t VALUES(?, randomblob(300))", turn)
                writer.execute("COMMIT")
                time.sleep(0.01)
        until("readers have seen the last", lambda: all(seen.get(n) == 119 for n in cluster.nodes))
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not wrong


def test_refused_transaction_is_rolled_back_in_both(workspace, db):
    """No majority: SQLite takes back what it wrote to either, and goes on later."""
    cluster = Cluster(workspace, options=["--commit-timeout", "1"]).start()
    leader = cluster.leader()
    a, b, _ = make(leader, db)
    with Connection(leader, a, busy_ms=2000, timeout=30) as writer:
        writer.execute(f"ATTACH '{leader.path(b)}' AS o")
        for sentence in both(1).split(";")[:-1]:
            writer.execute(sentence)
        cluster.check_sound(b)
        dead = [node for node in cluster.nodes if node is not leader]
        for node in dead:
            node.kill9()
        for sentence in both(2).split(";")[:-2]:
            writer.execute(sentence)
        with pytest.raises(SqlError, match="SQLITE_IOERR"):
            writer.execute("COMMIT")
        try:
            writer.execute("ROLLBACK")
        except SqlError:
            pass  # SQLite has done it already
        for table in ("t", "o.t"):
            assert writer.execute(f"SELECT max(turn) FROM {table}") == [(1,)]
        dead[0].start()  # whose log is shorter: this one leads

        def again():
            try:
                for sentence in both(3).split(";")[:-1]:
                    writer.execute(sentence)
                return True
            except SqlError:
                try:
                    writer.execute("ROLLBACK")
                except SqlError:
                    pass
                return False

        until("writing goes on", again, 40, 0.2)
    dead[1].start()
    for name in (a, b):
        cluster.check_sound(name)
    seen = cluster.wait_same(a, TURNS).split()
    assert seen == cluster.wait_same(b, TURNS).split()
    assert seen in (["1", "3"], ["1", "2", "3"])
    assert not leftovers(leader)


# --- applications that die -----------------------------------------------------------------------

SCRIPT = "BEGIN; INSERT INTO t VALUES({turn}, 1); INSERT INTO o.t VALUES({turn}, 1); COMMIT;"
SPILLING = """
PRAGMA main.cache_size=2; PRAGMA o.cache_size=2; BEGIN;
INSERT INTO t SELECT {turn}, randomblob(700) FROM (VALUES(1),(2),(3),(4),(5),(6),(7),(8),(9));
INSERT INTO o.t SELECT {turn}, randomblob(700) FROM (VALUES(1),(2),(3),(4),(5),(6),(7),(8),(9));
COMMIT;
"""


@pytest.mark.limit(240)
@pytest.mark.parametrize("script", [SCRIPT, SPILLING], ids=["small", "spill"])
@pytest.mark.parametrize(
    "journal, call, suffix",
    [
        ("DELETE", "unlink", "-mj*"),
        ("DELETE", "pwrite", "-mj*"),
        ("DELETE", "pwrite", "-journal"),
        ("DELETE", "pwrite", ".db"),
        ("DELETE", "fdatasync", ".db"),
        ("DELETE", "unlink", "-journal"),
        ("TRUNCATE", "ftruncate", "-journal"),
        ("PERSIST", "ftruncate", "-journal"),
        ("PERSIST", "unlink", "-mj*"),
    ],
)
def test_killed_application_committed_both_or_none(
    shared_cluster, workspace, db, kill_at, journal, call, suffix, script, soak
):
    cluster, leader = shared_cluster, shared_cluster.leader()
    a, b, prepare = make(leader, db, journal)
    count_file = workspace.base / "count"
    turn = 0

    def killed(when, number):
        nonlocal turn
        turn += 1
        text = prepare + script.format(turn=turn)
        return run_killed(leader, a, text, kill_at, call, suffix, when, number, count_file)

    # those with an old snapshot, or none, of what the dead one left
    with Connection(leader, a, busy_ms=10000) as old:
        old.execute(f"ATTACH '{leader.path(b)}' AS o")
        assert not killed("after", 0)
        total = int(count_file.read_text())
        assert total > 0, "the library saw no such call"
        numbers = range(1, total + 1)
        if total > 16 and not soak:
            numbers = sorted({*range(1, 4), *range(total - 7, total + 1), *range(4, total, total // 6)})
        expected = {1}
        for number in numbers:
            for when in ("before", "after"):
                died = killed(when, number)
                where = f"killed {when} call {number} of {total}" if died else "not killed"
                # the second first: each finds its own journal
                seen_b, seen_a = turns(leader, b), turns(leader, a)
                assert seen_a == seen_b, f"{where}: {seen_a} and {seen_b}"
                assert set(seen_a) - {turn} == expected, where
                assert died or turn in seen_a
                expected = set(seen_a)
                rows = old.execute("SELECT turn FROM t UNION SELECT turn FROM o.t")
                assert {row[0] for row in rows} == expected, where
        if call != "pwrite" or suffix == ".db":  # else no journal may have named it yet
            assert not leftovers(leader, db)
        # and a writer goes on
        sql(leader, a, prepare + script.format(turn=-1), busy_ms=10000)
    for name in (a, b):
        cluster.check_sound(name)
        seen = cluster.wait_same(name, TURNS).split()
        assert {int(word) for word in seen} == expected | {-1}


# --- nodes that die ------------------------------------------------------------------------------


def write_until_it_fails(node, a, b, first, acknowledged, stop):
    """Transactions over both, until the node is no more; the acknowledged ones."""
    turn = first
    try:
        with Connection(node, a, busy_ms=5000, timeout=30) as writer:
            writer.execute(f"ATTACH '{node.path(b)}' AS o")
            while not stop.is_set():
                try:
                    writer.execute("BEGIN IMMEDIATE")
                    size = random.choice((10, 300, 5000, 1500000))
                    writer.execute("INSERT INTO t VALUES(?, randomblob(?))", turn, size)
                    writer.execute("INSERT INTO o.t VALUES(?, randomblob(?))", turn, size)
                    writer.execute("COMMIT")
                    acknowledged.append(turn)
                except SqlError:
                    if not node.running:
                        return
                    try:
                        writer.execute("ROLLBACK")
                    except SqlError:
                        pass
                    time.sleep(0.02)
                turn += 1
    except (SqlError, EOFError, OSError, Hang):
        pass  # the mount is dead


def check_pairs(cluster, a, b, acknowledged):
    for name in (a, b):
        cluster.check_sound(name, 60)
    seen = cluster.wait_same(a, TURNS).split()
    assert seen == cluster.wait_same(b, TURNS).split(), "in one, not in the other"
    missing = {str(turn) for turn in acknowledged} - set(seen)
    assert not missing, f"acknowledged {missing} are missing"


@pytest.mark.limit(240)
def test_leader_killed_midway_leaves_both_or_none_on_every_node(cluster, db, soak):
    a, b, _ = make(cluster.leader(), db)
    acknowledged = []
    for round in range(30 if soak else 3):
        leader = cluster.wait_follows(30)
        stop = threading.Event()
        until("databases are there", lambda: leader.database(a) and leader.database(b))
        thread = threading.Thread(
            target=write_until_it_fails, args=(leader, a, b, round * 10000, acknowledged, stop)
        )
        thread.start()
        time.sleep(0.5 + random.random() * 0.7)
        leader.kill9()
        stop.set()
        thread.join(60)
        cluster.wait_leader(30)
        check_pairs(cluster, a, b, acknowledged)
        cluster.restart_dead()
        check_pairs(cluster, a, b, acknowledged)
    assert len(acknowledged) > 10
    for node in cluster.nodes:
        assert not leftovers(node)


@pytest.mark.limit(300)
@pytest.mark.parametrize("count", [1, 3], ids=["alone", "three"])
def test_restart_between_durable_points_finds_both_or_none(workspace, db, count, soak):
    """The log is short, so that points are taken while transactions come; other databases come and
    go meanwhile, and take part in some."""
    cluster = Cluster(workspace, count, options=("--log-size", "16M", "--commit-timeout", "3"))
    cluster.start()
    a, b, _ = make(cluster.wait_leader(), db)
    acknowledged = []

    def come_and_go(node, stop):
        third = db[:-3] + "_c.db"
        while not stop.is_set():
            try:
                prepare = f"ATTACH '{node.path(b)}' AS o; CREATE TABLE IF NOT EXISTS u(x);"
                change = "UPDATE o.t SET body=randomblob(100) WHERE rowid<20"
                script = prepare + 20 * f"BEGIN; INSERT INTO u VALUES(1); {change}; COMMIT;"
                sql(node, third, script, busy_ms=4000, timeout=30)
                node.path(third).unlink()
            except (SqlError, OSError, AssertionError):
                time.sleep(0.05)

    for round in range(12 if soak else 2):
        leader = cluster.wait_follows(30)
        stop = threading.Event()
        until("databases are there", lambda: leader.database(a) and leader.database(b))
        threads = [
            threading.Thread(
                target=write_until_it_fails, args=(leader, a, b, round * 10000, acknowledged, stop)
            ),
            threading.Thread(target=come_and_go, args=(leader, stop)),
        ]
        for thread in threads:
            thread.start()
        time.sleep(4 + random.random())
        if round % 2:
            for node in cluster.nodes:
                if node is not leader:
                    node.kill9()
        leader.kill9()
        stop.set()
        for thread in threads:
            thread.join(60)
        for node in cluster.nodes:
            if not node.running:
                node.launch()
        for node in cluster.nodes:
            node.wait_mounted(30)
        cluster.wait_follows(30)
        check_pairs(cluster, a, b, acknowledged)
    assert any(node.status()["log"]["first_index"] > 1 for node in cluster.nodes)
    assert len(acknowledged) > 10


def test_log_command_shows_what_a_group_does_to_each(node, db):
    a, b, prepare = make(node, db)
    sql(node, a, prepare + both(1))
    versions = [node.database(name)["version"] for name in (a, b)]
    node.kill9()
    found = objects(log(node, "--json"))
    groups = [entry for entry in found["entry"] if entry["type"] == "group"]
    assert len(groups) == 1
    assert groups[0]["effect"] is True
    members = groups[0]["members"]
    assert [member["database"] for member in members] == [a, b]
    assert [member["version"] for member in members] == versions
    assert all(member["mode"] == "rollback" for member in members)
    assert {item["name"]: item["version"] for item in found["database"]} == {
        a: versions[0],
        b: versions[1],
    }
    text = log(node).out
    line = next(line for line in text.splitlines() if " group " in line)
    assert a in line and b in line, line
    node.start()
    assert turns(node, b) == [1]


# --- one of the databases is elsewhere ------------------------------------------------------------


@pytest.fixture
def local(workspace):
    """A database on the local disk."""
    return workspace.base / "local.db"


def local_script(node, b, turn):
    return f"ATTACH '{node.path(b)}' AS o;" + both(turn)


def local_turns(local):
    return [int(line) for line in sql_file(local, TURNS, busy_ms=5000).splitlines()]


@pytest.mark.parametrize("journal", JOURNALS)
def test_refused_commit_of_one_elsewhere_is_undone(
    workspace, local, db, journal
):
    """The main database is local: SQLite heeds no error after its super-journal is gone."""
    cluster = Cluster(workspace, options=["--commit-timeout", "1"]).start()
    leader = cluster.leader()
    _, b = pair(db)
    modes = f"PRAGMA journal_mode={journal}; PRAGMA o.journal_mode={journal};"
    sql(leader, b, "CREATE TABLE t(turn, body)")
    sql_file(local, "CREATE TABLE t(turn, body)")
    script = f"ATTACH '{leader.path(b)}' AS o;" + modes
    sql_file(local, script + both(1))
    assert local_turns(local) == turns(leader, b) == [1]
    cluster.check_sound(b)
    dead = [node for node in cluster.nodes if node is not leader]
    for node in dead:
        node.kill9()
    with pytest.raises(SqlError, match="disk I/O error"):
        sql_file(local, script + both(2))
    assert local_turns(local) == turns(leader, b) == [1]
    dead[0].start()  # whose log is shorter: this one leads

    def again():
        try:
            sql_file(local, script + both(3), busy_ms=5000)
            return True
        except SqlError:
            return False

    until("writing goes on", again, 30, 0.2)
    dead[1].start()
    assert local_turns(local) == [1, 3]
    seen = cluster.wait_same(b, TURNS).split()
    # the outcome of the second was unknown: what is left alone of it is in this one
    assert seen in (["1", "3"], ["1", "2", "3"])
    cluster.check_sound(b)


@pytest.mark.limit(240)
@pytest.mark.parametrize(
    "call, suffix",
    [
        ("unlink", "-mj*"),
        ("fdatasync", ".db"),
        ("pwrite", ".db"),
        ("pwrite", "-journal"),
        ("unlink", "-journal"),
    ],
)
@pytest.mark.parametrize("main", ["local", "mounted"])
def test_killed_application_with_one_elsewhere(
    shared_cluster, workspace, local, db, kill_at, call, suffix, main
):
    cluster, leader = shared_cluster, shared_cluster.leader()
    _, b = pair(db)
    count_file = workspace.base / "count"
    sql(leader, b, "CREATE TABLE t(turn, body)")
    sql_file(local, "CREATE TABLE t(turn, body)")

    class Main:  # where the application begins
        @staticmethod
        def path(_):
            return local if main == "local" else leader.path(b)

    other = leader.path(b) if main == "local" else local
    turn = 0

    def killed(when, number):
        nonlocal turn
        turn += 1
        text = f"ATTACH '{other}' AS o;" + both(turn)
        return run_killed(Main, b, text, kill_at, call, suffix, when, number, count_file)

    assert not killed("after", 0)
    total = int(count_file.read_text())
    assert total > 0
    expected = [1]
    for number in range(1, total + 1):
        for when in ("before", "after"):
            died = killed(when, number)
            where = f"killed {when} call {number} of {total}" if died else "not killed"
            # who rolls the last journal back removes the super-journal
            first, second = (
                (turns(leader, b), local_turns(local))
                if number % 2
                else tuple(reversed((local_turns(local), turns(leader, b))))
            )
            assert first == second, f"{where}: {first} in the mount, {second} beside it"
            assert [t for t in first if t != turn] == expected, where
            assert died or turn in first
            expected = first
    if call != "pwrite" or suffix == ".db":  # else no journal may have named it yet
        assert not leftovers(leader, db)
    cluster.check_sound(b)
    assert [int(word) for word in cluster.wait_same(b, TURNS).split()] == expected
