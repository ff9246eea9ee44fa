"""Readers beside a storm of transactions: never malformed, torn, backwards or refused."""

import subprocess
import threading
import time

import pytest
from harness import PROGRAM, PYTHON, WORKERS, Connection, Writer, run, sql, until

ACCOUNTS = 50


def prepare(leader, db):
    sql(
        leader,
        db,
        "PRAGMA journal_mode=WAL; CREATE TABLE tick(n); INSERT INTO tick VALUES(0);"
        "CREATE TABLE account(id INTEGER PRIMARY KEY, balance, filler);"
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{ACCOUNTS})"
        f"INSERT INTO account SELECT i, {1000 // ACCOUNTS}, zeroblob(700) FROM n;"
        "CREATE TABLE log(id INTEGER PRIMARY KEY, body);",
    )


def storm(leader, db, seconds, autocheckpoint):
    """Transactions that touch many pages, one after the other, in one connection."""
    count = 0
    with Connection(leader, db, busy_ms=10000) as connection:
        connection.execute(f"PRAGMA wal_autocheckpoint={autocheckpoint}")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            count += 1
            time.sleep(0.0005)  # two cores: the readers and the followers need some of them
            a, b = count * 7 % ACCOUNTS + 1, count * 11 % ACCOUNTS + 1
            for statement in (
                "BEGIN IMMEDIATE",
                f"UPDATE account SET balance=balance-1 WHERE id={a}",
                f"UPDATE account SET balance=balance+1 WHERE id={b}",
                f"INSERT INTO log VALUES({count}, randomblob({count % 5 * 1000}))",
                "UPDATE tick SET n=n+1",
                "COMMIT",
            ):
                connection.execute(statement)
    return count


