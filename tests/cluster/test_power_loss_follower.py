"""Power cuts of one node of three in each operation of its disk: as it follows and applies what the
leader sends (power.py tells how that is done), and as it gets the databases from the leader.

The node that is recorded, `n3`, is on a lossy disk; the two others, of which one leads, are on ordinary
ones. They stay as they were at the end of the recording, but that some rows are added. So they are ahead of
whatever the node is put back to, and it has to catch up with them.

Why the node may be put back at all, which means that it has lost entries that it once acknowledged.
To the two others it shall be a node that lost power in that operation, and that nobody has heard of since.
What it acknowledged after the operation may have made the majority of an entry: so before it is put back,
the two others must both have all there is. Then every entry is on two disks without it, and whoever is
elected has it. It may have voted after the operation, and would vote again in that term; and the leader
believes its log to reach further than it does, and would send nothing in front of that. So while the node
is off, the two others elect another leader, without it: one that knows nothing of its log, in a term in which
it has no vote to lose.

A failure names the operation and the seed, and keeps the recording, from which it is repeated:

    DQLITEFS_RECORDING=DIR DQLITEFS_CUT=OPERATION:SEED scripts/test -k TEST
"""

import json
import random
import subprocess
import time

import power
import pytest
from fetching import BEGUN, PAGE, Fetches, fill, outgrow, push_log, segments
from harness import (
    PROGRAM,
    Cluster,
    Connection,
    LossyDisk,
    Node,
    SqlError,
    Writer,
    drop_cache,
    flip,
    mounts_from,
    run,
    sql,
    until,
)
from power import (
    DAMAGE,
    HOWS,
    Database,
    check_log,
    check_recorded,
    check_states,
    launch_and_lose_power,
    lose_power,
    points,
    rows,
    start,
)

# A busy machine is not to bring an election about.
TIMEOUT = ("--election-timeout", "3000")
SHORT_LOG = ("--log-size", "16M", *TIMEOUT)
LONG_LOG = ("--log-size", "1G", *TIMEOUT)


