"""Transactions that write what is there already: a lease is renewed. Each is a transaction like any other, which
a majority has to agree on. A rollback is none.

UPDATE would not do: where a row stays as it is SQLite writes nothing at all, and nobody hears of it."""

import pytest
from harness import PROGRAM, Connection, SqlError, run, sql, sql_file, until

# journal_mode, locking_mode. In the others SQLite counts in page 1, which changes that.
MODES = [
    ("WAL", "NORMAL"),
    ("WAL", "EXCLUSIVE"),
    ("DELETE", "EXCLUSIVE"),
    ("TRUNCATE", "EXCLUSIVE"),
    ("PERSIST", "EXCLUSIVE"),
    ("MEMORY", "EXCLUSIVE"),
    ("OFF", "EXCLUSIVE"),
]
RENEW = "REPLACE INTO lease VALUES(1, 'A')"


def lease(connection, journal, locking):
    connection.execute(f"PRAGMA locking_mode={locking}")
    assert connection.value(f"PRAGMA journal_mode={journal}") == journal.lower()
    connection.execute("CREATE TABLE lease(id INTEGER PRIMARY KEY, owner)")
    connection.execute("INSERT INTO lease VALUES(1, 'A')")
    connection.execute(RENEW)


class NoMajority:
    def __init__(self, cluster):
        self.others = cluster.followers()

    def __enter__(self):
        for node in self.others:
            node.pause()

    def __exit__(self, *_):
        for node in self.others:
            node.resume()


def version(node, db):
    return node.database(db)["version"]


@pytest.mark.parametrize("journal,locking", MODES)
def test_renewal_is_a_transaction(shared_cluster, db, journal, locking):
    leader = shared_cluster.leader()
    with Connection(leader, db) as owner:
        lease(owner, journal, locking)
        before = leader.database(db)
        for _ in range(3):
            owner.execute(RENEW)
        after = leader.database(db)
        assert after["version"] == before["version"] + 3
        assert after["checksum"] == before["checksum"]
        # in some modes the application holds a lock that readers need
        shared_cluster.wait_equal()
    shared_cluster.check_sound(db)


@pytest.mark.parametrize("journal,locking", MODES)
def test_renewal_without_a_majority_fails(shared_cluster, db, journal, locking):
    leader = shared_cluster.leader()
    with Connection(leader, db, timeout=40) as owner:
        lease(owner, journal, locking)
        shared_cluster.wait_equal()
        with NoMajority(shared_cluster), pytest.raises(SqlError, match="SQLITE_(IOERR|BUSY)"):
            owner.execute(RENEW)
    shared_cluster.wait_follows(30)
    shared_cluster.check_sound(db)


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
@pytest.mark.parametrize("journal", ["DELETE", "TRUNCATE", "PERSIST", "MEMORY"])
@pytest.mark.parametrize("locking", ["NORMAL", "EXCLUSIVE"])
def test_rollback_needs_no_majority(shared_cluster, db, journal, locking, synchronous):
    """Of what was in the database file already, since the cache is small."""
    leader = shared_cluster.leader()
    with Connection(leader, db, timeout=40) as writer:
        lease(writer, journal, locking)
        writer.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
        writer.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
            " INSERT INTO t SELECT i, randomblob(1000) FROM n"
        )
        writer.execute("PRAGMA cache_size=5")
        writer.execute(f"PRAGMA synchronous={synchronous}")
        count = version(leader, db)
        with NoMajority(shared_cluster):
            writer.execute("BEGIN")
            writer.execute("UPDATE t SET x = randomblob(1000)")
            writer.execute("ROLLBACK")
            assert writer.value("SELECT count(*) FROM t") == 200
        assert version(leader, db) == count
    shared_cluster.wait_follows(30)
    shared_cluster.check_sound(db)


