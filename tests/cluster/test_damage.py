"""Damage on a disk: flipped bits, lost, cut, old and foreign files, in the databases and in what a node
keeps about them. It repairs itself from its peers or says which file it is and what to do. What
applications read is right, or an error; never anything else."""

import os
import shutil
import time

import pytest
from conftest import Reused
from fetching import PAGE, Fetches, fill, push_log
from harness import (
    PROGRAM,
    Cluster,
    Connection,
    Hang,
    Node,
    SqlError,
    drop_cache,
    flip,
    run,
    sql,
    sql_file,
    until,
)

OPTIONS = ["--log-size", "16M", "--election-timeout", "3000"]
LARGE = "large.db"
PAGES = 2000
SUM = "SELECT count(*), sum(i), sum(length(x)) FROM t;"


def load(cluster):
    cluster.start()
    fill(cluster.wait_leader(), LARGE, PAGES)
    cluster.wait_equal(60)
    return cluster


@pytest.fixture(scope="module")
def reused_damaged():
    reused = Reused(lambda workspace: load(Cluster(workspace, options=OPTIONS, prefix="hurt")))
    yield reused
    reused.close()


@pytest.fixture
def hurt(reused_damaged):
    """Three nodes with a large database; a test leaves them running and sound."""
    cluster = reused_damaged.get()
    cluster.wait_follows()
    return cluster


@pytest.fixture
def victim(hurt):
    return hurt.followers()[0]


def backing_pages(node, db):
    """The pages that the files in the data directory hold, the -wal's included."""
    copy = node.workspace.base / f"copy-{node.name}.db"
    for suffix in ("", "-wal"):
        if (node.data / f"{db}{suffix}").exists():
            shutil.copy(node.data / f"{db}{suffix}", f"{copy}{suffix}")
    assert sql_file(copy, "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA integrity_check;").endswith("ok")
    content = copy.read_bytes()
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(f"{copy}{suffix}"):
            os.unlink(f"{copy}{suffix}")
    return [content[at : at + PAGE] for at in range(0, len(content), PAGE)]


def check_backing(cluster, db):
    """Page by page the same on the disks of all nodes."""
    first, *others = [backing_pages(node, db) for node in cluster.running]
    for other in others:
        assert len(first) == len(other)
        differ = [i + 1 for i, pages in enumerate(zip(first, other)) if pages[0] != pages[1]]
        assert not differ, f"pages {differ[:10]} differ"


def read_until_right(node, db, query, right, timeout=60):
    """What is read is right or an error, at any time, until it is right."""

    def check():
        try:
            seen = sql(node, db, query, busy_ms=5000, timeout=timeout)
        except SqlError:
            return False
        if seen != right:
            raise Hang(f"{node} reads {seen!r} instead of {right!r}")
        return True

    until(f"{node} reads {db}", check, timeout, 0.1)


def finish(cluster, *names):
    for name in (LARGE, *names):
        cluster.check_sound(name, 60)
        check_backing(cluster, name)


# ---- the database file -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["follower", "leader"])
def test_flipped_byte_that_is_read_is_an_error_and_repaired(hurt, where):
    leader = hurt.wait_leader()
    node = leader if where == "leader" else hurt.followers()[0]
    right = sql(node, LARGE, SUM)
    seen = Fetches(node)
    drop_cache(node, LARGE)
    flip(node.data / LARGE, PAGE * 777 + 1000)
    with pytest.raises(SqlError, match="I/O|malformed|open"):
        sql(node, LARGE, SUM)
    read_until_right(node, LARGE, SUM, right)
    compared, fetched = seen.wait()
    assert 1 <= fetched < 100
    assert len(seen.done()) == 1, seen.text()
    assert "page=778" in seen.text()
    leader = hurt.wait_leader(30)
    sql(leader, LARGE, "UPDATE t SET x = x || 'more' WHERE i = 5;", busy_ms=20000)
    finish(hurt)


def test_flipped_byte_that_nobody_reads_is_found_and_repaired(hurt, victim):
    victim.stop()
    flip(victim.data / LARGE, PAGE * 1500 + 77)
    seen = Fetches(victim)
    victim.options += ["--scrub-rate", "1G"]
    victim.start(timeout=60)
    del victim.options[-2:]
    compared, fetched = seen.wait()
    assert 1 <= fetched < 100 and "page=1501" in seen.text()
    finish(hurt)


