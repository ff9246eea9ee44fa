"""What tests of catching up and of damage share: databases that are large enough, logs that reach back
no further, and what a node says of its fetches."""

import re

from harness import sql, until

PAGE = 4096
BEGUN = re.compile(r"; getting (?:it|the databases) from the leader")
DONE = re.compile(
    r"the databases are the leader's now.* compared_bytes=(\d+) fetched_bytes=(\d+)"
)


def fill(node, db, pages, first=1, timeout=60):
    """Rows that fill that many pages, in transactions of 8 MiB."""
    sql(node, db, "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(i INTEGER PRIMARY KEY, x);")
    for start in range(first, first + pages, 2000):
        last = min(start + 2000, first + pages) - 1
        sql(
            node,
            db,
            f"WITH RECURSIVE n(i) AS (SELECT {start} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
            " INSERT INTO t SELECT i, randomblob(3900) FROM n; PRAGMA wal_checkpoint(TRUNCATE);",
            timeout=timeout,
            busy_ms=20000,
        )


def push(node, db, what, enough):
    """Write the same few pages until it is enough."""
    sql(
        node,
        db,
        "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(i INTEGER PRIMARY KEY, x);",
        busy_ms=20000,
    )
    for _ in range(40):
        if enough():
            return
        sql(
            node,
            db,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
            " INSERT OR REPLACE INTO t SELECT i, randomblob(3900) FROM n;"
            "PRAGMA wal_checkpoint(TRUNCATE);",
            timeout=60,
            busy_ms=20000,
        )
    until(what, enough)


def push_log(node, db, until_gone):
    """Write until the segments of `until_gone` are let go of."""
    push(node, db, "the log lets go", lambda: not any(path.exists() for path in until_gone))


def outgrow(node, db):
    """Write until whoever has no more than this node has now must fetch. That its segments are gone does not
    say so: if the last entry in them is what the snapshot ends with, the log goes on from there."""
    next_index = node.status()["log"]["last_index"] + 1
    push(
        node,
        db,
        f"the log lets go of entry {next_index}",
        lambda: node.status()["log"]["first_index"] > next_index,
    )


def segments(node):
    return sorted((node.data / ".dqlitefs" / "raft").glob("segment-*.log"))


def mark(node):
    return node.data / ".dqlitefs" / "unfit"


class Fetches:
    """What the log of a node says from now on."""

    def __init__(self, node):
        self.node = node
        self.skip = len(node.log_text())

    def text(self):
        return self.node.log_text()[self.skip :]

    def begun(self):
        return len(BEGUN.findall(self.text()))

    def done(self):
        """[(compared, fetched)] in pages"""
        return [(int(a) // PAGE, int(b) // PAGE) for a, b in DONE.findall(self.text())]

    def wait(self, timeout=60):
        until(f"{self.node} has its databases", self.done, timeout)
        return self.done()[-1]
