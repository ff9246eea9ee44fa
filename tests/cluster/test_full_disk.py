"""A data directory on a disk that is full. Applications are told so, or another node takes over; what
was acknowledged stays, reads go on, and once there is space again everything goes on by itself."""

import os
import threading
import time

import pytest
from fetching import Fetches, fill, push_log, segments
from harness import (
    PROGRAM,
    Cluster,
    Connection,
    Hang,
    Node,
    SqlError,
    Writer,
    check_acknowledged,
    run,
    sql,
    until,
)

# Less than a piece of the log is: the log cannot grow, and there is room for all else.
NO_LOG = 7 << 20
ROWS = 100  # that are written over and over, a page each
OPTIONS = ["--log-size", "16M", "--election-timeout", "3000"]
MIB = 1 << 20
FULL = "database or disk is full"


class Disk:
    """A file system of its own for the data of a node, and somebody who takes all that is free."""

    def __init__(self, node, size_mib=160):
        self.node = node
        image = node.dir / "disk.img"
        self.point = node.dir / "disk"
        self.point.mkdir()
        with open(image, "wb") as file:
            file.truncate(size_mib * MIB)
        for command in (
            ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)],
            ["mount", "-o", "loop", str(image), str(self.point)],
        ):
            try:
                result = run(command, timeout=60)
            except FileNotFoundError:
                pytest.skip(f"needs {command[0]}")
            if result.code != 0:
                pytest.skip(f"no loop device with a file system: {result}")
        node.data = self.point / "data"
        node.data.mkdir()
        self.balloon = self.point / "balloon"
        self.thread = None
        self.release = threading.Event()

    def free(self):
        about = os.statvfs(self.point)
        return about.f_bavail * about.f_bsize

    def take(self, leave=0):
        """All that is free now, but for `leave`."""
        fd = os.open(self.balloon, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for piece in (MIB, 64 << 10, 4096):
                while self.free() >= leave + piece:
                    try:
                        os.posix_fallocate(fd, os.fstat(fd).st_size, piece)
                    except OSError:
                        break
        finally:
            os.close(fd)

    def keep_full(self, leave=0):
        """Also what becomes free, until give_back()."""
        self.release.clear()

        def grow():
            while not self.release.is_set():
                self.take(leave)
                time.sleep(0.01)

        self.thread = threading.Thread(target=grow, daemon=True)
        self.thread.start()
        until("the disk is full", lambda: self.free() < leave + (64 << 10))

    def give_back(self):
        self.release.set()
        if self.thread:
            self.thread.join()
            self.thread = None
        if self.balloon.exists():
            self.balloon.unlink()


@pytest.fixture
def disks():
    made = []

    def make(node, size_mib=160):
        made.append(Disk(node, size_mib))
        return made[-1]

    yield make
    for disk in made:
        disk.give_back()


@pytest.fixture
def small(workspace, disks):
    """A node alone, and its disk."""
    node = Node(workspace, "n1", options=OPTIONS)
    disk = disks(node)
    node.start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    return node, disk


def overwrite(connection, turn):
    """Writes the same pages over and over: the database and its -wal do not grow, the log does."""
    connection.execute("UPDATE t SET n = ?, x = randomblob(3900)", turn)


def begin_overwriting(node, db):
    fill(node, db, ROWS)
    sql(node, db, "ALTER TABLE t ADD COLUMN n;")
    connection = Connection(node, db, busy_ms=1000, timeout=60)
    connection.execute("PRAGMA wal_autocheckpoint=200")
    for turn in range(12):  # its -wal is as long as it will get
        overwrite(connection, turn)
    return connection, 11


def overwrite_until_refused(connection, turn):
    """The last turn that was acknowledged, and what the next one was told."""
    for turn in range(turn + 1, turn + 200):
        try:
            overwrite(connection, turn)
        except SqlError as error:
            return turn - 1, error
    raise AssertionError("the disk never ran full")


def check_turn(node, db, last, unknown=False):
    """All rows are of the last turn that was acknowledged (or of the one behind it)."""
    seen = sql(node, db, "SELECT DISTINCT n FROM t", busy_ms=5000)
    assert seen in ([str(last), str(last + 1)] if unknown else [str(last)]), (seen, last)
    assert sql(node, db, "PRAGMA integrity_check") == "ok"


# ---- a node alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_application_of_a_node_alone_is_told_and_goes_on_later(small, db, mode):
    node, disk = small
    writer = Writer([node], db, "--mode", mode, "--body", 3000, "--pause-ms", 1)
    writer.wait_acks(20, 60)
    disk.keep_full()
    until("it is told", writer.fails, 60)
    time.sleep(1)
    assert int(sql(node, db, "SELECT count(*) FROM rows", busy_ms=10000)) >= 100
    assert node.running
    disk.give_back()
    writer.wait_acks(20, 60)
    messages = {event[5] for event in writer.fails()}
    assert FULL in messages and messages <= {FULL, "disk I/O error"}, messages
    writer.stop()
    for restarted in (False, True):
        if restarted:
            node.kill9()
            node.start()
        text = sql(node, db, "SELECT writer, seq FROM rows", busy_ms=5000)
        assert check_acknowledged(text, [writer]) >= 100
        assert sql(node, db, "PRAGMA integrity_check") == "ok"


def test_log_of_a_node_alone_that_cannot_grow_refuses_at_once(small, db):
    node, disk = small
    connection, turn = begin_overwriting(node, db)
    with connection:
        disk.keep_full(NO_LOG)
        turn, error = overwrite_until_refused(connection, turn)
        assert error.code == "SQLITE_FULL", error
        check_turn(node, db, turn)
        assert "the log cannot grow" in node.log_text()
        for _ in range(5):  # a durable point may let go of some of the log meanwhile
            turn, error = overwrite_until_refused(connection, turn)
            assert error.code == "SQLITE_FULL", error
            assert connection.value("SELECT count(*) FROM t WHERE n = ?", turn) == ROWS
        disk.give_back()

        def accepted():
            try:
                overwrite(connection, turn + 1)
                return True
            except SqlError as error:
                assert error.code == "SQLITE_FULL", error
                return False

        until("it goes on", accepted, 30, 0.2)
        check_turn(node, db, turn + 1)
        for later in range(turn + 2, turn + 40):
            overwrite(connection, later)
    node.kill9()
    node.start()
    check_turn(node, db, turn + 39)


@pytest.mark.parametrize("leave", [0, NO_LOG], ids=["nothing", "no log"])
@pytest.mark.parametrize("how", ["umount", "kill"])
def test_node_alone_started_with_a_full_disk_serves_or_waits(small, db, how, leave):
    node, disk = small
    connection, turn = begin_overwriting(node, db)
    disk.keep_full(leave)
    with connection:
        turn, error = overwrite_until_refused(connection, turn)
        assert error.code == "SQLITE_FULL", error
    for _ in range(3):
        if node.running and how == "umount":
            node.stop(30)
        elif node.running:
            node.kill9()
        skip = len(node.log_text())
        node.launch()
        try:
            node.wait_mounted(30)
            # if it cannot bring the files up to date it says so, and who opens waits
            try:
                seen = sql(node, db, "SELECT DISTINCT n FROM t", timeout=3)
                assert seen == str(turn)
            except Hang:
                assert "disk full, replication waits" in node.log_text()[skip:]
        except AssertionError:
            assert not node.running, node.log_tail()
            said = node.log_text()[skip:].splitlines()[-1]
            assert "space" in said or "disk" in said, said
    disk.give_back()
    if not node.running:
        node.start()
    until("it writes", lambda: try_sql(node, db, f"UPDATE t SET n = {turn + 1};"), 30, 0.2)
    check_turn(node, db, turn + 1)
    left = [path.name for path in (node.data / ".dqlitefs/raft").glob("*.tmp")]
    assert len(left) <= 1, left  # the spare


def try_sql(node, db, script):
    try:
        sql(node, db, script, busy_ms=1000)
        return True
    except SqlError:
        return False


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_transaction_that_is_larger_than_the_disk_is_refused_alone(small, db, mode):
    node, disk = small
    sql(node, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(i, x); INSERT INTO t VALUES(0, 'a');")
    disk.take(60 * MIB)
    with pytest.raises(SqlError, match=FULL):
        sql(
            node,
            db,
            "PRAGMA cache_size=-1000; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < 20000) INSERT INTO t SELECT i, randomblob(3900) FROM n;",
            timeout=90,
        )
    assert sql(node, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "1\nok"
    disk.give_back()
    until("it writes", lambda: try_sql(node, db, "INSERT INTO t VALUES(1, 'b');"), 30, 0.2)
    node.kill9()
    node.start()
    assert sql(node, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "2\nok"


# ---- in a cluster -----------------------------------------------------------------------------------


def cluster_with(workspace, disks, which):
    """Three nodes, the first of which leads; `which` of them has a disk of its own."""
    cluster = Cluster(workspace, options=OPTIONS)
    for node in cluster.nodes:
        # The others' log holds all that the one without space lacks: it cannot fetch.
        if node is not cluster.nodes[which]:
            node.options += ["--log-size", "1G"]
    disk = disks(cluster.nodes[which])
    cluster.start()
    leader = cluster.wait_leader()
    if leader is not cluster.nodes[0]:
        run([PROGRAM, "transfer", str(leader.mnt), "--to", cluster.nodes[0].address])
        until("the first leads", lambda: cluster.leader() is cluster.nodes[0])
    return cluster, disk


def test_leader_with_a_full_disk_hands_over(workspace, disks, db):
    cluster, disk = cluster_with(workspace, disks, 0)
    leader, others = cluster.nodes[0], cluster.nodes[1:]
    connection, turn = begin_overwriting(leader, db)
    with connection:
        disk.keep_full(NO_LOG)
        turn, error = overwrite_until_refused(connection, turn)
        assert "the log cannot grow" in leader.log_text()
        assert error.code in ("SQLITE_FULL", "SQLITE_BUSY"), error
        new = cluster.wait_leader(30, other_than=leader)
        # by its majority, while the first is still full
        until(
            "another one writes",
            lambda: try_sql(new, db, f"UPDATE t SET n = {turn + 1};"),
            30,
            0.2,
        )
        assert connection.value("SELECT count(*) FROM t") == ROWS
    writer = Writer([new], "more.db", "--rows", 20, "--body", 3000)
    writer.wait_acks(50, 60)
    assert sql(leader, db, "SELECT count(*) FROM t", busy_ms=5000) == str(ROWS)
    disk.give_back()
    writer.wait_acks(20, 60)
    writer.stop()
    cluster.check_rows("more.db", [writer], 60)
    cluster.check_sound(db)
    check_turn(leader, db, turn + 1)


def test_follower_with_a_full_disk_holds_nobody_up(workspace, disks, db):
    cluster, disk = cluster_with(workspace, disks, 2)
    leader, victim = cluster.nodes[0], cluster.nodes[2]
    writer = Writer([leader], db, "--rows", 20, "--body", 3000, "--pause-ms", 2)
    writer.wait_acks(20, 60)
    cluster.wait_caught_up()
    with Connection(victim, db, busy_ms=5000) as reader:
        reader.execute("SELECT count(*) FROM rows")
        disk.keep_full()
        until("the follower says so", lambda: "disk full" in victim.log_text(), 60)
        writer.wait_acks(100, 60)
        first = reader.value("SELECT count(*) FROM rows")
        assert int(sql(victim, db, "SELECT count(*) FROM rows", busy_ms=5000)) >= first >= 400
        assert victim.running and not writer.fails()
        disk.give_back()
        cluster.wait_caught_up(60)
    writer.wait_acks(20, 60)
    writer.stop()
    assert cluster.check_rows(db, [writer], 60) >= 140 * 20


def test_disk_that_runs_full_while_the_node_fetches_delays_it(workspace, disks, db):
    first = Node(workspace, "n1", options=OPTIONS).start()
    until("the node leads", lambda: first.status()["role"] == "leader")
    beginning = segments(first)
    fill(first, db, 12000)
    push_log(first, "pushed.db", beginning)
    second = Node(workspace, "n2", options=OPTIONS)
    disk = disks(second, 128)
    disk.take(50 * MIB)
    seen = Fetches(second)
    second.launch(join=first.address)
    until("it is full", lambda: "free the disk" in seen.text(), 60)
    assert second.running and not seen.done()
    fill(first, db, 10, 100000)  # commits go on
    disk.give_back()
    seen.wait()
    second.wait_mounted(30)
    cluster = Cluster(workspace, count=0)
    cluster.nodes = [first, second]
    cluster.wait_voters(2, 60)
    cluster.check_sound(db, 60)


def test_node_that_was_killed_with_a_full_disk_comes_back(workspace, disks, db):
    """Full on a follower, which is killed and started again meanwhile, more than once."""
    cluster, disk = cluster_with(workspace, disks, 1)
    leader, victim = cluster.nodes[0], cluster.nodes[1]
    writer = Writer([leader], db, "--rows", 20, "--body", 3000, "--pause-ms", 5)
    writer.wait_acks(20, 60)
    disk.keep_full()
    until("the follower says so", lambda: "disk full" in victim.log_text(), 60)
    for _ in range(3):
        if victim.running:
            victim.kill9()
        skip = len(victim.log_text())
        victim.launch()
        until(
            "it is up or has ended",
            lambda: not victim.running or victim.status(check=False) is not None,
            30,
        )
        if not victim.running:
            said = victim.log_text()[skip:].splitlines()[-1]
            assert "space" in said or "disk" in said, said
        writer.wait_acks(5, 60)
    disk.give_back()
    if not victim.running:
        victim.start()
    victim.wait_mounted(30)
    cluster.wait_caught_up(60)
    writer.stop()
    cluster.check_rows(db, [writer], 60)
