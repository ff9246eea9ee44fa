"""The demo behind scripts/demo: an application that goes on while its servers die.

The application is tests/cluster/workers/writer.py: Python's own sqlite3 module, a list of
mount points, and the patience to try the next one. It says which rows it has got acknowledged,
that is, whose COMMIT returned; these must be on every node in the end.
"""

import argparse
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "cluster"))
from harness import (  # noqa: E402
    Cluster,
    Workspace,
    Writer,
    check_acknowledged,
    over_io_uring,
    run,
    sql,
)

DB = "demo.db"
ROWS = 50  # in a transaction


class Demo:
    def __init__(self, workspace, seconds, seed):
        self.workspace = workspace
        self.seconds = seconds
        self.chance = random.Random(seed)
        self.started = time.monotonic()
        self.failovers = []
        self.kills = 0
        self.told = 0.0

    def say(self, text):
        print(f"{time.monotonic() - self.started:6.1f} s  {text}", flush=True)

    def rows(self):
        return len(self.writer.acks()) * ROWS

    def progress(self):
        """One line a second: who leads, and how far the application has got."""
        if time.monotonic() - self.told < 1:
            return
        self.told = time.monotonic()
        leader = self.cluster.leader()
        status = leader.status(check=False) if leader else None
        who = f"{leader} ({leader.address}) leads, term {status['term']}" if status else "no leader"
        self.say(f"{who}; {self.rows()} rows acknowledged")

    def wait(self, seconds, check=None):
        """Shows progress meanwhile; ends early when check() has a result, which it returns."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            result = check and check()
            if result:
                return result
            self.progress()
            if self.writer.process.poll() is not None:
                raise AssertionError(f"the application ended: {self.writer.text()[-3:]}")
            time.sleep(0.02)
        return None

    def first_ack_after(self, moment):
        return next((event[3] for event in self.writer.acks() if event[3] > moment), None)

    def kill_one(self):
        """Kills a node, the leader more often than not, and brings it back."""
        leader = self.cluster.leader()
        others = [node for node in self.cluster.nodes if node is not leader]
        victim = leader if leader and self.chance.random() < 0.75 else self.chance.choice(others)
        was_leader = victim is leader
        killed = time.monotonic()
        victim.kill9()
        self.kills += 1
        self.say(f"kill -9 {victim}, {'the leader' if was_leader else 'a follower'}")
        acknowledged = self.wait(30, lambda: self.first_ack_after(killed))
        if not acknowledged:
            raise AssertionError("no row was acknowledged within 30 s after a kill")
        if was_leader:
            took = acknowledged - killed
            self.failovers.append(took)
            new = self.cluster.wait_leader()
            self.say(f"{new} has taken over: first row acknowledged {took:.2f} s after the kill")
        self.wait(self.chance.uniform(0.5, 2.0))
        begun = time.monotonic()
        victim.start()
        self.cluster.wait_caught_up()  # a minority is down at any time, not more
        self.say(f"{victim} is back, and caught up within {time.monotonic() - begun:.2f} s")

    def run(self):
        self.cluster = Cluster(self.workspace, options=over_io_uring())
        self.say("starting three nodes on 127.0.0.1")
        self.cluster.start()
        for node in self.cluster.nodes:
            self.say(f"{node}: {node.address}, mounted on {node.mnt}")
        self.writer = Writer(
            self.cluster.nodes, DB, "--rows", ROWS, "--pause-ms", 15, "--busy-ms", 50, name="app"
        )
        self.writer.wait_acks(5)
        self.started = time.monotonic()
        while time.monotonic() - self.started < self.seconds:
            left = self.seconds - (time.monotonic() - self.started)
            self.wait(min(self.chance.uniform(1.5, 4.0), max(left, 0.1)))
            if left > 4 or not self.kills:
                self.kill_one()
        self.writer.stop()
        return self.verify()

    def verify(self):
        acknowledged = self.rows()
        self.say(
            f"the application ends: {acknowledged} rows acknowledged, {self.kills} nodes killed"
        )
        self.cluster.wait_equal(60)
        sound = True
        checksums = set()
        missing = 0
        for node in self.cluster.nodes:
            text = sql(node, DB, "SELECT writer, seq FROM rows", timeout=60, busy_ms=10000)
            integrity = sql(node, DB, "PRAGMA integrity_check", timeout=60, busy_ms=10000)
            entry = node.database(DB)
            checksums.add((entry["version"], entry["checksum"]))
            wanted = {seq for event in self.writer.acks() for seq in range(event[1], event[2] + 1)}
            present = {int(line.split("|")[1]) for line in text.splitlines()}
            missing += len(wanted - present)
            sound = sound and integrity == "ok"
            print(
                f"  {node}: {len(present)} rows, {len(wanted - present)} missing, version"
                f" {entry['version']}, checksum {entry['checksum']}, integrity_check {integrity}"
            )
            if not wanted - present:
                check_acknowledged(text, [self.writer])  # and nothing half
        node = self.cluster.nodes[0]
        print(f"\n$ ls -l {node.data}\n{run(['ls', '-l', str(node.data)]).out}")
        if self.failovers:
            ordered = sorted(self.failovers)
            print(
                f"{len(ordered)} failovers: median {ordered[len(ordered) // 2]:.2f} s,"
                f" worst {ordered[-1]:.2f} s"
            )
        equal = len(checksums) == 1
        if not equal:
            print(f"the checksums differ: {checksums}")
        print(f"{acknowledged} rows acknowledged, {missing} missing", flush=True)
        return sound and equal and not missing and acknowledged > 0


def interrupted(number, _):
    # as an exception, so that everything is taken down on the way out
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--seconds", type=float, default=30, metavar="N", help="how long (30)")
    parser.add_argument("--seed", type=int, default=None, help="who is killed when")
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    seed = args.seed if args.seed is not None else random.randrange(1 << 32)
    with Workspace() as workspace:
        demo = Demo(workspace, args.seconds, seed)
        try:
            good = demo.run()
        except AssertionError as error:
            print(f"demo: {error} (--seed {seed})", file=sys.stderr)
            good = False
        if not good:
            for name, tail in workspace.log_tails(20):
                print(f"=== {name}\n{tail}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