class Trio(Cluster):
    """Two nodes on ordinary disks, the first of which leads, and the recorded one."""

    def __init__(self, workspace, options):
        super().__init__(workspace, count=2, options=options)
        self.recorded = Node(
            workspace,
            "n3",
            options=(*SHORT_LOG, "--scrub-rate", "1G"),
            disk=LossyDisk(workspace, "disk"),
        )
        self.known = {}
        self.may_be_damaged = False
        self.cuts = self.fetches = 0  # those after which it had to fetch

    def join(self):
        """From here on the recorded node is one of the cluster."""
        self.recorded.start(join=self.nodes[0].address, timeout=60)
        self.nodes.append(self.recorded)
        self.wait_voters(timeout=60)

    def peers(self):
        return [node for node in self.nodes if node is not self.recorded]

    def save(self):
        addresses = {node.name: node.address for node in (*self.peers(), self.recorded)}
        known = {**self.known, "addresses": addresses}
        return power.keep(self.recorded.disk, known, self.peers())

    def load(self):
        """What save() kept."""
        self.known = power.load(self.recorded.disk)
        for node in (*self.nodes, self.recorded):
            node.address = self.known["addresses"][node.name]
        for node in self.nodes:
            node.data.rmdir()
            subprocess.run(["cp", "-a", power.recording() / node.name, node.data], check=True)
            node.launch()
        self.nodes.append(self.recorded)
        self.wait_leader(30)

    # --- after a power cut

    def put_back(self, operation, seed):
        """The node is off, as if power had failed in that operation."""
        leader = self.check_equal(self.peers())
        other = next(node for node in self.peers() if node is not leader)
        result = run([PROGRAM, "transfer", leader.mnt, "--to", other.address])
        assert result.code == 0, result
        self.wait_leader(other_than=leader)
        self.recorded.disk.replay(operation, seed)

    def catch_up(self, writer=None):
        """Starts the node. In the end it is what the others are."""
        self.recorded.start(self.wait_leader().address, timeout=60)
        if writer:
            until("it serves", lambda: self.recorded.status()["state"] == "serving", 60)
            writer.stop()
        self.check_equal()

    def check_equal(self, nodes=None):
        """These nodes, or all, have all that is committed, and the recorded one shows it. Returns the
        leader."""
        leader = self.wait_leader()
        goal = leader.status()

        def check():
            for node in nodes or self.nodes:
                status = node.status()
                assert status["state"] == "serving", f"{node} is {status['state']}"
                applied = status["applied_index"]
                assert applied >= goal["commit_index"], f"{node} has applied {applied}"
                same = status["databases"] == goal["databases"]
                assert same, f"{node} has {status['databases']}, not {goal['databases']}"
            return True

        until("all are equal", check, 60, 0.01)
        for entry in goal["databases"] if not nodes else ():
            self.check_content(entry["name"], leader)
        assert self.leader() is leader, "another one leads"
        return leader

    def check_content(self, name, leader):
        script = "PRAGMA integrity_check;\n.sha3sum"
        wanted = sql(leader, name, script, 60, 10000)
        assert wanted.startswith("ok\n"), f"{name} on {leader}: {wanted}"

        def check():
            try:
                found = sql(self.recorded, name, script, 60, 10000)
            except SqlError as error:
                if not self.may_be_damaged:
                    raise
                raise AssertionError(f"{name}: {error}") from None  # it is mended now
            assert found == wanted, f"{name} is {found}, not {wanted}"
            return True

        # a follower publishes a moment after its status counts the entry
        until(f"{name} is equal", check, 20)

    def write(self, name):
        """A row; until all have it."""
        sql(self.wait_leader(), name, "INSERT INTO t(x) VALUES('after')", busy_ms=10000)
        self.check_equal()

    def check_cut(self, operation, seed, writes, words=DAMAGE, busy=False):
        """One power cut, and others while, or after, it is repaired. `busy`: an application writes all
        the time that the node takes to catch up."""
        chance = random.Random(seed)
        node, disk = self.recorded, self.recorded.disk
        self.put_back(operation, seed)
        leader = self.wait_leader()
        if not (node.data / ".dqlitefs" / "node").exists():
            self.check_new(operation)
            return
        self.check_holds(operation)
        writer = None
        if busy and chance.random() < 0.5:
            writer = Writer([leader], "busy.db", "--pause-ms", 4, "--busy-ms", 10000)
            writer.wait_acks(1)
        # somewhere on the way up
        again = chance.choice((0, 0, chance.randint(1, 40), chance.randint(1, 400)))
        if again:
            launch_and_lose_power(node, again, chance.choice(HOWS), leader.address)
            disk.restore(seed + 1)
            self.check_holds(operation)
        self.catch_up(writer)
        self.write(chance.choice(writes))
        check_log(node, words)
        self.cuts += 1
        self.fetches += bool(BEGUN.search(node.log_text()))
        # what it has now it has for good
        if chance.random() < 0.3:
            had = node.status()["applied_index"]
            lose_power(node)
            disk.restore(seed + 2)
            self.check_holds(operation, had)
            self.catch_up()
            check_log(node, words)
        lose_power(node)

    def check_holds(self, operation, index=0):
        """Its log is sound, and has all that was applied before the power cut."""
        for before, applied in self.known["applied"]:
            if before < operation:
                index = max(index, applied)
        if not index:
            return
        log = run([PROGRAM, "log", "--data", self.recorded.data, "--json"], timeout=60)
        assert log.code == 0, log.err
        lines = [json.loads(line) for line in log.out.splitlines()]
        ends = [line["index"] for line in lines if line["kind"] == "snapshot"]
        ends += [line["last_index"] for line in lines if line["kind"] == "summary"]
        assert max(ends) >= index, f"the log ends at {ends}, not at {index}"

    def check_new(self, operation):
        """The disk does not know which node this was: it joins as a new one. Not this cluster, which
        has it under its former number already, as none would have that it lost power so early."""
        assert operation < self.known["applied"][0][0], "it had joined"
        other = Node(self.recorded.workspace, f"other{operation}", options=TIMEOUT)
        start(other)
        sql(other, "other.db", "PRAGMA journal_mode=WAL; CREATE TABLE t(x);")
        self.recorded.start(join=other.address, timeout=60)

        def check():
            found = [entry["name"] for entry in self.recorded.status()["databases"]]
            return found == ["other.db"]

        until("it has joined", check)
        assert sql(self.recorded, "other.db", "SELECT count(*) FROM t", busy_ms=10000) == "0"
        check_log(self.recorded)
        other.stop()
        lose_power(self.recorded)

    def note(self):
        """What the recorded node has now it must not lose any more."""
        applied = self.recorded.status()["applied_index"]
        self.known.setdefault("applied", []).append((self.recorded.disk.ops(), applied))

    def check_mounts(self, workspace):
        left = mounts_from(workspace.base)
        own = {str(node.mnt) for node in self.nodes}
        assert set(left) <= own, f"killed daemons left mounts: {left}"


# --- it applies -----------------------------------------------------------------------------------


