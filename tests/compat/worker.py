#!/usr/bin/python3
"""An application process that scripts/compat drives: any number of SQLite connections, each with
a thread of its own, in one directory. One JSON request a line, one reply a line with the same
`id`, in the order in which they are done.

    worker.py FOLDER

Only the stock sqlite3 module, in autocommit: transactions begin and end where the driver says.
"""

import hashlib
import json
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time

FOLDER = sys.argv[1]
SUFFIXES = ("", "-journal", "-wal", "-shm")
printing = threading.Lock()


def blob(seed, size):
    """The same bytes for the same arguments, everywhere."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


def plain(value):
    """What JSON can hold; long values by their hash."""
    if isinstance(value, bytes):
        return f"x'{value.hex() if len(value) <= 32 else hashlib.sha256(value).hexdigest()}'"
    if isinstance(value, str) and len(value) > 200:
        return f"{len(value)}:{hashlib.sha256(value.encode()).hexdigest()}"
    return value


def outcome(call):
    """What an operation came to: {"rows"} or {"error"}, SQLite's extended code by name."""
    try:
        rows = call()
        return {"rows": [[plain(value) for value in row] for row in rows or ()]}
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        return {"error": f"{name}: {error}"}
    except OSError as error:
        return {"error": f"OSError: {error.strerror}"}
    except Exception as error:  # of Python's module, or a connection that could not be opened
        return {"error": f"{type(error).__name__}: {error}"}


def path_of(db):
    if db.startswith("file:"):
        return "file:" + os.path.join(FOLDER, db[5:])
    return db if db in ("", ":memory:") else os.path.join(FOLDER, db)


def connect(db, busy_ms):
    connection = sqlite3.connect(
        path_of(db),
        timeout=busy_ms / 1000,
        isolation_level=None,
        check_same_thread=False,
        uri=db.startswith("file:"),
    )
    connection.create_function("blob", 2, blob, deterministic=True)
    return connection


class Connection:
    """A connection and its thread; requests for it are done one after the other."""

    def __init__(self):
        self.db = None
        self.requests = queue.Queue()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            request = self.requests.get()
            began = time.monotonic()
            reply = outcome(lambda: getattr(self, request["op"])(request))
            reply["seconds"] = time.monotonic() - began
            answer(request, reply)

    def open(self, request):
        self.db = connect(request["db"], request["busy_ms"])

    def execute(self, request):
        return self.db.execute(request["sql"], request["parameters"]).fetchall()

    def close(self, request):
        self.db.close()
        self.db = None

    def backup(self, request):
        self.db.backup(connections[request["to"]].db, pages=request["pages"])

    def blob_write(self, request):
        with self.db.blobopen(request["table"], request["column"], request["row"]) as handle:
            handle.seek(request["offset"])
            handle.write(blob(request["seed"], request["size"]))

    def blob_read(self, request):
        with self.db.blobopen(
            request["table"], request["column"], request["row"], readonly=True
        ) as handle:
            return [[len(handle), handle.read()]]


connections = {}


def hammer(request):
    """Threads, each with a connection, that write in transactions of their own until each has done
    its share, trying again after BUSY. Rows: (transactions, codes seen)."""
    codes, errors, lock = set(), [], threading.Lock()

    def work(number):
        try:
            db = connect(request["db"], request["busy_ms"])
            for pragma in request["pragmas"]:
                db.execute(f"PRAGMA {pragma}").fetchall()
            end = time.monotonic() + request["limit"]
            for turn in range(request["count"]):
                while True:
                    try:
                        db.execute(request["begin"])
                        db.execute(
                            "INSERT INTO t(who, turn, body) VALUES(?, ?, blob(?, ?))",
                            (number, turn, f"{number}.{turn}", request["size"]),
                        )
                        db.execute(
                            "UPDATE totals SET n = n + 1, bytes = bytes + ? WHERE who = ?",
                            (request["size"], number),
                        )
                        db.execute("COMMIT")
                        break
                    except sqlite3.OperationalError as error:
                        with lock:
                            codes.add(error.sqlite_errorname)
                        if db.in_transaction:
                            db.execute("ROLLBACK")
                        if "BUSY" not in error.sqlite_errorname or time.monotonic() > end:
                            raise
                        time.sleep(0.002)
                row = db.execute("SELECT sum(n), sum(bytes) FROM totals").fetchone()
                if row[1] != row[0] * request["size"]:
                    raise AssertionError(f"a reader saw half a transaction: {row}")
            db.close()
        except (sqlite3.Error, AssertionError) as error:
            errors.append(f"{getattr(error, 'sqlite_errorname', '')}: {error}")

    threads = [
        threading.Thread(target=work, args=(request["first"] + i,))
        for i in range(request["threads"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [[",".join(sorted(codes)), "; ".join(sorted(errors))]]


def sizes(request):
    """(suffix, size) of the files of a database that are there."""
    found = []
    for suffix in SUFFIXES:
        try:
            about = os.stat(path_of(request["db"]) + suffix)
        except FileNotFoundError:
            continue
        # how long a wal-index is, SQLite does not promise
        found.append([suffix, about.st_size if suffix != "-shm" else None])
    return found


def remove(request):
    """A database and what belongs to it."""
    for suffix in SUFFIXES:
        try:
            os.unlink(path_of(request["db"]) + suffix)
        except FileNotFoundError:
            pass


def digest(request):
    with open(path_of(request["db"]), "rb") as file:
        return [[hashlib.sha256(file.read()).hexdigest()]]


def shell(request):
    """A script in the sqlite3 shell; @ in its words stands for the directory."""
    result = subprocess.run(
        [
            *["sqlite3", "-batch", "-init", "/dev/null", "-cmd", f".timeout {request['busy_ms']}"],
            path_of(request["db"]),
        ],
        input=request["script"].replace("@", FOLDER + "/"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        # always the system's: a shell takes no library but that of its own release
        env={name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"},
        check=False,
    )
    return [[result.returncode, result.stdout.replace(FOLDER + "/", "@")]]


def answer(request, reply):
    reply["id"] = request["id"]
    with printing:
        print(json.dumps(reply), flush=True)


def by_itself(request):
    call = {"sizes": sizes, "remove": remove, "digest": digest, "shell": shell, "hammer": hammer}
    began = time.monotonic()
    reply = outcome(lambda: call[request["op"]](request))
    reply["seconds"] = time.monotonic() - began
    answer(request, reply)


for line in sys.stdin:
    request = json.loads(line)
    if "connection" not in request:
        threading.Thread(target=by_itself, args=(request,), daemon=True).start()
        continue
    name = request["connection"]
    if name not in connections:
        connections[name] = Connection()
    connections[name].requests.put(request)
os._exit(0)
