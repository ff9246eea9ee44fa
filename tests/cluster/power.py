"""What tests of power cuts share: databases of which every state is known, and the cuts in each of
the operations that the disk of a node saw while they came about.

A workload runs once, with every changing operation of the disk (tests/lossy) recorded. Then power
"fails" in each of them: the disk is made again as it was in that moment, a seed chooses what of the
volatile survives, and a node starts from that. Each transaction counts itself in its database and
leaves a known content, so what the node shows tells exactly which of them it has.
"""

import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

from harness import Connection, run, sql, until

HOWS = ("hang", "hang", "hang", "fail")  # what the daemon sees of a power cut, see lossyfs.c


def start(node, timeout=30):
    node.start(timeout=timeout)
    until(f"{node} leads", lambda: node.status()["role"] == "leader")
    return node


def lose_power(node):
    """And what it told of I/O errors is forgotten: the next start begins a new log."""
    node.lose_power()
    node.stderr_path.write_text("")


def launch_and_lose_power(node, operations, how, join=None, seconds=0.7):
    """Starts it, and cuts its power in that many operations, or later if it does not do so many."""
    node.disk.cut(operations, how)
    node.launch(join)
    end = time.monotonic() + seconds
    while not node.disk.is_off() and node.running and time.monotonic() < end:
        time.sleep(0.01)
    lose_power(node)


# --- a workload of which every state is known ---------------------------------------------------


def rows(first, count, salt, length=100):
    """Inserts rows of known content, of about `length` bytes each."""
    return (
        f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n"
        f" WHERE i < {first + count - 1})"
        f" INSERT INTO t SELECT i, replace(printf('%.{length // 8}c', '*'), '*',"
        f" printf('%08x', i * 7919 + {salt})) FROM n"
    )


class Database:
    """One connection, and what is known of the database's states. `recorded`: the node whose disk
    is recorded, if that is another than the one that the application writes on."""

    def __init__(self, node, name, mode, recorded=None):
        self.node = node
        self.name = name
        self.mode = mode
        self.recorded = recorded or node
        self.connection = Connection(node, name, timeout=60)
        # each: the number in its table `seq`, its digest, operations before it began and after
        # the recorded node had it, for certain
        self.states = []
        self.seq = 0

    def operations(self):
        return self.recorded.disk.ops()

    def acknowledged(self):
        """Operations after the recorded node had what was acknowledged by now. On a follower that
        is no later than when an entry is applied: before that it is in its own log, durably."""
        if self.recorded is not self.node:
            goal = self.node.status()["commit_index"]
            until(
                f"{self.recorded} has it",
                lambda: self.recorded.status()["applied_index"] >= goal,
                60,
                0.002,
            )
        return self.operations()

    def digest(self):
        return sql(self.node, self.name, ".sha3sum", timeout=60)

    def create(self):
        begun = self.operations()
        self.connection.execute(f"PRAGMA journal_mode={self.mode}")
        self.do("CREATE TABLE seq(n)", "INSERT INTO seq VALUES(0)", "CREATE TABLE t(i, x)")
        self.states[-1]["begun"] = begun

    def do(self, *statements):
        """A transaction, acknowledged."""
        begun = self.operations()
        self.seq += 1
        self.connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            self.connection.execute(statement)
        self.connection.execute(f"UPDATE seq SET n = {self.seq}")
        self.connection.execute("COMMIT")
        acknowledged = self.acknowledged()
        self.states.append(
            {
                "seq": self.seq,
                "digest": self.digest(),
                "begun": begun,
                "acknowledged": acknowledged,
            }
        )

    def run(self, statement):
        """Something that changes no content."""
        self.connection.execute(statement)

    def remove(self):
        """The file; create() makes it anew."""
        self.connection.close()
        begun = self.operations()
        result = run(["rm", self.node.path(self.name)])
        assert result.code == 0, result
        self.seq += 1
        self.states.append(
            {
                "seq": self.seq,
                "digest": None,
                "begun": begun,
                "acknowledged": self.acknowledged(),
            }
        )
        self.connection = Connection(self.node, self.name, timeout=60)


def points(node):
    """Durable points so far."""
    return node.disk.counts().get(("rename", "snapshot.tmp"), 0)


# --- after a power cut --------------------------------------------------------------------------


