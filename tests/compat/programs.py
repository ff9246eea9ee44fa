"""SQLite's own test programs, as an application would have them: built from the unpatched source
that scripts/setup keeps, into build/tests/sqlite.

mptest runs processes against each other on one database: some write in turns, some die in the midst
of a transaction, some set themselves up in another way than the rest. kvtest reads and overwrites
blobs, speedtest1 does what SQLite's authors measure, and prints a hash of all its results.
"""

import fcntl
import re
import shutil
import time
from pathlib import Path

from harness import Hang, SqlError, run, sql_file

TOP = Path(__file__).resolve().parents[2]
SOURCE = TOP / "build" / "third-party" / "sqlite" / "upstream"
BUILT = TOP / "build" / "tests" / "sqlite"

FLAGS = ["-O2", "-fPIC", "-w", f"-I{SOURCE}"]
DEFINES = [
    "-DSQLITE_THREADSAFE=1",
    # what Debian's has too: Python and the cases use it
    "-DSQLITE_ENABLE_COLUMN_METADATA",
    "-DSQLITE_ENABLE_FTS5",
    "-DSQLITE_ENABLE_RTREE",
]
LIBRARIES = ["-lpthread", "-ldl", "-lm"]
LIMIT = 300


def compiled(*words):
    result = run(["cc", *words], 300)
    assert result.code == 0, f"cc {' '.join(map(str, words))}: {result.err}"


def build():
    """The programs and a library, if they are not there yet."""
    if not shutil.which("cc"):
        raise AssertionError("needs a C compiler (apt-get install gcc)")
    stamp = BUILT / ".built"
    want = (SOURCE / "VERSION").read_text() + " ".join(FLAGS + DEFINES)
    BUILT.mkdir(parents=True, exist_ok=True)
    with open(BUILT / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == want:
            return
        print(f"# building SQLite's test programs in {BUILT.relative_to(TOP)}", flush=True)
        library = BUILT / "sqlite3.o"
        compiled(*FLAGS, *DEFINES, "-c", "-o", library, SOURCE / "sqlite3.c")
        for source in ("mptest/mptest.c", "kvtest.c", "speedtest1.c"):
            program = BUILT / Path(source).stem
            compiled(*FLAGS, *DEFINES, "-o", program, SOURCE / source, library, *LIBRARIES)
        compiled(
            *["-shared", "-Wl,-soname,libsqlite3.so.0", "-o", BUILT / "libsqlite3.so.0", library],
            *LIBRARIES,
        )
        stamp.write_text(want)


def build_library():
    """The folder in which an application finds this SQLite instead of the system's."""
    build()
    return BUILT


class Programs:
    def __init__(self, places, tally):
        self.places = places  # [(name, folder)], the disk first
        self.tally = tally
        self.count = 0

    def prepare(self):
        self.count += 1
        return f"p{self.count}.db"

    def check(self, group, name, function):
        """function(folder, db): None or what is wrong, and something to compare."""
        db = self.prepare()
        found = []
        for place, folder in self.places:
            began = time.monotonic()
            try:
                wrong, seen = function(folder, db)
                health = sql_file(folder / db, "PRAGMA integrity_check", 120, 10000)
                if health != "ok":
                    wrong = wrong + [f"integrity_check: {health}"]
            except (Hang, SqlError) as error:
                wrong, seen = [str(error)], None
            found.append(seen)
            if not wrong and seen != found[0]:
                wrong = ["different:", f"    disk:  {found[0]}", f"    {place}: {seen}"]
            seconds = time.monotonic() - began
            print(f"# {name} on the {place}: {seconds:.1f} s", flush=True)
            self.tally.add(f"{group} on the {place}", f"{name} on the {place}", seconds, wrong)

    def mptest(self, script, journal, repeat=1):
        def work(folder, db):
            words = [BUILT / "mptest", folder / db, script, "--journalmode", journal]
            words += ["--repeat", repeat, "--timeout", "30000"]
            result = run(words, LIMIT, cwd=SOURCE / "mptest")
            summary = re.search(r"Summary: (\d+) errors? out of (\d+) tests", result.out)
            tail = (result.out + result.err).splitlines()[-15:]
            if result.code != 0 or not summary or summary[1] != "0" or summary[2] == "0":
                errors = [line for line in result.err.splitlines() if "ERROR" in line]
                return [f"exit {result.code}", *errors[:10], *tail], None
            return [], summary[2]

        self.check("mptest", f"mptest {script} {journal}", work)

    def kvtest(self, journal, *options, count=300):
        def work(folder, db):
            path = folder / db
            words = ["init", path, "--count", count, "--size", 9000, "--variance", 8000]
            result = run([BUILT / "kvtest", *words], LIMIT)
            if result.code != 0:
                return [result.out + result.err], None
            words = ["run", path, "--count", count, "--jmode", journal, "--integrity-check"]
            result = run([BUILT / "kvtest", *words, *options], LIMIT)
            if result.code != 0 or "integrity-check: ok" not in result.out.lower():
                return [result.out + result.err], None
            return [], sql_file(path, "SELECT count(*), sum(length(v)>0) FROM kv", 60, 10000)

        self.check("kvtest", f"kvtest {journal} {' '.join(options)}", work)

    def speedtest1(self, journal, size, *options):
        def work(folder, db):
            words = ["--journal", journal, "--size", size, "--verify", *options, folder / db]
            result = run([BUILT / "speedtest1", *words], LIMIT)
            hashed = re.search(r"Verification Hash: .*", result.out)
            if result.code != 0 or not hashed:
                return [(result.out + result.err)[-1000:]], None
            content = sql_file(folder / db, ".sha3sum --schema", 60, 10000)
            return [], f"{hashed[0]} {content}"

        self.check("speedtest1", f"speedtest1 {journal} {' '.join(options)}", work)


def run_all(args, workspace, disk, mounts_of, tally):
    build()
    mounts = mounts_of(workspace, args.cluster)
    programs = Programs([("disk", disk), ("mount", mounts.node.mnt)], tally)
    version = (SOURCE / "VERSION").read_text().strip()
    print(f"# SQLite {version}, {'the leader of three' if args.cluster else 'a node alone'}")
    if args.quick:
        programs.mptest("crash01.test", "WAL")
        programs.mptest("multiwrite01.test", "DELETE")
        programs.kvtest("wal", "--update", "--multitrans", count=100)
        programs.speedtest1("delete", 2)
    else:
        for journal in ("WAL", "DELETE", "TRUNCATE", "PERSIST"):
            for script in ("multiwrite01.test", "crash01.test"):
                programs.mptest(script, journal, 3 if args.long else 1)
        # these change the page size by VACUUM: with rollback journals only
        for script in ("config01.test", "config02.test"):
            programs.mptest(script, "DELETE")
        for journal in ("wal", "delete", "truncate", "persist"):
            programs.kvtest(journal, "--random", "--update")
            programs.kvtest(journal, "--blob-api", "--update", "--multitrans", "--mmap", "1000000")
        for journal in ("wal", "delete", "truncate", "persist"):
            programs.speedtest1(journal, 30 if args.long else 5)
        # its part "app" opens a second connection
        alone = ("--exclusive", "--testset", "main,orm", "--cachesize", "5")
        programs.speedtest1("wal", 5, *alone, "--checkpoint")
        programs.speedtest1("delete", 5, *alone, "--incrvacuum")
    began = time.monotonic()
    tally.add("the same after all", "the same after all", time.monotonic() - began, mounts.verify())


if __name__ == "__main__":
    build()
