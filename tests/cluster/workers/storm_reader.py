#!/usr/bin/python3
"""A reader during a storm of transactions, each of which keeps this true (see `storm` in
test_reader_storm.py): the balances of `account` add up to 1000, `log` has as many rows as
`tick` says, and `tick` only grows. Any error and any broken promise is printed, with status 1.

    storm_reader.py PATH SECONDS [reopen] [mmap]
"""

import sqlite3
import sys
import time

path, seconds, options = sys.argv[1], float(sys.argv[2]), sys.argv[3:]


def connect():
    # An open may meet another process that recovers the wal-index, or that closes the last
    # connection: SQLite itself has it wait. A reader at work never has to.
    db = sqlite3.connect(path, timeout=5, isolation_level=None)
    if "mmap" in options:
        db.execute("PRAGMA mmap_size=268435456")
    if "reopen" not in options:
        db.execute("SELECT n FROM tick").fetchone()
        db.execute("PRAGMA busy_timeout=0")
    return db


def fail(text):
    print(text, flush=True)
    sys.exit(1)


db, last, reads, seen = connect(), 0, 0, set()
end = time.monotonic() + seconds
while time.monotonic() < end:
    try:
        if "reopen" in options:
            db.close()
            db = connect()
        db.execute("BEGIN")
        tick = db.execute("SELECT n FROM tick").fetchone()[0]
        total = db.execute("SELECT sum(balance) FROM account").fetchone()[0]
        rows = db.execute("SELECT count(*), coalesce(max(id), 0) FROM log").fetchone()
        again = db.execute("SELECT n FROM tick").fetchone()[0]
        db.execute("COMMIT")
    except sqlite3.Error as error:
        fail(
            f"after {reads} reads at tick {last}: {getattr(error, 'sqlite_errorname', '')} {error}"
        )
    if total != 1000 or rows != (tick, tick) or again != tick:
        fail(f"torn: tick {tick}, then {again}; balances {total}; log {rows}")
    if tick < last:
        fail(f"backwards: tick {tick} after {last}")
    last = tick
    reads += 1
    seen.add(tick)
    if reads % 50 == 0:
        try:
            check = db.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.Error as error:
            fail(f"quick_check: {error}")
        if check != "ok":
            fail(f"quick_check: {check}")
print(f"reads {reads} ticks {len(seen)} last {last}")
