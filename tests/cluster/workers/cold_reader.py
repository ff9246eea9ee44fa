#!/usr/bin/python3
"""A reader with next to no cache of its own, whose pages the kernel does not keep either: nearly every
read asks the daemon. It tells a line "reading" once it does, goes on until it has an error of which trying
again is no cure, or until its stdin is closed, and then tells what it saw, as JSON: the number of whole
reads, those errors, and every result that no transaction left (all `v` of table t are equal, always).

    cold_reader.py PATH [reopen]      reopen: go on with a new connection after an error
"""

import collections
import json
import os
import select
import sqlite3
import sys

path, options = sys.argv[1], sys.argv[2:]
reads, errors, wrong = 0, collections.Counter(), []
again = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect():
    # never makes a database where the mount is gone
    db = sqlite3.connect(f"file:{path}?mode=rw", timeout=5, isolation_level=None, uri=True)
    db.execute("PRAGMA cache_size=5")
    db.execute("PRAGMA mmap_size=0")
    return db


# Closing any descriptor of a file drops the locks that SQLite has on it: this one stays.
cached = os.open(path, os.O_RDONLY)
db = None
while not select.select([sys.stdin], [], [], 0)[0]:
    os.posix_fadvise(cached, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        if db is None:
            db = connect()
        least, most, rows = db.execute("SELECT min(v), max(v), count(x) FROM t").fetchone()
        if least != most or not rows:
            wrong.append([least, most, rows])
        reads += 1
        if reads == 3:
            print("reading", flush=True)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in again:
            continue
        errors[error.sqlite_errorname] += 1
        if "reopen" not in options or error.sqlite_errorcode & 0xFF in (
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        ):
            break
        db = None
print(json.dumps({"reads": reads, "errors": errors, "wrong": wrong}), flush=True)
os._exit(0)  # no close: what it would tell is the kernel's alone
