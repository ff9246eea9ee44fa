"""A node whose databases are no use gets them from the leader: it is new, was away for longer than the
log reaches back, or its files are damaged. Only the pages that differ move; nobody else is disturbed.

Most tests need the fetch in the middle. A node is held there with SIGSTOP as soon as a part of a
file has come; or its leader is, where the node itself must go on running. An application that
commits all the time makes a fetch slow enough to meet it.
"""

import ctypes
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import Reused
from fetching import PAGE, Fetches, fill, mark, outgrow, push_log, segments
from harness import (
    SQLITE3,
    Cluster,
    Connection,
    Hang,
    Node,
    SqlError,
    Writer,
    drop_cache,
    flip,
    run,
    sql,
    until,
)

OPTIONS = ["--log-size", "16M", "--election-timeout", "3000"]
BIG = ["big1.db", "big2.db", "big3.db"]
BIG_PAGES = 4000  # of each of them, about


def size_of(node, names):
    """Of the files that have come so far, in pages."""
    total = 0
    for name in names:
        try:
            total += (node.data / name).stat().st_size // PAGE
        except FileNotFoundError:
            pass
    return total


def spoil(node, names):
    """Stop the node and take its files away: it has to get all of these."""
    node.stop()
    for name in names:
        (node.data / name).unlink()


def hold_in_the_middle(node, names, pages, held=None, join=None):
    """Start the node and pause `held` (itself) when it has fetched about that many pages."""
    seen = Fetches(node)
    node.launch(join)

    def there():
        assert node.running, f"{node} ended with {node.process.returncode}"
        return mark(node).exists() and size_of(node, names) >= pages

    until("a part of the databases has come", there, 60, 0.001)
    (held or node).pause()
    time.sleep(0.1)
    assert mark(node).exists() and not seen.done(), "it was over too soon to be met in the middle"
    return seen


