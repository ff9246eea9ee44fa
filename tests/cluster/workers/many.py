#!/usr/bin/python3
"""An application with many databases, numbered, of which every second is in WAL mode.

    many.py DIRECTORY WORK NUMBER...

WORK is one of
    make    each is made, written and closed
    write   each is opened, gets one more row, and is closed
    read    each is opened, read and closed
    hold    each is opened and read; all stay open until standard input ends. Says "ready".
Prints for every database that could not be opened its number and the error.
"""

import sqlite3
import sys

directory, work = sys.argv[1:3]
kept = []


def visit(number):
    db = None
    try:
        db = sqlite3.connect(f"{directory}/many{number}.db", timeout=20, isolation_level=None)
        if work == "make":
            if number % 2:
                db.execute("PRAGMA journal_mode=WAL").fetchall()
            db.execute("CREATE TABLE IF NOT EXISTS t(x)")
        if work in ("make", "write"):
            db.execute("INSERT INTO t VALUES(?)", (number,))
        for (value,) in db.execute("SELECT x FROM t"):
            assert value == number, f"{value} in database {number}"
    except sqlite3.Error as error:
        print(number, error, flush=True)
    if work == "hold":
        kept.append(db)
    elif db:
        db.close()


for argument in sys.argv[3:]:
    visit(int(argument))
if work == "hold":
    print("ready", flush=True)
    sys.stdin.read()
