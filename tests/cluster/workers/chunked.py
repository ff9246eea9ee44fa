#!/usr/bin/python3
"""An SQLite connection that has the file grow in chunks. Python's sqlite3 module cannot ask for that.

    chunked.py DATABASE CHUNK_BYTES HINT_BYTES < STATEMENTS, one a line

HINT_BYTES: told before the first statement when it is not 0. Ends with 1, and says why, when one fails.
"""

import ctypes
import ctypes.util
import sys

OK, CHUNK_SIZE, SIZE_HINT = 0, 6, 5
sqlite = ctypes.CDLL(ctypes.util.find_library("sqlite3"))
sqlite.sqlite3_errmsg.restype = ctypes.c_char_p
sqlite.sqlite3_errmsg.argtypes = [ctypes.c_void_p]
sqlite.sqlite3_file_control.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
sqlite.sqlite3_exec.argtypes = [ctypes.c_void_p, ctypes.c_char_p] + [ctypes.c_void_p] * 3
sqlite.sqlite3_close.argtypes = [ctypes.c_void_p]
db = ctypes.c_void_p()


def check(rc, what):
    if rc != OK:
        message = sqlite.sqlite3_errmsg(db).decode() if db else "no connection"
        sys.exit(f"{what}: {message} ({rc}, {sqlite.sqlite3_extended_errcode(db)})")


path, chunk, hint = sys.argv[1], ctypes.c_int(int(sys.argv[2])), ctypes.c_int64(int(sys.argv[3]))
sqlite.sqlite3_extended_errcode.argtypes = [ctypes.c_void_p]
check(sqlite.sqlite3_open(path.encode(), ctypes.byref(db)), "open")
check(sqlite.sqlite3_exec(db, b"SELECT * FROM sqlite_schema", None, None, None), "look")
check(sqlite.sqlite3_file_control(db, b"main", CHUNK_SIZE, ctypes.byref(chunk)), "chunk size")
if hint.value:
    check(sqlite.sqlite3_file_control(db, b"main", SIZE_HINT, ctypes.byref(hint)), "size hint")
for line in sys.stdin:
    check(sqlite.sqlite3_exec(db, line.encode(), None, None, None), line.strip())
check(sqlite.sqlite3_close(db), "close")
