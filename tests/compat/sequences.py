"""Statement sequences made from a seed: the same seed makes the same sequence, everywhere.

Three connections, in two processes, and whatever statements come up. None has a busy timeout, so
who gets BUSY is no matter of time. The generator does not look at outcomes: a statement that makes
no sense where it comes is answered with an error, by both places alike.
"""

import random

from known import SPILL_MENDED

JOURNALS = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL"]
SMALL_CACHE = 2
LARGE_CACHE = 5000


class Sequence:
    def __init__(self, seed, length, version):
        self.rng = random.Random(seed)
        self.length = length
        # Old releases cannot spill and then ROLLBACK TO in WAL mode (see known.py): there the
        # cache is small or savepoints are rolled back to, never both.
        old = version < SPILL_MENDED
        spill = self.rng.random() < 0.5
        self.rollback_to = not (old and spill)
        self.caches = [SMALL_CACHE, 10, 50] if spill else [LARGE_CACHE]
        if not old and not spill:
            self.caches = [SMALL_CACHE, 100, LARGE_CACHE]
        self.next_id = 1

    def ids(self):
        low = self.rng.randrange(self.next_id)
        return f"id BETWEEN {low} AND {low + self.rng.choice((1, 5, 50, 400))}"

    def insert(self):
        count = self.rng.choice((1, 1, 2, 10, 60))
        size = self.rng.choice((0, 10, 100, 700, 3000))
        first, self.next_id = self.next_id, self.next_id + count
        return (
            f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i+1 FROM n"
            f" WHERE i<{first + count - 1}) INSERT OR IGNORE INTO t(id, a, b)"
            f" SELECT i, i*{self.rng.randrange(1, 100)}%97, blob(i, {size}) FROM n"
        )

    def write(self):
        rng = self.rng
        return rng.choice(
            (
                self.insert,
                self.insert,
                self.insert,
                lambda: f"UPDATE t SET a=a+{rng.randrange(9)} WHERE {self.ids()}",
                lambda: f"UPDATE t SET b=blob(id+{rng.randrange(9)}, {rng.randrange(2000)})"
                f" WHERE {self.ids()}",
                lambda: f"DELETE FROM t WHERE {self.ids()}",
                lambda: f"REPLACE INTO t VALUES({rng.randrange(1, self.next_id + 1)}, 1, 'r')",
                lambda: f"INSERT INTO u SELECT a, length(b) FROM t WHERE {self.ids()}",
                lambda: "DELETE FROM u",
            )
        )()

    def read(self):
        return self.rng.choice(
            (
                "SELECT count(*), sum(id), sum(a), sum(length(b)) FROM t",
                f"SELECT id, a, b FROM t WHERE {self.ids()} ORDER BY id LIMIT 5",
                "SELECT a, count(*) FROM t INDEXED BY ta GROUP BY a ORDER BY a LIMIT 5",
                "SELECT count(*), sum(x) FROM u",
                "SELECT name FROM sqlite_master ORDER BY name",
            )
        )

    def transaction(self):
        rng = self.rng
        name = rng.choice("xyz")
        choices = ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "COMMIT", "COMMIT", "COMMIT"]
        choices += ["ROLLBACK", f"SAVEPOINT {name}", f"RELEASE {name}"]
        if self.rollback_to:
            choices += [f"ROLLBACK TO {name}"] * 2
        return rng.choice(choices)

    def schema(self):
        return self.rng.choice(
            (
                "CREATE INDEX IF NOT EXISTS ta ON t(a, id)",
                "DROP INDEX IF EXISTS ta",
                "CREATE TABLE IF NOT EXISTS u(x, y)",
                "DROP TABLE IF EXISTS u",
                "REINDEX",
                "ANALYZE",
            )
        )

    def pragma(self):
        rng = self.rng
        return "PRAGMA " + rng.choice(
            (
                f"cache_size={rng.choice(self.caches)}",
                f"synchronous={rng.choice(('OFF', 'NORMAL', 'FULL', 'EXTRA'))}",
                f"wal_autocheckpoint={rng.choice((0, 1, 7, 50, 1000))}",
                f"wal_checkpoint({rng.choice(('PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'))})",
                f"wal_checkpoint({rng.choice(('PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'))})",
                f"journal_mode={rng.choice(JOURNALS)}",
                "journal_mode",
                f"journal_size_limit={rng.choice((-1, 0, 3000, 50000))}",
                f"mmap_size={rng.choice((0, 20000, 10000000))}",
                f"locking_mode={rng.choice(('NORMAL', 'NORMAL', 'EXCLUSIVE'))}",
                f"incremental_vacuum({rng.randrange(20)})",
                f"auto_vacuum={rng.choice(('NONE', 'FULL', 'INCREMENTAL'))}",
                f"page_size={rng.choice((512, 1024, 4096, 16384))}",
                f"secure_delete={rng.choice(('ON', 'OFF', 'FAST'))}",
                f"cache_spill={rng.choice(('ON', 'OFF'))}",
                f"user_version={rng.randrange(1000)}",
                "page_count",
                "freelist_count",
            )
        )

    def statement(self):
        makers = (self.write, self.read, self.transaction, self.schema, self.pragma)
        if self.rng.random() < 0.01:
            return "VACUUM"
        return self.rng.choices(makers, (40, 14, 22, 4, 20))[0]()

    def play(self, s):
        rng = self.rng
        connections = [s.open(), s.open(), s.open(process=2)]
        first = connections[0]
        first(
            f"PRAGMA page_size={rng.choice((512, 1024, 4096, 4096, 32768))}",
            f"PRAGMA auto_vacuum={rng.choice(('NONE', 'NONE', 'FULL', 'INCREMENTAL'))}",
            f"PRAGMA journal_mode={rng.choice((*JOURNALS, 'WAL'))}",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)",
            "CREATE INDEX ta ON t(a, id)",
            "CREATE TABLE u(x, y)",
        )
        for connection in connections:
            connection(f"PRAGMA cache_size={rng.choice(self.caches)}")
        at = 0
        while len(s.steps) < self.length:
            # mostly the same for a while, so that transactions get somewhere
            if rng.random() < 0.15:
                at = rng.choice((0, 0, 0, 1, 1, 2))
            if rng.random() < 0.03:
                s.sizes()
            elif rng.random() < 0.01:
                connections[at].close()
                connections[at] = s.open(process=connections[at].process)
                connections[at](f"PRAGMA cache_size={rng.choice(self.caches)}")
            else:
                connections[at](self.statement())
        for connection in connections:
            connection("ROLLBACK")
            connection("PRAGMA locking_mode=NORMAL", "SELECT count(*) FROM t")
        for connection in connections:
            connection.close()
        s.sizes()
        s.shell("PRAGMA integrity_check;\n.sha3sum --schema")
        s.digest()
