"""Runs the same operations in two places and compares what each came to.

A case is a function that takes a Session and works through it on databases of its own: it is run
in one place after the other, and every operation leaves a Step: what was asked, what came back
(rows, or SQLite's extended result code with its message), and whether it is one of the known
differences. compare() puts the steps of two sessions side by side.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

WORKER = Path(__file__).resolve().parent / "worker.py"
LIMIT = 60  # seconds that an operation may take, on a busy machine too


@dataclass(frozen=True)
class Known:
    """A difference that the README's table of limits tells of, in the row of that name."""

    row: str
    reason: str
    mount: str  # what the mount answers, as a pattern


@dataclass
class Step:
    what: str
    outcome: str
    known: Known | None = None


class Stuck(AssertionError):
    """An operation that did not end."""


class Worker:
    """One application process."""

    def __init__(self, folder, children, env=None):
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(WORKER), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ, **env) if env else None,
            text=True,
        )
        children.append(self.process)
        self.count = 0
        self.replies = {}
        self.arrived = threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            reply = json.loads(line)
            with self.arrived:
                self.replies[reply["id"]] = reply
                self.arrived.notify_all()
        with self.arrived:
            self.replies = None
            self.arrived.notify_all()

    def send(self, request):
        self.count += 1
        line = json.dumps(dict(request, id=self.count)) + "\n"
        self.process.stdin.write(line)
        self.process.stdin.flush()
        return self.count

    def receive(self, number, limit=LIMIT):
        with self.arrived:
            there = self.arrived.wait_for(
                lambda: self.replies is None or number in self.replies, limit
            )
            if not there:
                raise Stuck(f"no answer within {limit} s")
            if self.replies is None:
                raise Stuck("the application died")
            return self.replies.pop(number)


class Place:
    """A directory and the application processes that work in it."""

    def __init__(self, name, folder, children, env=None):
        self.name = name
        self.folder = folder
        self.children = children
        self.env = env
        self.workers = {}

    def worker(self, number):
        if number not in self.workers:
            self.workers[number] = Worker(self.folder, self.children, self.env)
        return self.workers[number]

    def forget(self):
        """Other processes from now on: these may be stuck."""
        for worker in self.workers.values():
            worker.process.kill()
        self.workers = {}


class Pending:
    """An operation under way in its process."""

    def __init__(self, session, worker, number, step):
        self.session = session
        self.worker = worker
        self.number = number
        self.step = step
        self.seconds = None

    def wait(self, limit=LIMIT):
        try:
            reply = self.worker.receive(self.number, limit)
        except Stuck as stuck:
            self.step.outcome = str(stuck)
            raise Stuck(f"{self.step.what}: {stuck}") from None
        self.seconds = reply["seconds"]
        self.step.outcome = reply["error"] if "error" in reply else json.dumps(reply["rows"])
        return reply.get("rows")


class Session:
    """What a case does in one place. Names of databases are the case's own."""

    def __init__(self, place, prefix, version):
        self.place = place
        self.prefix = prefix
        self.version = version  # of the applications' SQLite
        self.steps = []
        self.connections = []
        self.made = []

    def name(self, db):
        if db in ("", ":memory:") or db.startswith("/"):
            return db
        if db.startswith("file:"):
            return f"file:{self.prefix}-{db[5:]}"
        return f"{self.prefix}-{db}"

    def outside(self, db):
        """The path of a database beside the place: on the local disk in either."""
        folder = Path(self.place.folder).parent / f"outside-{self.place.name}"
        folder.mkdir(exist_ok=True)
        return str(folder / f"{self.prefix}-{db}")

    def step(self, process, request, what, known=None):
        step = Step(what, "", known)
        self.steps.append(step)
        worker = self.place.worker(process)
        return Pending(self, worker, worker.send(request), step)

    def open(self, db="a.db", process=1, busy_ms=0):
        connection = Connection(self, process, f"{self.prefix}.{len(self.connections)}")
        self.connections.append(connection)
        connection.open(db, busy_ms)
        return connection

    def by_itself(self, op, db, process=1, known=None, limit=LIMIT, **more):
        request = dict(op=op, db=self.name(db), **more)
        what = " ".join([op, db, *(str(value) for value in more.values())])
        return self.step(process, request, what, known).wait(limit)

    def sizes(self, db="a.db", known=None):
        return self.by_itself("sizes", db, known=known)

    def digest(self, db="a.db", known=None):
        return self.by_itself("digest", db, known=known)

    def remove(self, db="a.db"):
        return self.by_itself("remove", db)

    def shell(self, script, db="a.db", known=None):
        """@NAME in a script is a database of this case."""
        script = script.replace("@", f"@{self.prefix}-")
        return self.by_itself("shell", db, known=known, script=script, busy_ms=5000)

    def note(self, what, value, known=None):
        """Something that the case itself found."""
        self.steps.append(Step(what, json.dumps(value), known))

    def end(self):
        for connection in self.connections:
            if connection.opened:
                connection.close()


