"""The same commands, in random order, in a mount and in a local directory: directories, copies, renames,
removals, transactions in all journal modes and over two databases. After each kill of the daemon both hold
the same; of three nodes, all do, whichever of them led, died or was away."""

import os
import random
import subprocess
import time

import pytest
from harness import PROGRAM, Cluster, Node, run, until

DIRECTORIES = [".", "p", "p/q", "r"]
NAMES = ["a.db", "b.db", "c.db"]
SIDES = ["wal", "shm", "journal"]
MODES = ["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY"]
SQLITE3 = "sqlite3 -cmd '.timeout 10000'"


class Twins:
    def __init__(self, node, local, chance):
        self.node = node
        self.local = local
        self.chance = chance
        self.done = []

    def both(self, command):
        self.done.append(command)
        there, here = (
            run(["sh", "-c", command], 30, cwd=str(place)) for place in (self.node.mnt, self.local)
        )
        assert (there.code == 0) == (here.code == 0), f"{command}: {there}, locally {here}"

    def path(self):
        return f"{self.chance.choice(DIRECTORIES)}/{self.chance.choice(NAMES)}"

    def pair(self):
        """A database that is there, and another path."""
        source, target = self.path(), self.path()
        there = source != target and (self.local / source).exists()
        return (source, target) if there else (None, None)

    def step(self):
        kind = self.chance.choices(
            ["mkdir", "rmdir", "write", "mv", "rm", "cp", "attach"], [12, 8, 30, 16, 10, 12, 12]
        )[0]
        if kind in ("mkdir", "rmdir"):
            self.both(f"{kind} {self.chance.choice(DIRECTORIES[1:])}")
        elif kind == "write":
            path, mode = self.path(), self.chance.choice(MODES)
            if (self.local / path).parent.is_dir():
                self.both(
                    f"{SQLITE3} {path} 'PRAGMA journal_mode={mode};"
                    f" CREATE TABLE IF NOT EXISTS t(i);"
                    f" INSERT INTO t VALUES({self.chance.randrange(1000)});'"
                )
        elif kind == "rm":
            path = self.path()
            self.both(f"rm -f {path} " + " ".join(f"{path}-{side}" for side in SIDES))
        else:
            source, target = self.pair()
            if not source:
                return
            if kind == "mv":
                # a local directory keeps the side files of the names
                sides = " ".join(f"{p}-{s}" for p in (source, target) for s in SIDES)
                self.both(f"mv {source} {target} && rm -f {sides}")
            elif kind == "cp" and (self.local / target).parent.is_dir():
                self.both(f"cp {source} {target}")
            elif kind == "attach" and all(
                (self.local / path).exists() and (self.local / path).stat().st_size
                for path in (source, target)
            ):
                self.both(
                    f"{SQLITE3} {source} \"ATTACH '{target}' AS o; BEGIN; INSERT INTO main.t VALUES(1);"
                    ' INSERT INTO o.t VALUES(2); COMMIT;"'
                )

    def content(self, place):
        found = {}
        for folder, folders, files in os.walk(place):
            for name in folders:
                found[os.path.relpath(os.path.join(folder, name), place)] = "directory"
            for name in files:
                if name.endswith(".db"):
                    path = os.path.join(folder, name)
                    script = "PRAGMA integrity_check;\n.dump"
                    command = ["sqlite3", "-batch", "-cmd", ".timeout 5000", path]
                    result = run(command, 30, stdin=script)
                    found[os.path.relpath(path, place)] = result.out + result.err
        return found


def check_same(twins, nodes):
    here = twins.content(twins.local)
    for node in nodes:
        there = twins.content(node.mnt)
        different = {k for k in {*there, *here} if there.get(k) != here.get(k)}
        assert not different, [(node, k, there.get(k), here.get(k)) for k in different]


def run_rounds(workspace, node, seconds, restart):
    """Some steps, then what `restart` does, of which it returns the nodes that must have it all."""
    seed = int(os.environ.get("DQLITEFS_SEED", random.randrange(1 << 32)))
    chance = random.Random(seed)
    local = workspace.base / "local"
    local.mkdir()
    twins = Twins(node, local, chance)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            for _ in range(chance.randint(3, 14)):
                twins.step()
            check_same(twins, restart(twins))
    except (AssertionError, subprocess.SubprocessError):
        print(f"repeat: DQLITEFS_SEED={seed}; the last commands: {twins.done[-25:]}")
        raise
    for node in workspace.nodes:
        assert " E " not in node.log_text()


@pytest.mark.limit(120)
def test_random_commands_leave_what_they_leave_in_a_local_directory(workspace, soak):
    node = Node(workspace, "n1", options=["--log-size", "16M"]).start()
    until("the node leads", lambda: node.status()["role"] == "leader")

    def restart(twins):
        if twins.chance.random() < 0.5:
            node.kill9()
        else:
            node.stop()
        node.start()
        return [node]

    run_rounds(workspace, node, 600 if soak else 10, restart)


def writable(cluster):
    """The leader, as soon as it lets applications write."""

    def check():
        leader = cluster.wait_follows(30)
        probe = leader.path("probe")
        done = run(["sh", "-c", f"mkdir {probe} && rmdir {probe}"], 30)
        assert done.code == 0, done
        return leader

    return until("a node takes what applications write", check, 30)


@pytest.mark.limit(180)
def test_random_commands_on_three_nodes_are_on_all_of_them(workspace, soak):
    cluster = Cluster(workspace, options=["--log-size", "16M", "--election-timeout", "3000"]).start()

    def restart(twins):
        """All of them are there for the commands of some rounds, a leader and one more for the others."""
        leader, chance = twins.node, twins.chance
        dead = [node for node in cluster.nodes if not node.running]
        fate = chance.choice(["start"] if dead else ["leader", "follower", "transfer", "all"])
        if fate == "start":
            dead[0].start(timeout=60)
        elif fate == "transfer":
            assert run([PROGRAM, "transfer", str(leader.mnt)], 30).code == 0
        elif fate == "all":
            for node in cluster.nodes:
                node.kill9()
            for node in cluster.nodes:
                node.launch()
            for node in cluster.nodes:
                node.wait_mounted(60)
        else:
            node = leader if fate == "leader" else chance.choice(cluster.followers())
            (node.kill9 if chance.random() < 0.5 else node.stop)()
        twins.done.append(f"({fate})")
        twins.node = writable(cluster)
        cluster.wait_equal(60)
        return cluster.running

    run_rounds(workspace, writable(cluster), 600 if soak else 20, restart)
