#!/usr/bin/python3
"""An SQLite connection that somebody else drives: one JSON request a line, one reply a line.

    connection.py DATABASE BUSY_MS
"""

import json
import sqlite3
import sys

path, busy_ms = sys.argv[1], int(sys.argv[2])
# autocommit: transactions begin and end where the driver says so
db = None

for line in sys.stdin:
    request = json.loads(line)
    try:
        if db is None:
            db = sqlite3.connect(
                path, timeout=busy_ms / 1000, isolation_level=None, uri=path.startswith("file:")
            )
        reply = {"rows": db.execute(request["sql"], request["parameters"]).fetchall()}
    except sqlite3.Error as error:
        reply = {"error": str(error), "code": getattr(error, "sqlite_errorname", None)}
    print(json.dumps(reply, default=lambda blob: blob.hex()), flush=True)
if db:
    db.close()
