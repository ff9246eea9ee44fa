"""What scripts/test does: runs the suites side by side, and counts.

A suite is a process of its own, in a session of its own, which ends with this one. Its temporary files
are in a directory of its own, so that whatever it leaves (it may crash, or be killed) can be found:
processes, mounts and files below that, and network namespaces called after it.

The longest begin first, by what they took the last time (build/test.seconds) or else by a guess, so that
the end is not a wait for one of them. What others need (Suite.needs) is a suite, too, that counts only when
it fails.
"""

import argparse
import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
OUT = TOP / "build" / "test"
TIMES = TOP / "build" / "test.seconds"
PYTEST = ["/usr/bin/python3", "-B", "-m", "pytest", "-v", "-rs", "-p", "no:cacheprovider", "--color=no"]
GRACE = 60  # seconds for a suite that was interrupted to unmount what it mounted
SHOWN = 200  # lines of the output of a suite that failed

# Seconds that a file of cluster tests takes, more or less, where that is far from what its size says. What
# takes longer than SHARE is as many suites. The tests keep their order, and each share makes what they have
# in common for itself.
SECONDS = {
    "test_attach": 160,
    "test_bad_input": 25,
    "test_catch_up": 130,
    "test_create_elsewhere": 120,
    "test_durable_points": 150,
    "test_former_landing": 100,
    "test_large_transactions": 90,
    "test_many_databases": 100,
    "test_moves": 120,
    "test_power_loss": 120,
    "test_power_loss_follower": 120,
    "test_reads_that_end": 130,
    "test_recover": 100,
    "test_streamed_transactions": 160,
    "test_unchanged": 140,
    "test_without_fsync": 150,
    "test_without_journal": 130,
}
SHARE = 90


# ---- what a suite says ---------------------------------------------------------------------------


class Result:
    def __init__(self, passed=None, failed=0, skipped=0):
        self.passed = passed  # None: there is no result in the output
        self.failed = failed
        self.skipped = skipped


def count_tap(suite, status):
    """TAP, as cmocka writes it. A program that ends well short of its plan stopped half-way."""
    planned, result = 0, Result(0)
    for line in suite.output().splitlines():
        if plan := re.match(r"1\.\.(\d+)", line):
            planned += int(plan[1])
        elif re.match(r"(not )?ok\b", line):
            if re.search(r"# *SKIP", line, re.I):
                result.skipped += 1
            elif line.startswith("ok"):
                result.passed += 1
            else:
                result.failed += 1
    missing = planned - result.passed - result.failed - result.skipped
    if not planned:
        result.passed = None
    elif status == 0 and missing > 0:
        result.failed += missing
    return result


def count_summary(suite, status):
    """The last line that reads "N passed, N failed[, N skipped]"."""
    found = re.findall(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", suite.output(), re.M)
    return Result(*(int(count or 0) for count in found[-1])) if found else Result()


def count_pytest(suite, status):
    """pytest's own report in XML. A suite of which -k, or its being for longer runs, left nothing, is none."""
    if status == 5:
        return None
    try:
        cases = xml.etree.ElementTree.parse(suite.xml()).getroot().iter("testcase")
    except (OSError, xml.etree.ElementTree.ParseError):
        return Result()
    result = Result(0)
    for case in cases:
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            result.failed += 1
        elif "skipped" in kinds:
            result.skipped += 1
        else:
            result.passed += 1
    return result


def count_status(suite, status):
    return Result(0) if status == 0 else Result(0, 1)


# ---- a suite -------------------------------------------------------------------------------------


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Suite:
    def __init__(self, name, command, seconds, count, size=0, needs=None, env=()):
        self.name = name
        self.command = [str(word) for word in command]
        self.seconds = seconds  # its watchdog's
        self.count = count
        self.size = size
        self.needs = needs  # a suite that has to end first
        self.env = dict(env)
        self.process = None
        self.ended = False
        self.late = False

    def log(self):
        return OUT / f"{self.name}.log"

    def xml(self):
        return OUT / f"{self.name}.xml"

    def output(self):
        return self.log().read_text(errors="backslashreplace")

    def start(self, tmp):
        self.tmp = tmp  # short: there are sockets below
        self.tmp.mkdir()
        self.log().parent.mkdir(parents=True, exist_ok=True)
        command = self.command
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig=INT", *command]
        with open(self.log(), "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=TOP,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, DQLITEFS_TMP=str(self.tmp), TMPDIR=str(self.tmp), **self.env),
                start_new_session=True,
            )
        self.fd = os.pidfd_open(self.process.pid)
        self.begun = time.monotonic()
        self.next_signal = self.begun + self.seconds

    def interrupt(self):
        """First so that it can clean up; a minute later there is no choice."""
        self.next_signal = time.monotonic() + GRACE
        if self.late:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.send_signal(signal.SIGINT)
        self.late = True

    def took(self):
        return time.monotonic() - self.begun

    def end(self):
        """What came of it: (result, what else was wrong)."""
        os.killpg(self.process.pid, signal.SIGKILL)  # its children, if any; it is a zombie yet
        status = self.process.wait()
        os.close(self.fd)
        self.ended = True
        seconds = self.took()
        left = self.clean()
        result = self.count(self, status)
        if result is None:
            return None, ""
        problem = ""
        if self.late and seconds >= self.seconds:
            problem = f"did not end within {self.seconds} s"
        elif self.late:
            problem = "interrupted"
        elif status < 0:
            problem = f"died of {signal.Signals(-status).name}"
        elif status and not result.failed:
            problem = f"exit status {status}, though no test failed"
        if result.passed is None:
            problem = problem or "gave no result"
        problem = problem or left
        if problem:
            result.failed += 1
        result.passed = result.passed or 0
        return result, problem

    def clean(self):
        """Takes away what it left, and tells of it."""
        left = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    mine = os.fsencode(self.tmp) + b"/" in (entry / "cmdline").read_bytes()
                    if mine and not has_ended(entry.name):
                        os.kill(int(entry.name), signal.SIGKILL)
                        left.append(f"process {entry.name}")
                except OSError:
                    continue
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            before, after = line.split(" - ", 1)
            point = before.split()[4].encode().decode("unicode_escape")
            if f"{point}/".startswith(f"{self.tmp}/") or after.split()[1].startswith(f"{self.tmp}/"):
                subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL)
                left.append(f"mount {point}")
        for path in Path("/run/netns").glob(f"dqfs{self.process.pid}[hn]*"):
            subprocess.run(["ip", "netns", "del", path.name], stderr=subprocess.DEVNULL)
            left.append(f"namespace {path.name}")
        shutil.rmtree(self.tmp, ignore_errors=True)
        return "left behind: " + ", ".join(left) if left else ""