def content(node, name):
    """(number, digest) of a database; number 0 before its first transaction."""
    script = "SELECT count(*) FROM sqlite_schema WHERE name = 'seq'"
    # a file that is not there must not be made by looking at it
    names = [entry["name"] for entry in node.status()["databases"]]
    if name not in names or sql(node, name, script, busy_ms=10000) == "0":
        return 0, None
    script = "SELECT n FROM seq; PRAGMA integrity_check;\n.sha3sum"
    answer = sql(node, name, script, timeout=60, busy_ms=10000)
    number, sound, digest = answer.split("\n", 2)
    assert sound == "ok", f"{name}: {sound}"
    return int(number), digest


def check_states(node, states, operation):
    """All that was acknowledged before the operation is there, as it was, and nothing half.
    Returns the state of each."""
    found = {}
    for name, history in states.items():
        number, digest = content(node, name)
        nothing = {"seq": 0, "digest": None, "begun": 0, "acknowledged": 0}
        begun = [state for state in [nothing, *history] if state["begun"] < operation]
        least = max(n for n, state in enumerate(begun) if state["acknowledged"] < operation)
        may = {state["seq"] if state["digest"] else 0: state["digest"] for state in begun[least:]}
        assert number in may, f"{name} is at {number}, not at one of {sorted(may)}"
        assert digest == may[number], f"{name} at {number} is {digest}, not {may[number]}"
        found[name] = number
    return found


DAMAGE = ("damaged", "does not match", "fork", "does not hold", "getting", "lost", " E ")


def check_log(node, words=DAMAGE):
    """Nothing in the log of a start after a power cut says that something was wrong."""
    for line in node.log_text().splitlines():
        assert not any(word in line for word in words), line


# --- all of them --------------------------------------------------------------------------------

def check_recorded(disk, *wanted):
    """The workload was what it is meant to be: the disk saw these, (kind, file)."""
    missing = set(wanted) - set(disk.counts())
    assert not missing, f"not in the recording: {missing}"


def is_telling(operation):
    """Not one of the thousands of writes that nothing on the disk depends on."""
    kind, name, offset, _, sync = operation
    if name.startswith("spare-"):
        return kind != "write" or not offset
    return sync or kind not in ("write", "truncate", "setattr")


def recording():
    """The directory of a recording that is to be repeated, or None."""
    place = os.environ.get("DQLITEFS_RECORDING")
    return Path(place) if place else None


def load(disk):
    """The operations of recording() are in the disk. Returns what is known of them."""
    disk.command("load", recording() / "operations", timeout=60)
    return json.loads((recording() / "known").read_text())


def keep(disk, known, others=()):
    """For a repetition, with the data of other nodes. Returns the directory."""
    if recording():
        return recording()
    place = Path(tempfile.mkdtemp(prefix="dqlitefs-recording-", dir="/var/tmp"))
    disk.command("save", place / "operations", timeout=60)
    (place / "known").write_text(json.dumps(known))
    for node in others:
        node.stop()
        subprocess.run(["cp", "-a", node.data, place / node.name], check=True)
    return place


def each_cut(disk, check, save, test, soak, few=(20, 12), others=300, first=1, last_first=False):
    """check(operation, seed) for power cuts in the recorded operations from `first` on: with `soak`
    in all that are telling and that many `others`, else in a `few` of both.

    What fails is repeated by the line that is printed, from what save() keeps."""
    operations = disk.operations()
    chance = random.Random()
    if "DQLITEFS_CUT" in os.environ:
        cuts = [tuple(map(int, os.environ["DQLITEFS_CUT"].split(":")))]
    else:
        chosen, kinds = [], ([], [])
        for n, one in enumerate(operations, 1):
            if n >= first:
                kinds[not is_telling(one)].append(n)
        # unless there is time for all: some of every kind
        for kind, count in zip(kinds, (len(kinds[0]), others) if soak else few):
            step = max(len(kind) // max(count, 1), 1)
            chosen += kind[chance.randrange(step) :: step]
        cuts = [(operation, chance.randrange(1 << 32)) for operation in sorted(chosen)]
        print(f"{len(cuts)} cuts, {len(kinds[0])} operations are telling, {len(kinds[1])} not")
    for operation, seed in reversed(cuts) if last_first else cuts:
        try:
            check(operation, seed)
        except BaseException:
            print(f"power failed in operation {operation}: {operations[operation - 1]}")
            print(
                f"repeat: DQLITEFS_RECORDING={save()} DQLITEFS_CUT={operation}:{seed}"
                f" scripts/test -k '{test}'"
            )
            raise
