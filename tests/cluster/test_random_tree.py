"""The same commands, in random order, in a mount and in a local directory: directories, copies, renames,
removals, transactions in all journal modes and over two databases. After each kill of the daemon both hold
the same."""

import os
import random
import subprocess
import time

import pytest
from harness import Node, run, until

DIRECTORIES = [".", "p", "p/q", "r"]
NAMES = ["a.db", "b.db", "c.db"]
SIDES = ["wal", "shm", "journal"]
MODES = ["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY"]


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
                    f"sqlite3 {path} 'PRAGMA journal_mode={mode};"
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
                    f"sqlite3 {source} \"ATTACH '{target}' AS o; BEGIN; INSERT INTO main.t VALUES(1);"
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


@pytest.mark.limit(120)
def test_random_commands_leave_what_they_leave_in_a_local_directory(workspace, soak):
    seed = int(os.environ.get("DQLITEFS_SEED", random.randrange(1 << 32)))
    chance = random.Random(seed)
    node = Node(workspace, "n1", options=["--log-size", "16M"]).start()
    local = workspace.base / "local"
    local.mkdir()
    twins = Twins(node, local, chance)
    until("the node leads", lambda: node.status()["role"] == "leader")
    end = time.monotonic() + (600 if soak else 10)
    try:
        while time.monotonic() < end:
            for _ in range(chance.randint(3, 14)):
                twins.step()
            if chance.random() < 0.5:
                node.kill9()
            else:
                node.stop()
            node.start()
            there, here = twins.content(node.mnt), twins.content(local)
            different = {k for k in {*there, *here} if there.get(k) != here.get(k)}
            assert not different, [(k, there.get(k), here.get(k)) for k in different]
    except (AssertionError, subprocess.SubprocessError):
        print(f"repeat: DQLITEFS_SEED={seed}; the last commands: {twins.done[-25:]}")
        raise
    assert " E " not in node.log_text()