@pytest.mark.parametrize("locking", ["NORMAL", "EXCLUSIVE"])
@pytest.mark.parametrize("spilled", [False, True])
def test_recovery_needs_no_majority(shared_cluster, db, locking, spilled):
    """What a killed writer left is rolled back by a reader."""
    leader = shared_cluster.leader()
    writer = Connection(leader, db)
    lease(writer, "DELETE", locking)
    writer.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
    writer.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
        " INSERT INTO t SELECT i, zeroblob(1000) FROM n"
    )
    writer.execute("PRAGMA cache_size=5")
    writer.execute("BEGIN")
    if spilled:
        writer.execute("UPDATE t SET x = randomblob(1000)")
    else:
        writer.execute("REPLACE INTO t SELECT i, x FROM t")  # all of it is what was there
    count = version(leader, db)
    with NoMajority(shared_cluster):
        writer.kill9()
        assert sql(leader, db, "SELECT count(*) FROM t WHERE x = zeroblob(1000)", busy_ms=5000) == "200"
    assert version(leader, db) == count
    shared_cluster.wait_follows(30)
    shared_cluster.check_sound(db)


def test_several_databases(shared_cluster, db):
    leader = shared_cluster.leader()
    other = f"other_{db}"
    with Connection(leader, db, timeout=40) as owner:
        lease(owner, "DELETE", "EXCLUSIVE")
        owner.execute(f"ATTACH '{leader.path(other)}' AS b")
        owner.execute("PRAGMA b.locking_mode=EXCLUSIVE")
        owner.execute("CREATE TABLE b.lease(id INTEGER PRIMARY KEY, owner)")
        owner.execute("INSERT INTO b.lease VALUES(1, 'A')")
        owner.execute("REPLACE INTO b.lease VALUES(1, 'A')")
        counts = [version(leader, name) for name in (db, other)]
        for _ in range(2):
            owner.execute("BEGIN")
            owner.execute("REPLACE INTO main.lease VALUES(1, 'A')")
            owner.execute("REPLACE INTO b.lease VALUES(1, 'A')")
            owner.execute("COMMIT")
        assert [version(leader, name) for name in (db, other)] == [n + 2 for n in counts]
        shared_cluster.wait_equal()
        owner.execute("BEGIN")
        owner.execute("REPLACE INTO main.lease VALUES(1, 'A')")
        owner.execute("REPLACE INTO b.lease VALUES(1, 'A')")
        with NoMajority(shared_cluster), pytest.raises(SqlError, match="SQLITE_IOERR"):
            owner.execute("COMMIT")
    shared_cluster.wait_follows(30)
    shared_cluster.check_sound(db)


def test_copy_of_the_same_content(shared_cluster, workspace, db):
    leader = shared_cluster.leader()
    with Connection(leader, db) as owner:
        lease(owner, "WAL", "NORMAL")
    source = workspace.base / "source.db"
    path = leader.path(db)
    until("the last user is gone", lambda: run(["cp", path, source]).code == 0)
    count = version(leader, db)
    with Connection(shared_cluster.followers()[0], db) as reader:
        assert reader.value("SELECT owner FROM lease") == "A"
        assert run(["cp", source, path]).code == 0
        assert version(leader, db) == count + 1
        shared_cluster.wait_equal()
        assert reader.value("SELECT owner FROM lease") == "A"
    with NoMajority(shared_cluster):
        assert run(["cp", source, path], timeout=40).code != 0
    shared_cluster.wait_follows(30)
    shared_cluster.check_sound(db)


def test_padding_is_no_transaction(shared_node, db):
    """Without power-safe overwrites SQLite fills sectors up with the commit frame, again and again."""
    name = f"file:{shared_node.path(db)}?psow=0"
    sql_file(name, "PRAGMA page_size=512; PRAGMA journal_mode=WAL; CREATE TABLE t(a);")
    count = version(shared_node, db)
    statements = "".join(f"INSERT INTO t VALUES({i});" for i in range(20))
    sql_file(name, "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;" + statements)
    assert version(shared_node, db) == count + 20
    assert sql(shared_node, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "20\nok"


def test_log_tells_of_it(node, db):
    with Connection(node, db) as owner:
        lease(owner, "DELETE", "EXCLUSIVE")
        owner.execute(RENEW)
    count = version(node, db)
    node.stop()
    result = run([PROGRAM, "log", "--data", node.data])
    assert result.code == 0, result
    last = [line for line in result.out.splitlines() if "commit" in line and db in line][-1]
    assert " 0 pages of 4096" in last, last
    node.start()
    assert version(node, db) == count
    assert sql(node, db, "SELECT owner FROM lease") == "A"