def shut_connections(node, peer_port):
    """Break every connection that the daemon has to that port, as a network that resets them."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.pidfd_open(node.process.pid)
    inodes = set()
    count = 0
    for line in Path(f"/proc/{node.process.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].split(":")[1], 16) == peer_port:
            inodes.add(fields[9])
    for entry in Path(f"/proc/{node.process.pid}/fd").iterdir():
        target = os.readlink(entry)
        if target.startswith("socket:[") and target[8:-1] in inodes:
            fd = libc.syscall(438, handle, int(entry.name), 0)  # pidfd_getfd
            if fd >= 0:
                libc.shutdown(fd, 2)
                os.close(fd)
                count += 1
    os.close(handle)
    return count


def load(cluster):
    cluster.start()
    for name in BIG:
        fill(cluster.wait_leader(), name, BIG_PAGES)
    cluster.wait_equal(60)
    return cluster


@pytest.fixture(scope="module")
def reused_loaded():
    reused = Reused(lambda workspace: load(Cluster(workspace, options=OPTIONS, prefix="loaded")))
    yield reused
    reused.close()


@pytest.fixture
def loaded(reused_loaded, db):
    """Three nodes with large databases in which a test finds its own small one, `db`."""
    cluster = reused_loaded.get()
    cluster.wait_follows()
    yield cluster
    for node in cluster.nodes:
        if node.running and node.paused:
            node.resume()


@pytest.fixture
def busy(loaded, db):
    """An application that commits on the leader all the time."""
    writer = Writer([loaded.wait_leader()], db, "--pause-ms", 4, "--busy-ms", 20000)
    writer.wait_acks(5)
    yield writer
    writer.kill9()


def finish(cluster, writer=None):
    """All have everything, and nothing that was acknowledged is lost."""
    if writer:
        writer.stop()
        cluster.check_rows(Path(writer_path(writer)).name, [writer], timeout=60)
    cluster.wait_equal(60)
    for name in BIG:
        cluster.check_sound(name, 60)


def writer_path(writer):
    return writer.process.args[-1]


# ---- who has to fetch, and how much ------------------------------------------------------------------


def test_new_node_of_a_compacted_log_fetches(workspace, db):
    first = Node(workspace, "n1", options=OPTIONS).start()
    until("the node leads", lambda: first.status()["role"] == "leader")
    beginning = segments(first)
    fill(first, db, 3000)
    push_log(first, "pushed.db", beginning)
    second = Node(workspace, "n2", options=OPTIONS)
    seen = Fetches(second)
    second.start(join=first.address, timeout=60)
    cluster = Cluster(workspace, count=0)
    cluster.nodes = [first, second]
    cluster.wait_voters(2, 60)
    compared, fetched = seen.wait()
    assert (seen.begun(), len(seen.done())) == (1, 1), seen.text()
    pages = sum(first.database(name)["pages"] for name in (db, "pushed.db"))
    assert fetched == compared == pages
    assert not mark(second).exists()
    for name in (db, "pushed.db"):
        cluster.check_sound(name)
    # and from now on it follows by the log
    sql(first, db, "INSERT INTO t VALUES(-1, 'last');", busy_ms=5000)
    assert cluster.wait_same(db, "SELECT x FROM t WHERE i = -1") == "last"
    second.stop()
    second.start()
    cluster.check_sound(db)
    assert len(seen.done()) == 1


def test_follower_away_for_longer_than_the_log_fetches_only_what_differs(loaded, db):
    cluster = loaded
    leader, away = cluster.wait_leader(), cluster.followers()[0]
    cluster.wait_equal()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(i INTEGER PRIMARY KEY, x);")
    cluster.wait_equal()
    away.stop()
    before = {name: (away.data / name).read_bytes() for name in BIG}
    outgrow(leader, db)
    sql(leader, BIG[1], "UPDATE t SET x = randomblob(3900) WHERE i % 500 = 7;", busy_ms=20000)
    seen = Fetches(away)
    away.start(timeout=60)
    compared, fetched = seen.wait()
    cluster.check_sound(db, 60)
    finish(cluster)
    changed = 0
    for name in BIG:
        now = (away.data / name).read_bytes()
        changed += sum(
            now[at : at + PAGE] != before[name][at : at + PAGE] for at in range(0, len(now), PAGE)
        )
    changed += away.database(db)["pages"]
    total = sum(away.database(name)["pages"] for name in BIG + [db])
    assert len(seen.done()) == 1
    assert compared >= sum(away.database(name)["pages"] for name in BIG)
    # of the small one a few pages may be there already
    assert changed - 20 <= fetched <= changed, f"fetched {fetched}, changed {changed}"
    assert fetched < total / 5


def test_two_nodes_fetch_at_once_beside_a_busy_database(workspace, db):
    """Every commit makes the log longer, and each fetch asks for a durable point: neither may take
    from under the other what it needs. Each node needs exactly one round."""
    cluster = Cluster(workspace, options=OPTIONS)
    leader, *added = cluster.nodes
    leader.start()
    cluster.wait_leader()
    beginning = segments(leader)
    for name in BIG:
        fill(leader, name, 3000)
    push_log(leader, "pushed.db", beginning)
    writer = Writer([leader], db, "--body", 4000, "--rows", 20, "--pause-ms", 10)
    writer.wait_acks(5, 60)
    seen = [Fetches(node) for node in added]
    for node in added:
        node.launch(join=leader.address)
    for fetch in seen:
        until("the fetch began", fetch.begun, 60)
    acks = len(writer.acks())
    for fetch in seen:
        fetch.wait(90)
    assert len(writer.acks()) > acks, "no commit got through during the fetches"
    writer.wait_acks(20, 60)
    cluster.wait_voters(3, 60)
    writer.stop(60)
    assert not writer.fails()
    cluster.check_rows(db, [writer], 60)
    for name in BIG:
        cluster.check_sound(name, 60)
    for node, fetch in zip(added, seen):
        assert (fetch.begun(), len(fetch.done())) == (1, 1), f"{node}: {fetch.text()}"


def test_fetch_soon_after_another_gets_what_its_log_goes_on_from(loaded, db):
    """The leader keeps the snapshot that it gave to one for the next one, for a while. But that one's
    own log may begin behind it by then."""
    leader = loaded.wait_leader()
    first, second = loaded.followers()
    spoil(first, BIG[:1])
    seen = Fetches(first)
    first.start()
    seen.wait()
    push_log(leader, db, segments(second))
    spoil(second, BIG[:1])
    seen = Fetches(second)
    second.start()
    seen.wait()
    finish(loaded)


# ---- interrupted -----------------------------------------------------------------------------------


def total_pages(node):
    return sum(node.database(name)["pages"] for name in BIG)


def test_fetching_node_killed_in_the_middle_resumes(loaded, busy):
    victim = loaded.followers()[0]
    total = total_pages(loaded.wait_leader())
    spoil(victim, BIG)
    hold_in_the_middle(victim, BIG, 2500)
    there = size_of(victim, BIG)
    victim.kill9()
    assert mark(victim).exists()
    seen = Fetches(victim)
    victim.start(timeout=60)
    compared, fetched = seen.wait()
    assert not mark(victim).exists()
    # a piece of a MiB may have been under way, and the busy database is small
    small = loaded.leader().database(Path(writer_path(busy)).name)["pages"]
    assert total - there - 512 <= fetched <= total - there + 512 + small
    finish(loaded, busy)


def test_fetch_goes_on_from_the_next_leader(loaded, busy):
    leader = loaded.wait_leader()
    victim = loaded.followers()[0]
    total = total_pages(leader)
    spoil(victim, BIG)
    seen = hold_in_the_middle(victim, BIG, 2500)
    leader.kill9()
    victim.resume()
    compared, fetched = seen.wait()
    loaded.wait_leader(30)
    victim.wait_mounted(30)
    small = loaded.leader().database(Path(writer_path(busy)).name)["pages"]
    assert fetched <= total + 512 + 2 * small, "what had come was fetched again"
    assert len(seen.done()) == 1
    leader.start()
    busy.kill9()
    loaded.check_rows(Path(writer_path(busy)).name, [busy], 60)
    finish(loaded)


def test_fetch_whose_connection_breaks_goes_on(loaded, busy):
    leader = loaded.wait_leader()
    victim = loaded.followers()[0]
    total = total_pages(leader)
    spoil(victim, BIG)
    seen = hold_in_the_middle(victim, BIG, 2500)
    assert shut_connections(victim, int(leader.address.split(":")[1])) >= 1
    victim.resume()
    compared, fetched = seen.wait()
    assert compared > total, "nothing was broken"
    victim.wait_mounted(30)
    small = loaded.leader().database(Path(writer_path(busy)).name)["pages"]
    assert fetched <= total + 512 + 2 * small, "what had come was fetched again"
    finish(loaded, busy)


@pytest.mark.parametrize("how", ["sigterm", "umount"])
def test_node_is_told_to_end_in_the_middle_and_does(loaded, busy, how):
    """Its leader is silent meanwhile: there is nothing that it could wait for."""
    leader = loaded.wait_leader()
    victim = loaded.followers()[0]
    spoil(victim, BIG)
    seen = hold_in_the_middle(victim, BIG, 2500)
    leader.pause()
    try:
        if how == "sigterm":
            victim.process.send_signal(signal.SIGTERM)
            victim.resume()
            assert victim.wait_ended(9) == 0, victim.log_tail()
        else:
            victim.resume()
            victim.stop(9)
    finally:
        leader.resume()
    assert mark(victim).exists() and not seen.done()
    victim.start(timeout=60)
    seen.wait()
    finish(loaded, busy)


# ---- what others see ---------------------------------------------------------------------------------


def test_applications_wait_for_the_fetch_and_see_nothing_half_made(loaded, busy):
    leader = loaded.wait_leader()
    victim = loaded.followers()[0]
    rows = sql(leader, BIG[0], "SELECT count(*) FROM t")
    spoil(victim, BIG)
    seen = hold_in_the_middle(victim, BIG, 2000, held=leader)
    try:
        for command in (
            ["ls", str(victim.mnt)],
            [SQLITE3, str(victim.path(BIG[0])), "SELECT count(*) FROM t"],
        ):
            with pytest.raises(Hang):  # it waits, and a signal ends it
                run(command, timeout=1)
        waits = subprocess.Popen(
            [SQLITE3, str(victim.path(BIG[0])), "SELECT count(*) FROM t"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        loaded.workspace.children.append(waits)
        time.sleep(0.5)
        assert waits.poll() is None, waits.communicate()
        assert not seen.done()
    finally:
        leader.resume()
    out, err = waits.communicate(timeout=60)
    assert (waits.returncode, out.strip()) == (0, rows), err
    seen.wait()
    finish(loaded, busy)


def test_open_connection_of_a_damaged_node_is_not_lied_to(loaded, busy):
    """Damage comes to light while an application has databases open: what it had open fails, what it
    opens waits and is right. Nobody sees an old page or another database's."""
    leader = loaded.wait_leader()
    victim = loaded.followers()[0]
    expected = sql(victim, BIG[1], "SELECT count(*), sum(length(x)) FROM t")
    with Connection(victim, BIG[1], busy_ms=10000, timeout=60) as reader:
        reader.execute("SELECT count(*) FROM t WHERE i < 10")
        seen = Fetches(victim)
        drop_cache(victim, BIG[0])
        flip(victim.data / BIG[0], PAGE * 700 + 100)
        with pytest.raises(SqlError):
            sql(victim, BIG[0], "SELECT sum(length(x)) FROM t")
        compared, fetched = seen.wait()
        small = leader.database(Path(writer_path(busy)).name)["pages"]
        assert 1 <= fetched <= 1 + small, f"one page was damaged, {fetched} were fetched"
        try:
            rows = reader.execute("SELECT count(*), sum(length(x)) FROM t")
            assert "|".join(map(str, rows[0])) == expected
        except SqlError as error:
            # in WAL mode it is the -wal that it looks at first (FSTAT)
            assert error.code.startswith("SQLITE_IOERR") or error.code == "SQLITE_CANTOPEN"
    assert sql(victim, BIG[1], "SELECT count(*), sum(length(x)) FROM t") == expected
    busy.wait_acks(20)
    finish(loaded, busy)
    assert len(seen.done()) == 1 and seen.begun() <= 2, seen.text()