# ---- the run -------------------------------------------------------------------------------------


class Run:
    def __init__(self, suites, jobs):
        self.waiting = suites
        self.jobs = jobs
        self.started = 0
        self.running = []
        self.count = 0
        self.total = Result(0)
        self.broken = []
        self.interrupted = False
        self.times = read_times()

    def tell(self, suite, result, problem):
        """A line, and all that it said if it failed."""
        self.total.passed += result.passed
        self.total.failed += result.failed
        self.total.skipped += result.skipped
        if suite.count is count_status and not result.failed:
            return
        self.count += 1
        print(
            f"{'FAIL' if result.failed else 'ok':<4} {suite.name:<42} {result.passed:3} passed,"
            f" {result.failed} failed"
            + (f", {result.skipped} skipped" if result.skipped else "")
            + f"  ({suite.took():.0f} s)"
            + (f" - {problem}" if problem else "")
        )
        lines = suite.output().splitlines()
        if result.failed:
            self.broken.append(suite.name)
            lines = lines[-SHOWN:]
        else:
            lines = [line for line in lines if re.search("# ?SKIP|^SKIPPED", line)]
        for line in lines if result.failed or result.skipped else ():
            print(f"     | {line}")
        sys.stdout.flush()

    def next(self):
        for suite in self.waiting:
            if not suite.needs or suite.needs.ended:
                return suite
        return None

    def fill(self, scratch):
        while not self.interrupted and len(self.running) < self.jobs and (suite := self.next()):
            self.waiting.remove(suite)
            self.started += 1
            suite.start(scratch / str(self.started))
            self.running.append(suite)

    def interrupt(self, *_):
        """Ctrl-C: all of them get the time to clean up. Once more: they do not."""
        if not self.interrupted:
            print("test: interrupted; ending what runs", file=sys.stderr)
        self.interrupted = True
        for suite in self.running:
            suite.interrupt()

    def wait(self):
        """Until one ends, or its time is over."""
        poll = select.poll()
        for suite in self.running:
            poll.register(suite.fd, select.POLLIN)
        now = time.monotonic()
        left = min(suite.next_signal for suite in self.running) - now
        # not longer: a signal's handler may have changed when that is
        ready = {fd for fd, _ in poll.poll(min(max(0, left), 1) * 1000 + 1)}
        for suite in list(self.running):
            if suite.fd in ready:
                self.running.remove(suite)
                result, problem = suite.end()
                if result:
                    self.tell(suite, result, problem)
                    if not result.failed and not suite.late:
                        self.times[suite.name] = round(suite.took(), 1)
            elif time.monotonic() >= suite.next_signal:
                suite.interrupt()

    def all(self, scratch):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.interrupt)
        # what others wait for, then the longest
        needed = {suite.needs for suite in self.waiting}
        self.waiting.sort(key=lambda suite: (suite not in needed, -self.expected(suite)))
        self.fill(scratch)
        while self.running:
            self.wait()
            self.fill(scratch)

    def keep_times(self):
        TIMES.write_text(json.dumps(self.times, indent=1, sort_keys=True) + "\n")

    def expected(self, suite):
        return self.times.get(suite.name, suite.size)

    def missing(self, name, why):
        """A suite that was to be there and is not."""
        self.total.failed += 1
        self.broken.append(name)
        print(f"FAIL {name:<42} - {why}", flush=True)


def read_times():
    try:
        return json.loads(TIMES.read_text())
    except (OSError, ValueError):
        return {}