def harm_removed(path, old):
    path.unlink()


def harm_cut(path, old):
    os.truncate(path, PAGE * 900 + 100)


def harm_empty(path, old):
    os.truncate(path, 0)


def harm_zeros(path, old):
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def harm_old(path, old):
    shutil.copy(old, path)


def harm_foreign(path, old):
    path.unlink()
    sql_file(path, "CREATE TABLE t(i, x); INSERT INTO t VALUES(1, 'foreign');")


def harm_longer(path, old):
    with open(path, "ab") as file:
        file.write(os.urandom(PAGE * 10))


HARMS = [harm_removed, harm_cut, harm_empty, harm_zeros, harm_old, harm_foreign, harm_longer]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_file_exchanged_while_the_node_is_down_is_repaired(hurt, victim, workspace, harm):
    old = workspace.base / "old.db"
    victim.stop()
    shutil.copy(victim.data / LARGE, old)
    victim.start()
    leader = hurt.wait_follows()
    sql(leader, LARGE, "UPDATE t SET x = randomblob(3900) WHERE i % 20 = 3;", busy_ms=20000)
    hurt.wait_equal()
    right = sql(leader, LARGE, SUM)
    content = sql(leader, LARGE, ".sha3sum")
    victim.stop()
    harm(victim.data / LARGE, old)
    victim.start(timeout=60)
    read_until_right(victim, LARGE, SUM, right)
    read_until_right(victim, LARGE, ".sha3sum", content)
    sql(leader, LARGE, "UPDATE t SET x = randomblob(3900) WHERE i % 50 = 3;", busy_ms=20000)
    finish(hurt)


@pytest.mark.parametrize("asks", ["reader", "replication"])
def test_removed_file_of_an_idle_database_is_fetched(workspace, db, asks):
    """Nobody has it open, the daemon neither."""
    cluster = Cluster(workspace, options=OPTIONS).start()
    fill(cluster.wait_leader(), db, 300)
    cluster.wait_equal()
    victim = cluster.followers()[0]
    victim.stop()  # which makes it durable
    victim.start()
    cluster.wait_equal()
    (victim.data / db).unlink()
    if asks == "replication":
        sql(cluster.wait_leader(), db, "INSERT INTO t VALUES(301, 'x');", busy_ms=5000)
        until("it is fetched", lambda: (victim.data / db).exists())
    read_until_right(victim, db, "SELECT count(*) > 299 FROM t", "1")
    # (who looks first may be the proof at the end of the restart)
    assert "getting it from the leader" in victim.log_text()
    cluster.check_sound(db, 60)
    check_backing(cluster, db)


def test_node_alone_goes_on_without_a_file_that_was_removed(workspace):
    node = Node(workspace, "n1", options=OPTIONS).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    fill(node, "bad.db", 100)
    fill(node, "good.db", 100)
    node.stop()
    node.start()
    (node.data / "bad.db").unlink()
    with pytest.raises(SqlError):
        sql(node, "bad.db", SUM)
    assert "no other node has a copy" in node.log_text()
    sql(node, "good.db", "INSERT INTO t VALUES(999999, 'x');")
    push_log(node, "pushed.db", sorted((node.data / ".dqlitefs/raft").glob("segment-*.log")))
    assert run(["rm", str(node.path("bad.db"))]).code == 0
    sql(node, "bad.db", "CREATE TABLE fresh(x); INSERT INTO fresh VALUES(1);", busy_ms=5000)
    node.stop()
    node.start()
    assert sql(node, "bad.db", "SELECT x FROM fresh; PRAGMA integrity_check;") == "1\nok"
    assert sql(node, "good.db", "SELECT count(*) FROM t") == "101"