def test_commits_and_changes_of_every_kind_go_on_beside_a_fetch(loaded, busy):
    """Held in the middle: databases are made, removed, made again under their name, shrink, grow, and
    change their page size, some of them fetched already, some not yet, some half."""
    leader = loaded.wait_leader()
    victim = loaded.followers()[0]
    small = ["gone.db", "again.db", "shrinks.db", "grows.db", "pages.db"]
    for name in small:
        fill(leader, name, 300)
    loaded.wait_caught_up(60)
    spoil(victim, BIG + small)
    seen = hold_in_the_middle(victim, BIG + small, 2500)
    busy.wait_acks(20)
    assert run(["rm", str(leader.path("gone.db"))]).code == 0
    assert run(["rm", str(leader.path("again.db"))]).code == 0
    sql(leader, "again.db", "CREATE TABLE other(x); INSERT INTO other VALUES(1);", busy_ms=20000)
    sql(leader, "shrinks.db", "DELETE FROM t WHERE i > 10; VACUUM;", busy_ms=20000)
    fill(leader, "grows.db", 500, 1000)
    sql(
        leader,
        "pages.db",
        "PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=WAL;",
        busy_ms=20000,
    )
    fill(leader, "new.db", 100)
    for name in BIG:
        sql(leader, name, "UPDATE t SET x = randomblob(50) WHERE i % 100 = 3;", busy_ms=20000)
    busy.wait_acks(20)
    victim.resume()
    seen.wait()
    victim.wait_mounted(60)
    finish(loaded, busy)
    assert sql(victim, "pages.db", "PRAGMA page_size; SELECT count(*) FROM t") == "8192\n300"
    assert sql(victim, "again.db", "SELECT * FROM other") == "1"
    assert sql(victim, "shrinks.db", "SELECT count(*) FROM t") == "10"
    assert not (victim.data / "gone.db").exists()
    for name in ["again.db", "shrinks.db", "grows.db", "pages.db", "new.db"]:
        loaded.check_sound(name)
        assert run(["rm", str(leader.path(name))]).code == 0
    loaded.wait_equal()


