"""The measurements behind scripts/bench, with tests/bench/sqlite_bench.c as the client.

Three places are measured in turn, so that what disturbs the machine disturbs all of them: the
disk itself, the mount of a node alone, and the leader of three nodes on this one machine (for
selects also a follower). A repetition gives one ratio to the disk; the table shows medians.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests" / "cluster"))
from harness import (  # noqa: E402
    PROGRAM,
    Cluster,
    Node,
    Workspace,
    end_process,
    over_io_uring,
    run,
    sql,
    until,
)

PARTS = ["insert", "select", "bulk", "failover"]
TARGETS = {  # ratios to the disk that were set as goals before any tuning
    ("insert FULL", "one node"): 1.3,
    ("insert FULL", "three nodes"): 3.0,
    ("select", "one node"): 1.1,
    ("select", "three nodes"): 1.1,
    ("select", "a follower"): 1.1,
    ("bulk", "one node"): 6.0,
    ("bulk", "three nodes"): 6.0,
}
FAILOVER_TARGET = 1.5  # seconds, median


def note(text):
    print(f"# {text}", file=sys.stderr, flush=True)


def build_client(workspace):
    """Against the system's SQLite: its header when there is one, else that of our own copy."""
    client = workspace.base / "sqlite_bench"
    command = ["cc", "-O2", "-Wall", "-o", client, TOP / "tests" / "bench" / "sqlite_bench.c"]
    if not Path("/usr/include/sqlite3.h").exists():
        command.insert(1, f"-I{TOP / 'build' / 'third-party' / 'sqlite'}")
    for library in ("-lsqlite3", "-l:libsqlite3.so.0"):
        result = run([*command, library], 60)
        if result.code == 0:
            return client
    sys.exit(f"bench: cannot build the client: {result.err}")