def apply_work(cluster):
    """Every way in which a follower applies a change. Returns {name: states}."""
    leader, follower = cluster.nodes[0], cluster.recorded
    # an application has the first two open on the follower, nobody the next two
    hot = Database(leader, "hot.db", "WAL", follower)
    old = Database(leader, "old.db", "DELETE", follower)
    cold = Database(leader, "cold.db", "WAL", follower)
    raw = Database(leader, "raw.db", "DELETE", follower)
    brief = Database(leader, "brief.db", "WAL", follower)
    all_of_them = (hot, old, cold, raw, brief)
    for database in all_of_them:
        database.create()
        database.do(rows(0, 10, 0))
    cluster.note()
    readers = {}
    for database in (hot, old):
        reader = readers[database] = Connection(follower, database.name, 10000)
        reader.execute("SELECT count(*) FROM t")
    for i in range(1, 3):
        for database in all_of_them:
            database.do(rows(i * 10, 10, i))
    # opened, and closed again: what is in its -wal goes into the file
    with Connection(follower, cold.name, 10000) as reader:
        reader.execute("SELECT count(*) FROM t")
        cold.do(rows(30, 10, 3))
    cold.do(rows(40, 10, 4))
    for database in (hot, old, cold, raw):
        database.do(rows(100, 100, 5, 400))
        database.do("DELETE FROM t WHERE i % 2 = 1")
        database.run("VACUUM")
    cold.run("PRAGMA journal_mode=DELETE")
    cold.do(rows(50, 10, 5))
    cold.run("PRAGMA journal_mode=WAL")
    cold.do(rows(60, 10, 6))
    cluster.note()
    # in parts; and enough for durable points, new segments and an end of old ones
    for i in range(3):
        hot.do("DELETE FROM t WHERE i >= 1000", rows(1000, 400, i, 4000))
        cold.do("DELETE FROM t WHERE i >= 1000", rows(1000, 300, i, 4000))
        old.do("DELETE FROM t WHERE i >= 1000", rows(1000, 250 + 50 * i, i, 4000))
        raw.do("DELETE FROM t WHERE i >= 1000", rows(1000, 300, i, 4000))
        if i == 1:
            brief.remove()
        if i == 2:
            brief.create()
            run(["chmod", "640", leader.path(brief.name)])
    cluster.note()
    # a durable point that has to leave frames in the -wal, because of a reader, and its end
    readers[hot].execute("BEGIN")
    readers[hot].execute("SELECT count(*) FROM t")
    before = points(follower)
    for i in range(8):
        hot.do("DELETE FROM t WHERE i >= 1000", rows(1000, 400, 10 + i, 4000))
        time.sleep(0.3)  # the keeper looks now and then
        if ("fsync", "hot.db-wal") in follower.disk.counts():
            break
    until("a durable point", lambda: points(follower) > before, 10, 0.01)
    hot.do(rows(6000, 1, 1))
    brief.do(rows(1, 3, 3))
    readers[hot].execute("COMMIT")
    for i in range(2):
        hot.do("DELETE FROM t WHERE i >= 1000", rows(1000, 400, 20 + i, 4000))
        hot.do(rows(6001 + i, 1, 1))
    old.do("DELETE FROM t WHERE i >= 1000")
    old.run("VACUUM")
    for reader in readers.values():
        reader.close()
    for database in (hot, old):
        database.do(rows(7000, 1, 1))
    cluster.note()
    states = {}
    for database in all_of_them:
        database.connection.close()
        states[database.name] = database.states
    return states


def check_alone(cluster, operation, seed):
    """`dqlitefs recover` makes the node a cluster of its own, with all that its log holds: so it can be
    seen what it had of its own."""
    node = cluster.recorded
    node.disk.replay(operation, seed)
    result = run([PROGRAM, "recover", "--data", node.data, "--yes"], timeout=60)
    assert result.code == 0, result
    start(node)
    check_states(node, cluster.known["states"], operation)
    # of its former peers it may say something
    check_log(node, [word for word in DAMAGE if word != " E "])
    lose_power(node)


@pytest.mark.limit(300)
def test_power_cut_in_every_operation_of_a_follower_loses_nothing(workspace, soak):
    """The others keep all of their log, so what the node lacks it gets from there."""
    cluster = Trio(workspace, LONG_LOG)
    node = cluster.recorded
    if power.recording():
        cluster.load()
    else:
        cluster.start()
        node.disk.command("record")
        cluster.join()
        cluster.note()
        cluster.known["states"] = apply_work(cluster)
        cluster.wait_equal()
        check_recorded(
            node.disk,
            ("write", "hot.db-wal"),  # by the daemon's SQLite, beneath a reader
            ("write", "old.db"),
            ("write", "cold.db"),
            ("create", "brief.db"),
            ("remove", "brief.db"),
            ("setattr", "brief.db"),
            ("rename", "snapshot.tmp"),  # durable points
            ("fsync", "hot.db-wal"),  # one of them counts on that
            ("remove", "segment-0000000000000001.log"),
        )
        lose_power(node)
    first = cluster.known["applied"][0][0]
    names = list(cluster.known["states"])

    def check(operation, seed):
        if operation > first and random.Random(seed + 3).random() < 0.5:
            check_alone(cluster, operation, seed)
        cluster.check_cut(operation, seed, names)

    power.each_cut(node.disk, check, cluster.save, "operation_of_a_follower", soak, (7, 4))
    cluster.check_mounts(workspace)