@pytest.mark.soak
def test_changes_of_every_kind_at_random_beside_fetches(loaded, busy):
    stop = threading.Event()
    errors = []

    def change():
        turn = 0
        while not stop.is_set():
            turn += 1
            name = f"random{turn % 4}.db"
            leader = loaded.leader()
            if not leader:
                continue
            try:
                fill(leader, name, 50 + turn % 7 * 100, turn * 1000)
                if turn % 3 == 0:
                    sql(leader, name, "DELETE FROM t WHERE i % 3; VACUUM;", busy_ms=20000)
                if turn % 5 == 0:
                    size = 1024 << turn % 4
                    sql(
                        leader,
                        name,
                        f"PRAGMA journal_mode=DELETE; PRAGMA page_size={size}; VACUUM;",
                        busy_ms=20000,
                    )
                if turn % 4 == 0:
                    run(["rm", str(leader.path(name))])
            except SqlError as error:
                if "disk I/O" not in str(error) and "locked" not in str(error):
                    errors.append(error)
                    return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for turn in range(15):
            victim = loaded.followers()[turn % 2]
            spoil(victim, BIG)
            seen = Fetches(victim)
            victim.start(timeout=60)
            seen.wait(120)
            loaded.wait_caught_up(120)
    finally:
        stop.set()
        thread.join(60)
    assert not errors
    finish(loaded, busy)