class Place:
    """Where a client works. No folder: on the node that leads just then."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder


class Bench:
    def __init__(self, workspace, reps, scale):
        self.workspace = workspace
        self.reps = reps
        self.scale = scale
        self.figures = {}  # (test, place) -> [value of each repetition]
        self.client = build_client(workspace)

    def start(self):
        self.one = Node(self.workspace, "one", options=over_io_uring()).start()
        until("the node alone leads", lambda: self.one.status()["role"] == "leader")
        self.cluster = Cluster(self.workspace, options=over_io_uring()).start()
        disk = self.workspace.base / "disk"
        disk.mkdir()
        self.disk = Place("disk", disk)
        self.places = [self.disk, Place("one node", self.one.mnt), Place("three nodes", None)]

    def folder(self, place):
        return place.folder or self.cluster.wait_leader().mnt

    def measure(self, *words, timeout=300):
        result = run([self.client, *words], timeout)
        if result.code != 0:
            raise AssertionError(f"{' '.join(map(str, words))}: {result.err.strip()}")
        pairs = result.out.split()
        return {pairs[i]: float(pairs[i + 1]) for i in range(0, len(pairs), 2)}

    def add(self, test, place, value):
        self.figures.setdefault((test, place), []).append(value)

    def settle(self):
        """Followers have caught up, and the disk has nothing left to write."""
        self.cluster.wait_equal(120)
        run(["sync", "--file-system", str(self.workspace.base)])

    def remove(self, folder, db):
        run(
            [
                "rm",
                "-f",
                *(str(folder / (db + suffix)) for suffix in ("", "-wal", "-shm", "-journal")),
            ]
        )

    def rotate(self, rep):
        turn = rep % len(self.places)
        return self.places[turn:] + self.places[:turn]

    def insert(self):
        count = max(50, int(1000 * self.scale))
        for rep in range(self.reps):
            for synchronous in ("FULL", "NORMAL"):
                for place in self.rotate(rep):
                    self.settle()
                    folder = self.folder(place)
                    found = self.measure(
                        "insert", folder / f"insert_{synchronous}.db", count, synchronous
                    )
                    self.add(f"insert {synchronous}", place.name, found["p50"])
            note(f"insert: repetition {rep + 1} of {self.reps}")

    def bulk(self):
        rows = int(200000 * self.scale)
        for rep in range(self.reps):
            for place in self.rotate(rep):
                self.settle()
                folder = self.folder(place)
                found = self.measure("bulk", folder / f"bulk{rep}.db", rows)
                self.add("bulk", place.name, found["mean"])
                if place.folder is None:
                    self.settle()
                self.remove(folder, f"bulk{rep}.db")
            note(f"bulk: repetition {rep + 1} of {self.reps}")

    def select(self):
        rows, count = int(200000 * self.scale), int(20000 * max(self.scale, 0.25))
        for place in self.places:
            self.measure("bulk", self.folder(place) / "select.db", rows)
        self.settle()
        leader = self.cluster.wait_leader()
        follower = next(node for node in self.cluster.nodes if node is not leader)
        until(
            "the rows are on the follower",
            lambda: sql(follower, "select.db", "SELECT count(*) FROM t", 60, 10000) == str(rows),
            60,
        )
        places = [*self.places, Place("a follower", follower.mnt)]
        for rep in range(self.reps):
            turn = rep % len(places)
            for place in places[turn:] + places[:turn]:
                found = self.measure("select", self.folder(place) / "select.db", count)
                self.add("select", place.name, found["p50"])
            note(f"select: repetition {rep + 1} of {self.reps}")

    def failover(self, kills):
        """From the kill of the leader to the first insert that one of the others acknowledges
        to a client that keeps trying."""
        times = []
        sql(
            self.cluster.wait_leader(),
            "failover.db",
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b BLOB);",
            30,
            10000,
        )
        self.settle()
        for kill in range(kills):
            leader = self.cluster.wait_follows()
            others = [node for node in self.cluster.nodes if node is not leader]
            clients = []
            for node in others:
                client = subprocess.Popen(
                    [str(self.client), "poll", str(node.path("failover.db"))],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                self.workspace.children.append(client)
                clients.append(client)
            for client in clients:
                if client.stdout.readline().split() != ["polling", "1"]:
                    raise AssertionError(f"the polling client: {client.stderr.read()}")
            time.sleep(0.3)
            killed = time.monotonic_ns()
            leader.kill9()
            until(
                "an insert is acknowledged",
                lambda: any(c.poll() is not None for c in clients),
                60,
                0.005,
            )
            # where both got one in, the earlier counts
            time.sleep(0.05)
            acknowledged = []
            for client in clients:
                if client.poll() == 0:
                    acknowledged.append(int(client.stdout.read().split()[1]))
                end_process(client)
            times.append((min(acknowledged) - killed) / 1e9)
            leader.start()
            self.cluster.wait_follows()
            self.cluster.wait_caught_up()
            note(f"failover: {kill + 1} of {kills}: {times[-1]:.2f} s")
        self.figures[("failover", "three nodes")] = times

    def table(self):
        print(f"\n{'median of repetitions':<24}{'disk':>12}", end="")
        for name in ("one node", "three nodes", "a follower"):
            print(f"{name:>28}", end="")
        print()
        units = {"bulk": ("ms", 1e3)}
        for test in ("insert FULL", "insert NORMAL", "bulk", "select"):
            base = self.figures.get((test, "disk"))
            if not base:
                continue
            unit, divisor = units.get(test, ("us", 1))
            print(f"{test + ', ' + unit:<24}{statistics.median(base) / divisor:>12.1f}", end="")
            for name in ("one node", "three nodes", "a follower"):
                values = self.figures.get((test, name))
                if not values:
                    print(f"{'':>28}", end="")
                    continue
                ratio = statistics.median(value / disk for value, disk in zip(values, base))
                text = f"{statistics.median(values) / divisor:.1f} = {ratio:.2f}x"
                target = TARGETS.get((test, name))
                if target:
                    text += f" (<={target:g}){'' if ratio <= target else '!'}"
                print(f"{text:>28}", end="")
            print()
        times = self.figures.get(("failover", "three nodes"))
        if times:
            median = statistics.median(times)
            mark = "" if median < FAILOVER_TARGET else "!"
            print(
                f"{'failover, s':<24}median {median:.2f} (<{FAILOVER_TARGET:g}){mark},"
                f" worst {max(times):.2f}, of {len(times)}"
            )
        print(
            "inserts and selects: median latency within a run; x: to the disk; !: over the target"
        )


def build_type():
    """Debug builds are not worth measuring; says so, and goes on."""
    options = TOP / "build" / "meson-info" / "intro-buildoptions.json"
    try:
        found = {option["name"]: option["value"] for option in json.loads(options.read_text())}
    except (OSError, ValueError):
        return
    if found.get("buildtype") != "release":
        note(f"build/ is a {found.get('buildtype')} build: figures of a release build are better")


def interrupted(number, _):
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS")
    parser.add_argument("--reps", type=int, default=5, metavar="N")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    parts = args.only.split(",")
    unknown = set(parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}: choose among {', '.join(PARTS)}")
    if args.reps < 1:
        parser.error("--reps must be at least 1")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    if not shutil.which("cc"):
        sys.exit("bench: needs a C compiler (apt-get install gcc)")
    build_type()
    version = run(["sqlite3", "--version"]).out.split()[:1]
    with Workspace() as workspace:
        bench = Bench(workspace, args.reps, 0.1 if args.quick else 1.0)
        try:
            bench.start()
            note(
                f"{PROGRAM} against SQLite {' '.join(version)} on {workspace.base.parent},"
                f" {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
            )
            for part in PARTS:
                if part not in parts:
                    continue
                if part == "failover":
                    bench.failover(3 if args.quick else 10)
                else:
                    getattr(bench, part)()
        except AssertionError as error:
            for name, tail in workspace.log_tails(20):
                print(f"=== {name}\n{tail}", file=sys.stderr)
            bench.table()
            sys.exit(f"bench: {error}")
        bench.table()
        if args.json:
            args.json.write_text(
                json.dumps({" / ".join(k): v for k, v in bench.figures.items()}, indent=1)
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