def test_removed_file_of_a_node_that_was_started_alone_before_is_repaired(workspace, db):
    """At its first start nobody is there who could help: what stands in for the file must not be
    taken for it by the next."""
    cluster = Cluster(workspace, options=OPTIONS).start()
    fill(cluster.wait_leader(), db, 300)
    cluster.wait_equal()
    victim = cluster.followers()[0]
    victim.stop()
    for node in cluster.running:
        node.kill9()
    (victim.data / db).unlink()
    for _ in range(2):
        victim.launch()
        time.sleep(1)
        victim.kill9()
    for node in cluster.nodes:
        node.launch()
    for node in cluster.nodes:
        node.wait_mounted(60)
    cluster.wait_follows(30)
    read_until_right(victim, db, "SELECT count(*) FROM t", "300")
    cluster.check_sound(db, 60)
    result = run([PROGRAM, "transfer", str(cluster.wait_leader().mnt), "--to", victim.address])
    assert result.code == 0 or cluster.leader() is victim, result
    until("the repaired one leads", lambda: cluster.leader() is victim)
    sql(victim, db, "INSERT INTO t VALUES(301, 'x');", busy_ms=10000)
    cluster.check_sound(db, 60)
    check_backing(cluster, db)
    assert cluster.wait_same(db, "SELECT count(*) FROM t") == "301"


# ---- what a node keeps beside them -------------------------------------------------------------------


def first_segment(node):
    return node.data / ".dqlitefs/raft/segment-0000000000000001.log"