def test_leader_that_finds_damage_while_it_serves_a_peer_loses_nothing(loaded, db):
    """It has to fetch itself. The peer must not take the databases for removed."""
    leader = loaded.wait_leader()
    victim = loaded.followers()[0]
    hurt = "hurt.db"
    fill(leader, hurt, 500)
    fill(leader, db, 10)
    loaded.wait_equal(60)
    spoil(victim, BIG)
    writer = Writer([leader], "slow.db", "--pause-ms", 4, "--busy-ms", 20000)
    writer.wait_acks(5)
    drop_cache(leader, hurt)
    flip(leader.data / hurt, PAGE * 300 + 5)
    seen = hold_in_the_middle(victim, BIG, 2500)
    of_leader = Fetches(leader)
    with pytest.raises(SqlError):
        sql(leader, hurt, "SELECT sum(length(x)) FROM t")
    until("the leader wants the databases itself", of_leader.begun)
    victim.resume()
    seen.wait(90)
    of_leader.wait(90)
    writer.kill9()
    for node in loaded.nodes:
        node.wait_mounted(60)
    loaded.wait_leader(30)
    names = {database["name"] for database in victim.status()["databases"]}
    assert {*BIG, hurt, db, "slow.db"} <= names
    loaded.check_rows("slow.db", [writer], 60)
    for name in (hurt, db):
        loaded.check_sound(name)
    assert sql(leader, hurt, "SELECT count(*) FROM t") == "500"
    finish(loaded)