class Connection:
    def __init__(self, session, process, name):
        self.session = session
        self.process = process
        self.name = name
        self.opened = False

    def ask(self, op, what, known=None, **more):
        number = self.name.rsplit(".", 1)[1]
        request = dict(op=op, connection=self.name, **more)
        return self.session.step(self.process, request, f"c{number}: {what}", known)

    def open(self, db="a.db", busy_ms=0):
        self.opened = True
        db = self.session.name(db)
        return self.ask("open", "open", db=db, busy_ms=busy_ms).wait()

    def start(self, sql, *parameters, known=None):
        return self.ask("execute", sql, known, sql=sql, parameters=parameters)

    def __call__(self, *statements, known=None):
        """Runs statements, each a step of its own; the rows of the last one."""
        rows = None
        for sql in statements:
            rows = self.start(sql, known=known).wait()
        return rows

    def run(self, sql, *parameters, known=None):
        return self.start(sql, *parameters, known=known).wait()

    def attach(self, db, alias, known=None):
        path = os.path.join(str(self.session.place.folder), self.session.name(db))
        request = dict(sql=f"ATTACH ? AS {alias}", parameters=[path])
        what = f"ATTACH {os.path.basename(db)} AS {alias}"
        return self.ask("execute", what, known, **request).wait()

    def vacuum_into(self, db, known=None):
        path = os.path.join(str(self.session.place.folder), self.session.name(db))
        request = dict(sql="VACUUM INTO ?", parameters=[path])
        return self.ask("execute", f"VACUUM INTO {db}", known, **request).wait()

    def backup(self, to, pages=-1, known=None):
        return self.ask("backup", f"backup, {pages} pages", known, to=to.name, pages=pages).wait()

    def blob_write(self, table, column, row, offset, seed, size, known=None):
        more = dict(table=table, column=column, row=row, offset=offset, seed=seed, size=size)
        return self.ask("blob_write", f"blob_write {more}", known, **more).wait()

    def blob_read(self, table, column, row, known=None):
        more = dict(table=table, column=column, row=row)
        return self.ask("blob_read", f"blob_read {more}", known, **more).wait()

    def close(self):
        self.opened = False
        return self.ask("close", "close").wait()


def compare(disk, mount):
    """What is wrong, as lines of text; nothing if nothing is. `disk` and `mount`: steps."""
    wrong = []
    for number in range(max(len(disk), len(mount))):
        if number >= len(disk) or number >= len(mount):
            place, steps = ("mount", mount) if number >= len(disk) else ("disk", disk)
            wrong.append(f"step {number + 1}: only on the {place}: {steps[number].what}")
            break
        one, other = disk[number], mount[number]
        if one.what != other.what:
            wrong.append(f"step {number + 1}: {one.what} on the disk, {other.what} on the mount")
            break
        known = other.known
        if known is None and one.outcome == other.outcome:
            continue
        if known is not None and one.outcome != other.outcome:
            if fnmatchcase(other.outcome, known.mount):
                continue
            why = f"a known difference ({known.row}), but not as it should be ({known.mount})"
        elif known is not None:
            why = f"a known difference ({known.row}) that differs no longer"
        else:
            why = "different"
        wrong += [
            f"step {number + 1}: {why}: {one.what}",
            f"    disk:  {one.outcome}",
            f"    mount: {other.outcome}",
        ]
        if len(wrong) > 12:
            wrong.append("...")
            break
    return wrong