def run_readers(readers, storm_function, seconds):
    """All at once; returns what the readers printed and how many transactions there were."""
    results = [None] * (len(readers) + 1)

    def in_thread(i, function):
        try:
            results[i] = function()
        except BaseException as error:  # told in the test's own thread
            results[i] = error

    jobs = [lambda r=r: run([PYTHON, "-B", *map(str, r)], seconds + 30) for r in readers]
    threads = [
        threading.Thread(target=in_thread, args=(i, job))
        for i, job in enumerate([*jobs, storm_function])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    for reader, result in zip(readers, results):
        assert result.code == 0, f"reader {reader[1:]}: {result.out.strip()} {result.err.strip()}"
        words = result.out.split()
        assert int(words[1]) > 20, f"reader {reader[1:]} hardly read: {result.out}"
        assert int(words[3]) > 3, f"reader {reader[1:]} saw no progress: {result.out}"
    return results[:-1], results[-1]


READERS = [[], ["reopen"], ["mmap"]]


@pytest.mark.limit(180)
@pytest.mark.parametrize(
    "where, autocheckpoint",
    [("follower", 1000), ("follower", 30), ("follower", 0), ("leader", 30)],
    ids=[
        "follower_checkpoints_rare",
        "follower_checkpoints_often",
        "follower_no_checkpoints",
        "leader_checkpoints_often",
    ],
)
def test_readers_in_a_storm_see_whole_transactions_in_order(
    shared_cluster, db, where, autocheckpoint, soak
):
    leader, follower = shared_cluster.leader(), shared_cluster.followers()[0]
    seconds = 120 if soak else 5
    prepare(leader, db)
    shared_cluster.check_sound(db)
    node = follower if where == "follower" else leader
    program = WORKERS / "storm_reader.py"
    _, count = run_readers(
        [[program, node.path(db), seconds, *options] for options in READERS],
        lambda: storm(leader, db, seconds, autocheckpoint),
        seconds,
    )
    shared_cluster.check_sound(db)
    assert int(shared_cluster.wait_same(db, "SELECT n FROM tick")) == count


@pytest.mark.limit(180)
def test_readers_in_a_storm_survive_changes_of_the_leader(cluster, db, soak):
    leader = cluster.leader()
    prepare(leader, db)
    cluster.check_sound(db)
    # no invariant of its own, only a writer that follows the leader
    writer = Writer(cluster.nodes, db, "--busy-ms", 20, "--pause-ms", 4)
    readers = [
        (node, Connection(node, db, busy_ms=1000)) for node in cluster.nodes for _ in range(2)
    ]
    last = [0] * len(readers)
    end = time.monotonic() + (120 if soak else 8)
    turn = 0
    try:
        while time.monotonic() < end:
            turn += 1
            if turn % 40 == 0:
                leader = cluster.leader()
                if leader:
                    run([PROGRAM, "transfer", str(leader.mnt)])
            for i, (node, reader) in enumerate(readers):
                if not last[i] and not reader.execute(
                    "SELECT 1 FROM sqlite_master WHERE name='rows'"
                ):
                    continue
                count = reader.value("SELECT count(*) FROM rows")
                assert count % 5 == 0, f"a part of a transaction on {node}"
                assert count >= last[i], f"{node} went back from {last[i]} to {count}"
                last[i] = count
    finally:
        for _, reader in readers:
            reader.close()
    writer.stop()
    assert min(last) > 0
    cluster.check_rows(db, [writer])


def test_size_of_the_wal_that_a_follower_knows_never_becomes_smaller(shared_cluster, db):
    """Root's SQLite sets the owner of the -wal when it opens it. The kernel takes the size that the answer names
    for the file's, however late it comes to that: a reader that is led to what lies behind gets nothing."""
    leader, follower = shared_cluster.leader(), shared_cluster.followers()[0]
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(b); INSERT INTO t VALUES(0);")
    shared_cluster.check_sound(db)
    wal = follower.data / f"{db}-wal"
    with Connection(follower, db) as reader, Connection(leader, db, busy_ms=10000) as writer:
        # so that the -wal grows on and on
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t")
        writer.execute("UPDATE t SET b = randomblob(100000)")
        until("it is applied", lambda: wal.exists() and wal.stat().st_size)
        sizes = subprocess.Popen(
            [PYTHON, "-B", WORKERS / "told_sizes.py", follower.path(f"{db}-wal")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        follower.workspace.children.append(sizes)
        assert sizes.stdout.readline() == "ready\n"
        for _ in range(120):
            writer.execute("UPDATE t SET b = randomblob(300000)")
        until("all is applied", lambda: wal.stat().st_size > 30_000_000)
        out, _ = sizes.communicate(timeout=20)
    assert sizes.returncode == 0
    grown, smaller = out.split(maxsplit=1)
    assert int(grown) > 3
    assert smaller == "[]\n"


def test_checkpoints_on_a_follower_beside_a_storm_succeed(shared_cluster, db):
    """The follower's files lag what is committed, so its checkpoints end with former sizes."""
    leader, follower = shared_cluster.leader(), shared_cluster.followers()[0]
    sql(
        leader,
        db,
        "PRAGMA auto_vacuum=FULL; PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, b);"
        "INSERT INTO t VALUES(0, 0);",
    )
    shared_cluster.check_sound(db)
    end = time.monotonic() + 4
    checkpoints = []

    def checkpoint():
        with Connection(follower, db) as connection:
            while time.monotonic() < end:
                checkpoints.append(connection.execute("PRAGMA wal_checkpoint"))

    def write():
        with Connection(leader, db, busy_ms=10000) as connection:
            connection.execute("PRAGMA wal_autocheckpoint=5")
            while time.monotonic() < end:
                for size in (100_000, 40_000, 7_000, 300_000, 100):
                    connection.execute(f"REPLACE INTO t VALUES(1, randomblob({size}))")

    errors = []

    def told(job):
        try:
            job()
        except BaseException as error:  # told in the test's own thread
            errors.append((job.__name__, len(checkpoints), error))

    threads = [threading.Thread(target=told, args=(job,)) for job in (checkpoint, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(checkpoints) > 20
    for node in shared_cluster.nodes:
        assert f"outside of a transaction database={db}" not in node.log_text()
    shared_cluster.check_sound(db)
