"""What scripts/compat does: cases in tests/compat, on a local disk and on a mount.

When all cases are through, the node is killed and started again (of three: all are compared), and
every database has to be, byte for byte in its content, what the applications had left.
"""

import argparse
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP / "tests" / "cluster"), str(TOP / "tests" / "compat")]
import known  # noqa: E402
import programs  # noqa: E402
from cases import CASES  # noqa: E402
from differ import Place, Session, Stuck, compare  # noqa: E402
from harness import (  # noqa: E402
    Cluster,
    Node,
    SqlError,
    Workspace,
    over_io_uring,
    run,
    sql,
    until,
)
from sequences import Sequence  # noqa: E402

# How many random sequences, and of how many steps.
SEQUENCES = {"quick": (4, 150), "default": (40, 300), "long": (400, 600)}


class Tally:
    """What came out, by group, and a line for each failure."""

    def __init__(self):
        self.groups = {}  # name -> [passed, failed, seconds]
        self.steps = 0
        self.met = {}  # row of the README's table -> times

    def add(self, group, name, seconds, wrong):
        entry = self.groups.setdefault(group, [0, 0, 0.0])
        entry[1 if wrong else 0] += 1
        entry[2] += seconds
        if wrong:
            print(f"FAIL {name}", *(f"     {line}" for line in wrong), sep="\n", flush=True)

    def table(self):
        print(f"\n{'':<32}{'passed':>8}{'failed':>8}{'seconds':>9}")
        for group, (passed, failed, seconds) in self.groups.items():
            print(f"{group:<32}{passed:>8}{failed:>8}{seconds:>9.1f}")
        if self.steps:
            print(f"\n{self.steps} steps compared; known differences met, by row of the README:")
            for row, count in sorted(self.met.items()):
                print(f"    {row:<28}{count:>8}")
        passed = sum(entry[0] for entry in self.groups.values())
        failed = sum(entry[1] for entry in self.groups.values())
        print(f"\n{passed} passed, {failed} failed")
        return failed == 0


class Mounts:
    """A node alone, or three of which the leader is used."""

    def __init__(self, workspace, cluster):
        self.workspace = workspace
        self.cluster = None
        # as large as it is, since a busy machine is not to bring an election about
        options = ["--election-timeout", "3000", "--commit-timeout", "30"]
        options += over_io_uring()
        if cluster:
            self.cluster = Cluster(workspace, options=options).start(60)
            self.node = self.cluster.wait_follows(30)
        else:
            self.node = Node(workspace, "one", options=options).start()
            until("the node leads", lambda: self.node.status()["role"] == "leader")

    def contents(self, node, names):
        found = {}
        for name in names:
            script = "PRAGMA integrity_check;\n.sha3sum --schema"
            try:
                found[name] = sql(node, name, script, 60, 10000)
            except SqlError as error:
                found[name] = str(error)
        return found

    def databases(self):
        listing = run(["ls", str(self.node.mnt)])
        return [name for name in listing.out.split() if name.endswith(".db")]

    def verify(self):
        """What is wrong with what was replicated."""
        before = self.contents(self.node, self.databases())
        if self.cluster:
            self.cluster.wait_equal(60)
            others = [node for node in self.cluster.nodes if node is not self.node]
        else:
            self.node.kill9()
            self.node.start(timeout=60)
            until("the node leads", lambda: self.node.status()["role"] == "leader", 30)
            others = [self.node]
        wrong = []
        for node in others:
            after = self.contents(node, before)
            for name in before:
                if before[name] != after[name]:
                    wrong.append(f"{name} on {node}: {after[name]}; was: {before[name]}")
        return wrong


def version_of(place):
    """Of the SQLite that applications have."""
    session = Session(place, "version", (0,))
    connection = session.open(":memory:")
    text = connection("SELECT sqlite_version()")[0][0]
    connection.close()
    return tuple(map(int, text.split(".")))


def play(function, prefix, places, version, tally):
    """One case in both places; what is wrong."""
    sessions, wrong = [], []
    for place in places:
        session = Session(place, prefix, version)
        sessions.append(session)
        try:
            function(session)
            session.end()
        except (Stuck, BrokenPipeError) as error:
            wrong.append(f"on the {place.name}: {error}")
            place.forget()
        except Exception as error:  # of the case itself, after an outcome it was not made for
            session.steps.append(session.steps[-1].__class__("the case goes on", repr(error)))
            place.forget()
    tally.steps += len(sessions[0].steps)
    for step in sessions[1].steps:
        if step.known:
            tally.met[step.known.row] = tally.met.get(step.known.row, 0) + 1
    return wrong + compare(sessions[0].steps, sessions[1].steps)


def run_cases(args, places, mounts, tally):
    version = version_of(places[0])
    print(
        f"# SQLite {'.'.join(map(str, version))} of the applications, on {places[0].folder} and on"
        f" {places[1].folder}, {'the leader of three' if args.cluster else 'a node alone'}",
        flush=True,
    )
    number = 0
    for name, function, quick in CASES:
        if (args.quick and not quick) or args.k not in name:
            continue
        number += 1
        began = time.monotonic()
        wrong = play(function, f"c{number}", places, version, tally)
        tally.add(name.split("[")[0], name, time.monotonic() - began, wrong)
        if args.verbose:
            print(f"# {name} {time.monotonic() - began:.2f} s", flush=True)
    count, length = SEQUENCES["quick" if args.quick else "long" if args.long else "default"]
    if args.count is not None:
        count = args.count
    if args.k not in "random":
        count = 0
    if count:
        print(f"# random sequences from --seed {args.seed}", flush=True)
    for seed in range(args.seed, args.seed + count):
        began = time.monotonic()
        wrong = play(
            lambda s: Sequence(seed, length, version).play(s), f"r{seed}", places, version, tally
        )
        tally.add("random", f"random, --seed {seed}", time.monotonic() - began, wrong)
    for place in places:
        place.forget()
    began = time.monotonic()
    try:
        wrong = mounts.verify()
    except AssertionError as error:
        wrong = [str(error)]
    what = "all nodes have the same" if args.cluster else "kept over a kill"
    tally.add(what, what, time.monotonic() - began, wrong)


def interrupted(number, _):
    raise SystemExit(128 + number)


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/compat")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--mptest", action="store_true")
    parser.add_argument("--upstream", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="the time of each case")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--count", type=int, help="random sequences")
    parser.add_argument("-k", default="", metavar="TEXT")
    return parser.parse_args()


def main():
    args = arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    missing = known.rows_missing((TOP / "README.md").read_text())
    if missing:
        sys.exit(f"compat: not in the README's table of limits: {', '.join(missing)}")
    tally = Tally()
    with Workspace() as workspace:
        env = None
        if args.upstream:
            env = {"LD_LIBRARY_PATH": str(programs.build_library())}
        disk = workspace.base / "disk"
        disk.mkdir()
        try:
            if args.mptest:
                programs.run_all(args, workspace, disk, Mounts, tally)
            else:
                mounts = Mounts(workspace, args.cluster)
                places = [
                    Place("disk", disk, workspace.children, env),
                    Place("mount", mounts.node.mnt, workspace.children, env),
                ]
                run_cases(args, places, mounts, tally)
        except AssertionError as error:
            tally.add("the run itself", "the run itself", 0, str(error).splitlines())
        if any(entry[1] for entry in tally.groups.values()):
            for name, tail in workspace.log_tails(20):
                print(f"=== {name}\n{tail}")
    return 0 if tally.table() else 1


if __name__ == "__main__":
    sys.exit(main())