def offsets_of(path):
    size = path.stat().st_size
    return sorted({0, 9, 21, 40, size // 3, size // 2, size - 5})


def start_or_refuse(node, name):
    """Starts the node. True: it runs. Else it ended with a line that names the file and the remedy."""
    skip = len(node.log_text())
    node.launch()
    try:
        node.wait_mounted(30)
        return True
    except AssertionError:
        text = node.log_text()[skip:]
        assert node.process.poll() == 1, text
        line = text.splitlines()[-1]
        assert f"file={name}" in line and "remove its data directory and join again" in line, line
        return False


def check_harmed(cluster, victim, path, offset, runs):
    """Whatever became of it: right or nothing; and with the byte put right, it starts."""
    if not runs:
        flip(path, offset, 4)
        victim.start(timeout=60)
    right = sql(cluster.wait_leader(), LARGE, SUM)
    read_until_right(victim, LARGE, SUM, right)
    cluster.wait_equal(60)


@pytest.mark.parametrize("which", ["sums", "meta", "snapshot", "first segment"])
def test_flipped_bit_beside_the_databases_is_repaired_or_named(hurt, victim, which):
    push_log(hurt.wait_leader(), "pushed.db", [first_segment(victim)])
    state = victim.data / ".dqlitefs"
    refusals = 0
    offsets = None
    turn = 0
    while offsets is None or turn < len(offsets):
        victim.stop()
        if which == "sums":
            path = max(state.glob("sums-*"), key=lambda path: path.stat().st_size)
        elif which == "first segment":
            path = min((state / "raft").glob("segment-*.log"))
        else:
            path = state / "raft" / which
        offsets = offsets or offsets_of(path)
        if which == "snapshot":  # there is little in it
            offsets = [0, 9, 21, 40, 60]
        if which == "first segment":  # where there surely is something
            offsets = [0, 20, 4096 + 8, 4096 + 20, 4096 + 200, 4096 * 9]
        offset = min(offsets[turn], path.stat().st_size - 1)
        flip(path, offset, 4)
        runs = start_or_refuse(victim, path.name)
        refusals += not runs
        check_harmed(hurt, victim, path, offset, runs)
        turn += 1
    if which in ("snapshot", "first segment"):
        assert refusals == len(offsets), f"{refusals} of {len(offsets)} were noticed"
    finish(hurt)


def test_damage_at_the_end_of_the_log_is_taken_for_a_torn_write_and_made_good(hurt, victim):
    """Nothing valid follows: it looks as a crash in the middle of a write. The leader has it."""
    sql(hurt.wait_leader(), LARGE, "UPDATE t SET x = randomblob(3900) WHERE i = 7;", busy_ms=20000)
    hurt.wait_equal()
    victim.stop()
    path = max((victim.data / ".dqlitefs/raft").glob("segment-*.log"))
    content = path.read_bytes().rstrip(b"\0")
    flip(path, len(content) - 100)
    if start_or_refuse(victim, path.name):
        sql(hurt.wait_leader(), LARGE, "UPDATE t SET x = 'after' WHERE i = 8;", busy_ms=20000)
    else:
        flip(path, len(content) - 100)
        victim.start(timeout=60)
    finish(hurt)


@pytest.mark.parametrize("which", ["segment", "snapshot", "meta", "sums"])
def test_file_missing_beside_the_databases_is_repaired_or_named(hurt, victim, which):
    push_log(hurt.wait_leader(), "pushed.db", [first_segment(victim)])
    victim.stop()
    state = victim.data / ".dqlitefs"
    if which == "segment":
        path = sorted((state / "raft").glob("segment-*.log"))[0]
    elif which == "sums":
        path = max(state.glob("sums-*"), key=lambda path: path.stat().st_size)
    else:
        path = state / "raft" / which
    aside = victim.workspace.base / "aside"
    shutil.move(path, aside)
    # without its snapshot a log lacks its beginning
    named = "segment-" if which in ("segment", "snapshot") else path.name
    if not start_or_refuse(victim, named):
        shutil.move(aside, path)
        victim.start(timeout=60)
    else:
        aside.unlink()
    finish(hurt)


# ---- nobody to get it from ---------------------------------------------------------------------------


def test_node_alone_refuses_the_damaged_database_only(workspace):
    """And keeps all else, what is in a -wal for a reader's sake included; removed and restored from a
    backup, the damaged one works again."""
    node = Node(workspace, "n1", options=OPTIONS).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    raft = node.data / ".dqlitefs/raft"
    fill(node, "bad.db", 1500)
    fill(node, "good.db", 100)
    backup = workspace.base / "backup.db"
    sql(node, "bad.db", f".backup {backup}")
    with Connection(node, "good.db") as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t")
        sql(node, "good.db", "INSERT INTO t VALUES(999999, 'precious');")
        push_log(node, "pushed.db", sorted(raft.glob("segment-*.log")))
        drop_cache(node, "bad.db")
        flip(node.data / "bad.db", PAGE * 1000 + 100)
        with pytest.raises(SqlError):
            sql(node, "bad.db", SUM)
        until("it is said", lambda: "no other node has a copy" in node.log_text())
        for _ in range(3):
            with pytest.raises(SqlError):
                sql(node, "bad.db", "SELECT 1 FROM t WHERE i = 1;")
        assert reader.value("SELECT count(*) FROM t") == 100
        assert sql(node, "good.db", "SELECT count(*) FROM t") == "101"
        sql(node, "good.db", "INSERT INTO t VALUES(999998, 'more');")
    for restart in ("umount", "kill"):
        if restart == "umount":
            node.stop()
        else:
            node.kill9()
        node.start()
        assert sql(node, "good.db", "SELECT count(*) FROM t; PRAGMA integrity_check;") == "102\nok"
        with pytest.raises(SqlError):
            sql(node, "bad.db", SUM)
    assert run(["rm", str(node.path("bad.db"))]).code == 0
    assert not (node.data / "bad.db").exists()
    sql(node, "bad.db", f".restore {backup}", busy_ms=5000)
    assert sql(node, "bad.db", "SELECT count(*) FROM t; PRAGMA integrity_check;") == "1500\nok"
    node.kill9()
    node.start()
    assert sql(node, "bad.db", "SELECT count(*) FROM t; PRAGMA integrity_check;") == "1500\nok"


@pytest.mark.parametrize("which", ["file", "sums"])
def test_node_alone_starts_without_a_file_of_one_database(workspace, which):
    node = Node(workspace, "n1", options=OPTIONS).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    fill(node, "bad.db", 100)
    fill(node, "good.db", 100)
    push_log(node, "pushed.db", sorted((node.data / ".dqlitefs/raft").glob("segment-*.log")))
    node.stop()
    if which == "file":
        (node.data / "bad.db").unlink()
    else:
        first = min((node.data / ".dqlitefs").glob("sums-*"), key=lambda p: int(p.name[5:]))
        flip(first, 300)
    node.start()
    assert sql(node, "good.db", "SELECT count(*) FROM t; PRAGMA integrity_check;") == "100\nok"
    with pytest.raises(SqlError):
        sql(node, "bad.db", SUM)
    assert "bad.db" in node.log_text()
    assert run(["rm", str(node.path("bad.db"))]).code == 0
    sql(node, "bad.db", "CREATE TABLE fresh(x); INSERT INTO fresh VALUES(1);", busy_ms=5000)
    node.stop()
    node.start()
    assert sql(node, "bad.db", "SELECT x FROM fresh") == "1"
    assert sql(node, "good.db", "SELECT count(*) FROM t") == "100"
