"""Applications that die at any instant: what others see is what Raft committed."""

import time

import pytest
from harness import Connection, Writer, run, sql, sqlite3_command


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_application_killed_at_random_instants_leaves_all_nodes_equal(cluster, db, mode, soak):
    leader, writers = cluster.leader(), []
    for turn in range(100 if soak else 8):
        writer = Writer(
            [leader],
            db,
            "--mode",
            mode,
            "--rows",
            3,
            "--pragma",
            "cache_size=2",
            "--body",
            900,
            "--busy-ms",
            20000,
        )
        writer.wait_acks(1)
        time.sleep((turn % 9) * 0.011)
        writer.kill9()
        writers.append(writer)
    assert cluster.check_rows(db, writers) >= 24


# A transaction of several pages that spills: frames are overwritten in place, and headers
# rewritten after the commit frame. Its value tells the turns apart.
SPILLING = """
PRAGMA cache_size=2;
BEGIN;
INSERT INTO t SELECT {turn}, randomblob(700) FROM one_to_ten;
UPDATE t SET b=randomblob(710) WHERE turn={turn};
INSERT INTO t VALUES({turn}, 'last');
COMMIT;
"""
PLAIN = "INSERT INTO t VALUES({turn}, 'only');"
TURNS = "SELECT DISTINCT turn FROM t ORDER BY turn"
SIZES = "SELECT DISTINCT count(*) FROM t WHERE turn >= 0 GROUP BY turn"


def run_killed(node, db, script, library, call, suffix, when, number, count_file):
    """The stock shell with the library before libc: killed at that call? Returns True then."""
    settings = {
        "LD_PRELOAD": str(library),
        "KILL_CALL": call,
        "KILL_SUFFIX": suffix,
        "KILL_WHEN": when,
        "KILL_N": str(number),
        "KILL_COUNT": str(count_file),
    }
    result = run(sqlite3_command(node.path(db), 10000), 20, stdin=script, env=settings)
    if result.code == -9:
        return True
    assert result.code == 0 and "rror" not in result.err, result
    return False


@pytest.mark.limit(240)
@pytest.mark.parametrize("script", [PLAIN, SPILLING], ids=["one_page", "spill"])
@pytest.mark.parametrize(
    "mode, call, suffix",
    [
        # after the last: between the return of the commit write and the update of the wal-index
        ("wal", "pwrite", "-wal"),
        # after the last: between the commit and the release of the locks
        ("delete", "unlink", "-journal"),
        ("delete", "pwrite", ".db"),
        ("delete", "pwrite", "-journal"),
    ],
    ids=["wal_write", "journal_unlink", "database_write", "journal_write"],
)
def test_application_killed_at_each_write_is_seen_iff_committed(
    shared_cluster, workspace, db, kill_at, mode, call, suffix, script, soak
):
    """Kills the application right after, and right before, each write of a transaction. What
    a local reader then sees, at once, is what Raft has committed: not less, not more."""
    cluster, leader = shared_cluster, shared_cluster.leader()
    count_file = workspace.base / "count"
    sql(
        leader,
        db,
        f"PRAGMA journal_mode={mode}; CREATE TABLE t(turn, b);"
        "CREATE TABLE one_to_ten(i);"
        "INSERT INTO one_to_ten VALUES(1),(2),(3),(4),(5),(6),(7),(8),(9),(10);"
        "INSERT INTO t VALUES(-1, '');",
    )
    suffix_path = suffix if suffix.startswith("-") else db
    # a connection that outlives them all: its idea of the database must not stay behind
    with Connection(leader, db, busy_ms=10000) as long_lived:
        assert not run_killed(
            leader, db, script.format(turn=0), kill_at, call, suffix_path, "after", 0, count_file
        )
        total = int(count_file.read_text())
        assert total > 0, "the library saw no such call"
        version = leader.database(db)["version"]
        seen = {-1, 0}
        turn = 0
        numbers = range(1, total + 1)
        if len(numbers) > 24 and not soak:
            # the first ones, the last ones, and some between
            numbers = sorted(
                {*range(1, 5), *range(total - 9, total + 1), *range(5, total, total // 8)}
            )
        for number in numbers:
            for when in ("after", "before") if number in (1, total) else ("after",):
                turn += 1
                killed = run_killed(
                    leader,
                    db,
                    script.format(turn=turn),
                    kill_at,
                    call,
                    suffix_path,
                    when,
                    number,
                    count_file,
                )
                # later transactions may need fewer writes, the pages being there
                where = f"killed {when} call {number} of {total}" if killed else "not killed"
                now = leader.database(db)["version"]
                if now > version or not killed:
                    assert now == version + 1, where
                    seen.add(turn)
                lines = sql(leader, db, TURNS, busy_ms=10000).splitlines()
                assert set(map(int, lines)) == seen, f"{where}: a new reader sees another thing"
                rows = {row[0] for row in long_lived.execute(TURNS)}
                assert rows == seen, f"{where}: an old reader sees another thing"
                # the recovery of a dead one's journal may count as a transaction, an empty one
                version = leader.database(db)["version"]
        assert len(long_lived.execute(SIZES)) == 1, "a part of a transaction"
        # a writer goes on where the dead ones were
        long_lived.execute("INSERT INTO t VALUES(-2, '')")
    cluster.check_sound(db)
    lines = cluster.wait_same(db, TURNS).splitlines()
    assert set(map(int, lines)) == seen | {-2}


def test_application_killed_in_checkpoint_leaves_all_nodes_equal(
    shared_cluster, workspace, db, kill_at
):
    """Half of the frames are in the database file, and the next application goes on from there."""
    leader = shared_cluster.leader()
    fill = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100)"
        "INSERT INTO t SELECT randomblob(900) FROM n;"
    )
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);")
    rows = 0
    for number in (1, 2, 5, 10, 20):
        with Connection(leader, db) as holder:  # the last to close would do the checkpoint
            holder.execute("SELECT * FROM t LIMIT 1")
            sql(leader, db, f"PRAGMA wal_autocheckpoint=0; {fill}")
            rows += 100
            killed = run_killed(
                leader,
                db,
                "PRAGMA wal_checkpoint(TRUNCATE);",
                kill_at,
                "pwrite",
                db,
                "after",
                number,
                workspace.base / "count",
            )
            assert killed, f"no write {number} into the database"
            assert holder.value("SELECT count(*) FROM t") == rows
        assert sql(leader, db, "SELECT count(*) FROM t; PRAGMA integrity_check;", busy_ms=5000) == (
            f"{rows}\nok"
        )
    shared_cluster.check_sound(db)
