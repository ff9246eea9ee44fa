#!/usr/bin/python3
"""An application that inserts rows in transactions: nothing but Python's sqlite3 module.

It is given the database's path in one or more mounts, and writes where it may: a locked
database (after its busy timeout) or an I/O error makes it try the next path. It prints

    ack FIRST LAST TIME PATH            these rows' COMMIT returned (at this monotonic time)
    fail FIRST LAST TIME PATH MESSAGE   these rows' transaction failed, at the latest at COMMIT

and never uses the numbers of a failed transaction again. SIGTERM ends it between transactions.
"""

import argparse
import os
import random
import signal
import sqlite3
import time

parser = argparse.ArgumentParser()
parser.add_argument("--name", default="w")
parser.add_argument("--rows", type=int, default=5, help="rows in a transaction")
parser.add_argument("--count", type=int, default=0, help="transactions, 0: until told to stop")
parser.add_argument("--body", type=int, default=100, help="bytes in a row")
parser.add_argument(
    "--pause-ms", type=float, default=0, help="between transactions, at random up to"
)
parser.add_argument("--busy-ms", type=int, default=10000)
parser.add_argument("--mode", default="wal")
parser.add_argument("--pragma", action="append", default=[])
parser.add_argument("--first", type=int, default=1)
parser.add_argument("--once", action="store_true", help="end with status 1 at the first failure")
parser.add_argument("paths", nargs="+")
args = parser.parse_args()

stopped = False


def stop(*_):
    global stopped
    stopped = True


signal.signal(signal.SIGTERM, stop)


def say(kind, first, last, which, message=""):
    line = f"{kind} {first} {last} {time.monotonic():.6f} {which} {message}".rstrip()
    os.write(1, (line.replace("\n", " ") + "\n").encode())


def connect(path):
    db = sqlite3.connect(path, timeout=args.busy_ms / 1000, isolation_level=None)
    # A new database in the wrong place is worse than none: only what is there, or what this
    # node lets us create.
    if db.execute("PRAGMA journal_mode").fetchone()[0] != args.mode:
        db.execute(f"PRAGMA journal_mode={args.mode}")
    for pragma in args.pragma:
        db.execute(f"PRAGMA {pragma}")
    db.execute(
        "CREATE TABLE IF NOT EXISTS rows(writer TEXT, seq INTEGER, body BLOB,"
        " PRIMARY KEY(writer, seq))"
    )
    return db


def close(db):
    try:
        if db:
            db.close()
    except sqlite3.Error:
        pass


which, db, done, seq = 0, None, 0, args.first
while not stopped and (not args.count or done < args.count):
    first, last, begun = seq, seq + args.rows - 1, False
    try:
        if db is None:
            db = connect(args.paths[which])
        db.execute("BEGIN IMMEDIATE")
        begun = True
        for number in range(first, last + 1):
            db.execute(
                "INSERT INTO rows VALUES(?, ?, ?)", (args.name, number, os.urandom(args.body))
            )
        db.execute("COMMIT")
    except sqlite3.Error as error:
        if begun:
            say("fail", first, last, which, str(error))
            seq = last + 1
        if args.once:
            os.write(1, f"{error}\n".encode())
            os._exit(1)
        # A connection that failed may still be good; a new one surely knows no more than
        # the file says.
        close(db)
        db = None
        which = (which + 1) % len(args.paths)
        time.sleep(0.005)
        continue
    say("ack", first, last, which)
    seq = last + 1
    done += 1
    if args.pause_ms:
        time.sleep(random.random() * args.pause_ms / 1000)
close(db)