# --- it fetches ---------------------------------------------------------------------------------


def change(node, name, every):
    """A few pages."""
    script = f"UPDATE t SET x = randomblob(3900) WHERE i % {every} = 3"
    sql(node, name, script, timeout=60, busy_ms=10000)


def follow(cluster):
    """By the log, a bit."""
    leader, node = cluster.nodes[0], cluster.recorded
    with Connection(node, "a.db", 10000) as reader:
        reader.execute("SELECT count(*) FROM t")
        change(leader, "a.db", 100)
        cluster.wait_caught_up()
        cluster.note()
        change(leader, "a.db", 50)
        change(leader, "b.db", 50)
        cluster.wait_caught_up()
        cluster.note()


def fetch_new(cluster):
    """It joins, and the log does not reach back to the beginning. Later a page is damaged."""
    leader, node = cluster.nodes[0], cluster.recorded
    beginning = segments(leader)
    fill(leader, "a.db", 700)
    fill(leader, "b.db", 300)
    push_log(leader, "pushed.db", beginning)
    node.disk.command("record")
    seen = Fetches(node)
    writer = Writer([leader], "busy.db", "--pause-ms", 4, "--busy-ms", 10000)
    writer.wait_acks(1)
    cluster.join()
    seen.wait()
    writer.stop()
    cluster.known["fetched"] = node.disk.ops()
    cluster.wait_equal()
    cluster.note()
    follow(cluster)
    seen = Fetches(node)
    cluster.known["damaged"] = node.disk.ops()
    drop_cache(node, "a.db")
    flip(node.data / "a.db", PAGE * 500 + 1000)
    # The scrub comes by once a minute; a reader finds it now. It gets an error, or, where the kernel's read-ahead
    # found it and the repair was quicker than the read itself, what is right.
    assert run(["cmp", leader.path("a.db"), node.path("a.db")]).code != 1
    seen.wait()
    cluster.wait_equal()
    cluster.note()
    follow(cluster)


def fetch_away(cluster):
    """It was away for longer than the log reaches back: it fetches what differs."""
    leader, node = cluster.nodes[0], cluster.recorded
    node.disk.command("record")
    cluster.join()
    for name, pages in (("a.db", 700), ("b.db", 300), ("gone.db", 50), ("shrinks.db", 200)):
        fill(leader, name, pages)
    cluster.wait_equal()
    cluster.note()
    node.stop()
    cluster.known["first"] = node.disk.ops() + 1
    outgrow(leader, "pushed.db")
    change(leader, "a.db", 20)
    result = run(["rm", leader.path("gone.db")])
    assert result.code == 0, result
    sql(leader, "shrinks.db", "DELETE FROM t WHERE i > 10; VACUUM;", busy_ms=10000)
    fill(leader, "new.db", 100)
    seen = Fetches(node)
    writer = Writer([leader], "busy.db", "--pause-ms", 4, "--busy-ms", 10000)
    writer.wait_acks(1)
    node.start(join=leader.address, timeout=60)
    seen.wait()
    writer.stop()
    cluster.known["fetched"] = node.disk.ops()
    cluster.wait_equal()
    cluster.note()
    follow(cluster)


@pytest.mark.limit(300)
@pytest.mark.parametrize("work", [fetch_new, fetch_away])
def test_power_cut_in_every_operation_of_a_fetch_loses_nothing(workspace, work, soak):
    """The log of the others reaches back to the end of the fetch, not to what was before. So the node
    fetches again, or goes on, or follows."""
    cluster = Trio(workspace, SHORT_LOG)
    node, known = cluster.recorded, cluster.known
    if power.recording():
        cluster.load()
        known = cluster.known
    else:
        cluster.start()
        work(cluster)
        cluster.wait_equal()
        check_recorded(node.disk, ("create", "unfit"), ("remove", "unfit"), ("write", "a.db"))
        lose_power(node)

    def check(operation, seed):
        cluster.may_be_damaged = operation > known.get("damaged", operation)
        told = ("getting", "damaged", " E ") if cluster.may_be_damaged else ("getting",)
        words = [word for word in DAMAGE if word not in told]
        cluster.check_cut(operation, seed, ("a.db", "b.db"), words, operation <= known["fetched"])

    # the last ones first: an application that writes while the node fetches makes the log move on
    power.each_cut(
        node.disk,
        check,
        cluster.save,
        f"operation_of_a_fetch and {work.__name__}",
        soak,
        few=(5, 2),
        others=100,
        first=known.get("first", 1),
        last_first=True,
    )
    print(f"{cluster.fetches} of {cluster.cuts} fetched")
    if soak and not power.recording():
        assert 0 < cluster.fetches < cluster.cuts
    cluster.check_mounts(workspace)
