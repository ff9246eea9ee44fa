"""Files that outlive their use, and processes that come in between: a journal whose writer is dead,
a -wal that somebody removed, a checkpoint beside a commit, a lock held through changes of role."""

import time

import pytest
from harness import PROGRAM, Connection, SqlError, Writer, run, sql, until


def lead(cluster, node):
    """Make `node` the leader."""
    leader = cluster.wait_leader()
    if leader is not node:
        result = run([PROGRAM, "transfer", str(leader.mnt), "--to", node.address])
        assert result.code == 0, result
    until(f"{node} leads", lambda: cluster.leader() is node)


def test_journal_of_a_dead_writer_brings_no_old_page_back(cluster, db):
    """The writer dies with its journal hot, before it wrote into the database. Others write
    elsewhere; when this node leads again, nobody may roll that journal back."""
    node, other = cluster.nodes[0], cluster.nodes[1]
    lead(cluster, node)
    sql(node, db, "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, zeroblob(9000));")
    with Connection(node, db) as victim:
        # without syncs the journal's header says at once what is to be rolled back
        victim.execute("PRAGMA synchronous=OFF")
        victim.execute("BEGIN IMMEDIATE")
        victim.execute("UPDATE t SET a=2, b=zeroblob(9001)")
        victim.kill9()
    assert (node.data / f"{db}-journal").stat().st_size > 512
    lead(cluster, other)
    sql(other, db, "UPDATE t SET a=3, b=zeroblob(30000);", busy_ms=10000)
    cluster.check_sound(db)
    lead(cluster, node)
    sql(node, db, "BEGIN IMMEDIATE; ROLLBACK;", busy_ms=9000)
    assert sql(node, db, "SELECT a, length(b) FROM t", busy_ms=5000) == "3|30000"
    cluster.check_sound(db)
    assert cluster.wait_same(db, "SELECT a, length(b) FROM t") == "3|30000"


@pytest.mark.parametrize("mode", ["wal", "truncate", "persist"])
def test_commit_into_a_removed_side_file_is_not_acknowledged(node, db, mode):
    side = f"{db}-wal" if mode == "wal" else f"{db}-journal"
    with Connection(node, db) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE t(a)")
        connection.execute("PRAGMA wal_checkpoint")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES(1)")
        version = node.database(db)["version"]
        result = run(["rm", str(node.path(side))])
        assert result.code == 0, result
        with pytest.raises(SqlError):
            connection.execute("COMMIT")
        assert node.database(db)["version"] == version


def test_side_files_that_the_daemon_uses_cannot_be_removed(cluster, db):
    sql(cluster.wait_leader(), db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);")
    follower = cluster.followers()[0]
    cluster.check_sound(db)
    with Connection(follower, db) as reader:
        assert reader.value("SELECT count(*) FROM t") == 0
        for suffix in ("-wal", "-shm"):
            assert "busy" in run(["rm", str(follower.path(db + suffix))]).err
        sql(cluster.wait_leader(), db, "INSERT INTO t VALUES(1);", busy_ms=5000)
        until("the row is there", lambda: reader.value("SELECT count(*) FROM t") == 1, 5)
    cluster.check_sound(db)


def test_wal_that_holds_what_the_database_does_not_stays(node, db):
    """Removed, it would leave former pages, and the next transactions would be built on those."""
    with Connection(node, db) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t(a)")
        connection.execute("INSERT INTO t VALUES(1)")
        assert run(["rm", str(node.path(f"{db}-wal"))]).code != 0
        assert run(["truncate", "-s0", str(node.path(f"{db}-wal"))]).code != 0
        connection.execute("INSERT INTO t VALUES(2)")
    assert sql(node, db, "SELECT count(*) FROM t") == "2"


def test_checkpoint_beside_the_commits_of_another_process_gets_through(node, db):
    sql(node, db, "PRAGMA journal_mode=WAL;")
    writer = Writer([node], db, "--mode", "wal", "--pause-ms", 0)
    writer.wait_acks(5)
    with Connection(node, db, busy_ms=5000) as other:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            other.execute("PRAGMA wal_checkpoint(PASSIVE)")
    writer.stop()
    assert not writer.fails()
    assert sql(node, db, "PRAGMA integrity_check;") == "ok"


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_side_file_is_made_by_those_who_would_truncate_it(node, db, suffix):
    """Every redirection, Python's open('w') and shutil, Go, some programs' own VFS of SQLite."""
    sql(node, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);")
    side = node.path(db + suffix)
    for _ in range(2):  # and when it is there, but empty
        assert run(["sh", "-c", f": >{side}"]).code == 0
        assert side.stat().st_size == 0
    side.unlink()


def test_side_file_with_transactions_is_not_emptied(node, db):
    with Connection(node, db) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t(a)")
        for suffix in ("-wal", "-shm"):
            with pytest.raises(OSError, match="busy"):
                open(node.path(db + suffix), "wb")
        connection.execute("INSERT INTO t VALUES(1)")
    assert "refused to write over a file that is in use" in node.log_text()
    assert sql(node, db, "SELECT count(*) FROM t") == "1"
    with Connection(node, db) as connection:
        connection.execute("PRAGMA journal_mode=delete")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA cache_size=2")
        connection.execute("INSERT INTO t VALUES(zeroblob(100000))")
        with pytest.raises(OSError, match="busy"):
            open(node.path(db + "-journal"), "wb")
        connection.execute("ROLLBACK")
    assert sql(node, db, "SELECT count(*) FROM t") == "1"
