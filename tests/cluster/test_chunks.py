"""Files that SQLite makes longer than the database: SQLITE_FCNTL_CHUNK_SIZE and SQLITE_FCNTL_SIZE_HINT (Firefox
and others use them), and mmap_size. What is behind the last page is nobody's."""

import os

import pytest
from fetching import Fetches
from harness import PYTHON, WORKERS, Connection, drop_cache, flip, run, sql, until

CHUNK = 1 << 20
FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    " INSERT INTO t SELECT i, randomblob(300) FROM n"
)


def chunked(node, db, statements, chunk=CHUNK, hint=0):
    result = run(
        [PYTHON, "-B", WORKERS / "chunked.py", node.path(db), chunk, hint],
        timeout=60,
        stdin="\n".join(statements) + "\n",
    )
    assert result.code == 0, result


def size(node, db):
    return os.stat(node.data / db).st_size


def pages_bytes(node, db):
    entry = node.database(db)
    return entry["pages"] * entry["page_size"]


@pytest.mark.parametrize("mmap", [0, 1 << 26])
@pytest.mark.parametrize("chunk", [CHUNK, 100_000])
def test_checkpoints_round_the_size_up(shared_cluster, db, chunk, mmap):
    leader = shared_cluster.leader()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a, b);")
    checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"
    with Connection(leader, db) as other:
        other.value("SELECT count(*) FROM t")
        chunked(
            leader,
            db,
            [f"PRAGMA mmap_size={mmap}", FILL, checkpoint, FILL, FILL, checkpoint],
            chunk,
        )
        assert os.stat(leader.data / f"{db}-wal").st_size == 0
        assert size(leader, db) % chunk == 0
        assert size(leader, db) >= pages_bytes(leader, db)
        # and down, to what is needed then
        chunked(leader, db, ["DELETE FROM t WHERE a > 20", "VACUUM", FILL, checkpoint], chunk)
        assert size(leader, db) % chunk == 0
        assert pages_bytes(leader, db) <= size(leader, db) < pages_bytes(leader, db) + chunk
        assert other.value("SELECT count(*) FROM t") == 360
    shared_cluster.check_sound(db)
    told = [line for line in leader.log_text().splitlines() if f"database={db}" in line]
    assert not [line for line in told if "refused" in line]


@pytest.mark.parametrize("journal", ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"])
def test_rollback_modes(shared_cluster, db, journal):
    leader = shared_cluster.leader()
    sql(leader, db, "CREATE TABLE t(a, b);")
    shrink = ["DELETE FROM t WHERE a > 20", "VACUUM"]
    undo = ["BEGIN", "PRAGMA cache_size=5", FILL, "ROLLBACK"] if journal != "OFF" else []
    chunked(leader, db, [f"PRAGMA journal_mode={journal}", FILL, FILL, *undo, *shrink, FILL])
    assert sql(leader, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "340\nok"
    shared_cluster.check_sound(db)
    assert size(leader, db) >= pages_bytes(leader, db)


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("mmap", [0, 1 << 26])
@pytest.mark.parametrize("chunk", [0, CHUNK])
def test_hint_begins_nothing(shared_cluster, db, journal, chunk, mmap):
    """It comes outside of a transaction, and without a lock."""
    leader = shared_cluster.leader()
    sql(leader, db, f"PRAGMA journal_mode={journal}; CREATE TABLE t(a, b);")
    with Connection(leader, db) as other:
        other.value("SELECT count(*) FROM t")
        version = leader.database(db)["version"]
        chunked(leader, db, [f"PRAGMA mmap_size={mmap}"], chunk, hint=3 << 20)
        assert leader.database(db)["version"] == version
        chunked(leader, db, [FILL], chunk, hint=5 << 20)
        other.execute(FILL)
        assert other.value("SELECT count(*) FROM t") == 600
    shared_cluster.check_sound(db)


def test_copy_restart_repair_and_another_leader(cluster, workspace, db):
    """With a size that is no multiple of the page's."""
    leader = cluster.leader()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a, b);")
    chunked(leader, db, [FILL, "PRAGMA wal_checkpoint(TRUNCATE)"], chunk=100_000)
    assert size(leader, db) % 4096 != 0
    # a copy of it, there and back
    copy = workspace.base / "copy.db"
    assert run(["cp", leader.path(db), copy]).code == 0
    assert run(["cp", copy, leader.path(f"copy_{db}")]).code == 0
    query = "SELECT count(*), sum(length(b)) FROM t; PRAGMA integrity_check;"
    rows = sql(leader, db, query)
    cluster.check_sound(f"copy_{db}")
    assert cluster.wait_same(f"copy_{db}", query) == rows
    # the log again, over a file that is longer
    chunked(leader, db, [FILL, "PRAGMA wal_checkpoint(TRUNCATE)"], chunk=100_000)
    rows = sql(leader, db, query)
    leader.kill9()
    leader.start()
    leader_now = cluster.wait_follows(30)
    cluster.check_sound(db)
    assert cluster.wait_same(db, query) == rows
    # what is behind the last page is not looked at, what is before it is repaired
    victim = next(node for node in cluster.nodes if node is not leader_now)
    pages = pages_bytes(victim, db)
    os.truncate(victim.data / db, pages + 50_000)
    drop_cache(victim, db)
    flip(victim.data / db, pages + 1000)
    fetches = Fetches(victim)
    assert sql(victim, db, query, busy_ms=5000) == rows
    assert not fetches.begun()
    drop_cache(victim, db)
    flip(victim.data / db, 4096 * 10 + 100)
    run(["cat", victim.path(db)])
    fetches.wait()
    until("it is repaired", lambda: sql(victim, db, query, busy_ms=5000) == rows, 30)
    sql(leader_now, db, "INSERT INTO t VALUES(0, 'x')", busy_ms=10000)
    cluster.check_sound(db)