# ---- which suites there are ----------------------------------------------------------------------


def size(source):
    """Seconds that it takes, if it is like most."""
    return min(SHARE, source.stat().st_size / 300)


def unit_suites(options, missing):
    for source in sorted(TOP.glob("tests/unit/test_*.c")):
        program = TOP / "build" / "tests" / "unit" / source.stem
        if os.access(program, os.X_OK):
            seconds = 600 if options.soak else 120
            yield Suite(source.stem, [program], seconds, count_tap, env={"CMOCKA_MESSAGE_OUTPUT": "TAP"})
        else:
            missing.append((source.stem, "not built: is it listed in tests/unit/meson.build?"))
    for name in ("layers", "locks"):
        yield Suite(name, ["/usr/bin/python3", "-B", f"tests/{name}.py"], 600, count_summary, 20)


def sim_suites(options, missing):
    program = TOP / "build" / "dqlitefs-sim"
    if os.access(program, os.X_OK):
        seeds = 2000 if options.soak else 50
        seconds = 7200 if options.soak else 600
        yield Suite("simulator", [program, "--seeds", seeds], seconds, count_summary, 60)
    else:
        missing.append(("simulator", "build/dqlitefs-sim was not built"))


def cluster_suites(options, needs):
    """`needs`: {file: the suite that it waits for}, "": that of all others."""
    seconds = 7200 if options.soak else 900
    env = {"DQLITEFS_SOAK": "1"} if options.soak else {}
    for source in sorted(TOP.glob("tests/cluster/test_*.py")):
        expected = SECONDS.get(source.stem, size(source))
        shares = 1 if options.k else math.ceil(expected / SHARE)
        for share in range(1, shares + 1):
            name = f"cluster/{source.stem}" + (f"-{share}" if shares > 1 else "")
            words = [*PYTEST, f"--junitxml={OUT / name}.xml", source.relative_to(TOP)]
            if shares > 1:
                words += ["--share", f"{share}/{shares}"]
            if options.k:
                words += ["-k", options.k]
            needed = needs.get(source.stem, needs[""])
            yield Suite(name, words, seconds, count_pytest, expected / shares, needed, env)


def compat_suites(options, programs):
    seconds = 7200 if options.soak else 600
    length = "--long" if options.soak else "--quick"
    for name, words, expected in (("compat", [], 180), ("compat-sqlite", ["--mptest"], 30)):
        command = ["scripts/compat", *words, length]
        yield Suite(name, command, seconds, count_summary, expected, programs, {"DQLITEFS_BUILT": "1"})


def main():
    parser = argparse.ArgumentParser(prog="scripts/test", add_help=False, allow_abbrev=False)
    for kind in ("unit", "sim", "cluster", "compat", "soak"):
        parser.add_argument(f"--{kind}", action="store_true")
    parser.add_argument("--fuse-uring", choices=["on", "off"])
    parser.add_argument("-j", type=int, default=2 * len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("-k", metavar="EXPR")
    options = parser.parse_args()
    if options.j < 1:
        parser.error("-j wants a number of suites, 1 or more")
    if not (options.unit or options.sim or options.cluster or options.compat):
        options.cluster = True
        options.unit = options.sim = options.compat = not options.k
    if options.fuse_uring:
        os.environ["DQLITEFS_FUSE_URING"] = options.fuse_uring

    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    suites, missing, needs = [], [], {"": None}
    if options.cluster or options.compat:
        # Applications of some tests use this SQLite. To compile it is nothing that a test has time for.
        command = ["/usr/bin/python3", "-B", "tests/compat/programs.py"]
        env = {"PYTHONPATH": "tests/cluster"}
        needs[""] = Suite("programs", command, 900, count_status, env=env)
    if options.cluster and not options.k:  # with -k that test builds it, if it is one of those
        command = ["/usr/bin/python3", "-B", "tests/cluster/former.py"]
        needs["test_former_landing"] = Suite("former", command, 900, count_status)
    suites += [suite for suite in needs.values() if suite]
    if options.unit:
        suites += unit_suites(options, missing)
    if options.sim:
        suites += sim_suites(options, missing)
    if options.cluster:
        suites += cluster_suites(options, needs)
    if options.compat:
        suites += compat_suites(options, needs[""])

    run = Run(suites, options.j)
    for name, why in missing:
        run.missing(name, why)
    scratch = Path(tempfile.mkdtemp(prefix="dqlitefs-test-", dir=os.environ.get("DQLITEFS_TMP", "/var/tmp")))
    begun = time.monotonic()
    try:
        run.all(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not options.k and not options.soak:
        run.keep_times()
    if options.k and not run.count:
        run.missing("cluster", "no test matches")
    print(f"{run.count} suites, up to {options.j} at once, in {time.monotonic() - begun:.0f} s")
    if run.broken:
        print("failed:", *run.broken)
    skipped = f", {run.total.skipped} skipped" if run.total.skipped else ""
    print(f"{run.total.passed} passed, {run.total.failed} failed{skipped}", flush=True)
    return 130 if run.interrupted else 1 if run.total.failed else 0


sys.exit(main())
