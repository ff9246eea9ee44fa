"""One mount alone: what an application and a user's shell may expect of it."""

import os
import signal
import time

import pytest
from harness import (
    PROGRAM,
    Connection,
    Node,
    SqlError,
    Writer,
    check_acknowledged,
    is_mounted,
    run,
    sql,
    sql_file,
    until,
)


def restart(node, hard=True):
    """Memory and working files of the daemon go: what is there afterwards was replicated."""
    if hard:
        node.kill9()
    else:
        node.stop()
    node.start()


# --- the mount ------------------------------------------------------------------------------


def test_status_of_a_node_alone_has_the_documented_keys(shared_node, db):
    sql(shared_node, db, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    status = shared_node.status()
    assert status["role"] == "leader"
    assert len(status["node"]) == 8 and int(status["node"], 16)
    assert status["address"] == shared_node.address
    assert status["leader"] == {"node": status["node"], "address": shared_node.address}
    assert status["term"] >= 1
    assert status["commit_index"] >= status["applied_index"] >= 1
    [member] = status["members"]
    assert (member["node"], member["address"], member["role"]) == (
        status["node"],
        shared_node.address,
        "voter",
    )
    assert "match_index" in member
    entry = shared_node.database(db)
    assert entry["version"] >= 1 and entry["page_size"] == 4096 and entry["pages"] == 2
    assert entry["mode"] and entry["checksum"]


def test_status_as_a_table_names_node_role_and_database(shared_node, db):
    sql(shared_node, db, "CREATE TABLE t(a);")
    result = run([PROGRAM, "status", str(shared_node.mnt)])
    assert result.code == 0
    for word in (shared_node.address, "leader", db):
        assert word in result.out


def test_mount_in_background_returns_when_mounted_and_umount_ends_it(workspace):
    mnt, data = workspace.base / "mnt", workspace.base / "data"
    mnt.mkdir()
    result = run([PROGRAM, "mount", str(mnt), "--data", str(data)], timeout=20)
    assert result.code == 0, result
    assert is_mounted(mnt)
    assert (
        sql_file(mnt / "a.db", "CREATE TABLE t(a); INSERT INTO t VALUES(7); SELECT a FROM t;")
        == "7"
    )
    assert len(workspace.strays()) == 1
    result = run([PROGRAM, "umount", str(mnt)], timeout=20)
    assert result.code == 0, result
    assert not is_mounted(mnt)
    until("the daemon has ended", lambda: not workspace.strays(), 5)


def test_mount_foreground_ends_by_sigterm_cleanly(node, db):
    sql(node, db, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    node.process.send_signal(signal.SIGTERM)
    assert node.wait_ended(15) == 0
    assert not is_mounted(node.mnt)
    node.start()
    assert sql(node, db, "SELECT count(*) FROM t") == "1"


def test_mount_taken_away_by_umount_of_the_system_ends_the_daemon(node, db):
    sql(node, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    result = run(["umount", str(node.mnt)])
    assert result.code == 0, f"busy, though no application has it open: {result}"
    assert node.wait_ended(15) == 0
    node.start()
    assert sql(node, db, "SELECT count(*) FROM t") == "1"


def test_mount_point_left_dead_by_a_kill_is_cleaned_up_by_the_next_mount(node, db):
    sql(node, db, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    node.kill9()
    assert run(["ls", str(node.mnt)]).code != 0
    node.start()
    assert sql(node, db, "SELECT count(*) FROM t") == "1"
    node.stop()
    assert not is_mounted(node.mnt), "a second, older mount lies beneath"


@pytest.mark.parametrize("hard", [False, True], ids=["umount", "kill9"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_remount_keeps_data(node, db, mode, hard):
    sql(node, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES(1),(2);")
    sql(node, db, "UPDATE t SET a=a+10; DELETE FROM t WHERE a=12;")
    before = node.database(db)
    restart(node, hard)
    assert sql(node, db, "SELECT a FROM t; PRAGMA integrity_check;") == "11\nok"
    after = node.database(db)
    assert (after["version"], after["checksum"]) == (before["version"], before["checksum"])
    assert sql(node, db, "PRAGMA journal_mode; INSERT INTO t VALUES(3); SELECT sum(a) FROM t;") == (
        f"{mode}\n14"
    )


def test_umount_with_a_database_open_does_not_hang(node, db):
    with Connection(node, db) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t(a)")
        started = time.monotonic()
        result = run([PROGRAM, "umount", str(node.mnt)], timeout=30)
        assert time.monotonic() - started < 25
        if result.code != 0:  # "busy" is a fair answer, if it says so
            assert result.err.strip()
            assert connection.value("SELECT count(*) FROM t") == 0
            return
    node.wait_ended(15)
    node.start()
    assert sql(node, db, "SELECT count(*) FROM t") == "0"


# --- files ------------------------------------------------------------------------------------


def test_files_listed_and_stated_like_on_any_disk(shared_node, db):
    sql(shared_node, db, "CREATE TABLE t(a);")
    path = shared_node.path(db)
    listing = run(["ls", "-la", str(shared_node.mnt)])
    assert listing.code == 0 and db in listing.out
    assert run(["stat", "-c", "%s %F %h", str(path)]).out.strip() == "8192 regular file 1"
    assert run(["stat", "-c", "%F", str(shared_node.mnt)]).out.strip() == "directory"
    assert run(["df", str(shared_node.mnt)]).code == 0
    assert run(["find", str(shared_node.mnt), "-name", db]).out.strip() == str(path)
    # the data directory shows the same names
    assert db in run(["ls", str(shared_node.data)]).out


def test_attributes_set_are_kept_over_a_restart(node, db):
    sql(node, db, "CREATE TABLE t(a);")
    path = str(node.path(db))
    for command in (
        ["chmod", "640", path],
        ["chown", "1234:2345", path],
        ["touch", "-d", "2001-02-03 04:05:06.5 UTC", path],
    ):
        result = run(command)
        assert result.code == 0, f"{command}: {result}"
    wanted = "640 1234 2345 2001-02-03 04:05:06.500000000 +0000"
    state = ["stat", "-c", "%a %u %g %y", path]
    assert run(state, env={"TZ": "UTC"}).out.strip() == wanted
    restart(node)
    assert run(state, env={"TZ": "UTC"}).out.strip() == wanted
    assert sql(node, db, "INSERT INTO t VALUES(1); SELECT count(*) FROM t;") == "1"


def test_modification_time_follows_writes(shared_node, db):
    before = time.time()
    sql(shared_node, db, "CREATE TABLE t(a);")
    stamp = float(run(["stat", "-c", "%.Y", str(shared_node.path(db))]).out)
    assert before - 1 <= stamp <= time.time() + 1


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_copy_from_the_mount_is_the_database(shared_node, workspace, db, mode):
    sql(
        shared_node,
        db,
        f"PRAGMA journal_mode={mode}; CREATE TABLE t(a);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000)"
        "INSERT INTO t SELECT hex(randomblob(50)) FROM n; PRAGMA wal_checkpoint(TRUNCATE);",
    )
    copy = workspace.base / "copy.db"
    result = run(["cp", "-a", str(shared_node.path(db)), str(copy)])
    assert result.code == 0, result
    content = "SELECT count(*), sum(length(a)), min(a), max(a) FROM t; PRAGMA integrity_check;"
    assert sql_file(copy, content) == sql(shared_node, db, content)
    # SQLite's own ways to copy
    backup = workspace.base / "backup.db"
    sql(shared_node, db, f".backup {backup}\nVACUUM INTO '{workspace.base}/into.db';")
    assert sql_file(backup, content) == sql_file(workspace.base / "into.db", content)


@pytest.mark.parametrize("name", ["notes.txt", "a.db.bak", "x", ".hidden", "a.db-other"])
def test_other_file_names_are_refused_with_eperm_and_the_rule_in_the_log(shared_node, name):
    lines = len(shared_node.log_text().splitlines())
    result = run(["touch", str(shared_node.mnt / name)])
    assert result.code != 0 and "Operation not permitted" in result.err, result
    news = "\n".join(shared_node.log_text().splitlines()[lines:])
    assert "*.db" in news and "--match" in news, f"no rule in the log: {news!r}"
    assert name not in run(["ls", "-a", str(shared_node.mnt)]).out.split()
    assert not (shared_node.data / name).exists()


@pytest.mark.parametrize("name", ["a.db", "b.sqlite", "c.sqlite3", "d.db3"])
def test_database_names_are_accepted_by_each_pattern(shared_node, db, name):
    name = f"pattern_{name}"
    assert sql(shared_node, name, "CREATE TABLE t(a); SELECT count(*) FROM t;") == "0"


def test_match_option_accepts_further_names(workspace):
    node = Node(workspace, "n1", options=["--match", "*.data", "--match", "ledger"]).start()
    for name in ("x.data", "ledger", "y.db"):
        sql(node, name, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(5);")
    assert run(["touch", str(node.mnt / "z.txt")]).code != 0
    restart(node)
    for name in ("x.data", "ledger", "y.db"):
        assert sql(node, name, "SELECT a FROM t") == "5"


@pytest.mark.parametrize(
    "command",
    [["mkdir", "d.db"], ["ln", "-s", "x", "l.db"], ["mkfifo", "p.db"]],
    ids=["directory", "symlink", "fifo"],
)
def test_things_that_are_not_databases_are_refused(shared_node, command):
    result = run([*command[:-1], str(shared_node.mnt / command[-1])])
    assert result.code != 0
    assert command[-1] not in run(["ls", str(shared_node.mnt)]).out.split()


def test_bytes_that_are_no_database_are_never_half_replicated(shared_node, workspace, db):
    """`cp` of a database into the mount and plain garbage: taken whole or refused."""
    source = workspace.base / "source.db"
    sql_file(source, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    result = run(["cp", str(source), str(shared_node.path(db))])
    if result.code == 0:
        kept = run(["cmp", str(source), str(shared_node.path(db))])
        assert kept.code == 0, "cp said that it is there"
        assert shared_node.database(db)["version"] >= 1, "only local"
    # the node is well in any case
    assert sql(shared_node, f"after_{db}", "CREATE TABLE t(a); SELECT 1;") == "1"


def test_removed_database_is_gone_and_can_be_made_again(node, db):
    sql(node, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    result = run(["rm", str(node.path(db))])
    assert result.code == 0, result
    run(["rm", "-f", str(node.path(db + "-wal")), str(node.path(db + "-shm"))])
    assert db not in run(["ls", str(node.mnt)]).out.split()
    assert node.database(db) is None
    sql(node, db, "CREATE TABLE u(b); INSERT INTO u VALUES(2);")
    restart(node)
    assert sql(node, db, "SELECT b FROM u; SELECT count(*) FROM sqlite_master;") == "2\n1"


# --- one application --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_database_created_written_closed_and_reopened(shared_node, db, mode):
    assert sql(shared_node, db, f"PRAGMA journal_mode={mode};") == mode
    sql(shared_node, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE INDEX i ON t(a);")
    for i in range(5):
        sql(shared_node, db, f"INSERT INTO t(a) VALUES({i});")
    assert sql(shared_node, db, "PRAGMA journal_mode; SELECT group_concat(a) FROM t;") == (
        f"{mode}\n0,1,2,3,4"
    )
    assert sql(shared_node, db, "PRAGMA integrity_check") == "ok"
    names = run(["ls", str(shared_node.mnt)]).out.split()
    assert f"{db}-journal" not in names


def test_journal_mode_changed_to_wal_and_back_keeps_data(node, db):
    sql(node, db, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    assert sql(node, db, "PRAGMA journal_mode=WAL; INSERT INTO t VALUES(2);") == "wal"
    assert sql(node, db, "PRAGMA journal_mode=DELETE; INSERT INTO t VALUES(3);") == "delete"
    assert sql(node, db, "PRAGMA journal_mode=WAL; INSERT INTO t VALUES(4);") == "wal"
    restart(node)
    assert sql(node, db, "PRAGMA journal_mode; SELECT group_concat(a) FROM t;") == "wal\n1,2,3,4"


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL", "FULL", "EXTRA"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_acknowledged_rows_survive_kill9_at_every_synchronous_level(node, db, mode, synchronous):
    """Durability is the Raft log's: SQLite's own setting does not matter."""
    writer = Writer(
        [node], db, "--count", 20, "--mode", mode, "--pragma", f"synchronous={synchronous}"
    )
    writer.wait()
    restart(node)
    text = sql(node, db, "SELECT writer, seq FROM rows")
    assert check_acknowledged(text, [writer]) == 100
    assert sql(node, db, "PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_transaction_rolled_back_leaves_nothing(node, db, mode):
    sql(
        node,
        db,
        f"PRAGMA journal_mode={mode}; PRAGMA cache_size=2; CREATE TABLE t(a);"
        "INSERT INTO t VALUES('kept');"
        "BEGIN;"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000)"
        "INSERT INTO t SELECT hex(randomblob(100)) FROM n; UPDATE t SET a='changed'; ROLLBACK;"
        "BEGIN; INSERT INTO t VALUES('also kept'); SAVEPOINT s; INSERT INTO t VALUES('not');"
        "ROLLBACK TO s; COMMIT;",
    )
    wanted = "kept\nalso kept\nok"
    query = "SELECT a FROM t; PRAGMA integrity_check;"
    assert sql(node, db, query) == wanted
    restart(node)
    assert sql(node, db, query) == wanted


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_transaction_that_spills_is_seen_whole_and_only_after_commit(node, db, mode):
    """cache_size=2 writes pages long before the commit, and in WAL mode overwrites frames in
    place and rewrites their headers after the commit frame."""
    with Connection(node, db) as writer, Connection(node, db) as reader:
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("PRAGMA cache_size=2")
        writer.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")
        writer.execute("CREATE INDEX i ON t(b)")
        for turn in range(5):
            writer.execute("BEGIN")
            for k in range(200):
                writer.execute("INSERT INTO t(a, b) VALUES(?, ?)", turn, "x" * 100)
                if k % 40 == 0:
                    writer.execute("UPDATE t SET b=b||'y' WHERE a=?", turn)
            if mode == "wal":
                assert reader.value("SELECT count(*) FROM t") == turn * 200
            else:
                try:
                    assert reader.value("SELECT count(*) FROM t") == turn * 200
                except SqlError as error:
                    # a spill takes the exclusive lock
                    assert error.code.startswith("SQLITE_BUSY"), error
            writer.execute("UPDATE t SET a=a WHERE id % 7 = 0")
            writer.execute("COMMIT")
            assert reader.value("SELECT count(*) FROM t") == (turn + 1) * 200
            version = node.database(db)["version"]
        assert version
        content = writer.execute("SELECT a, count(*), sum(length(b)) FROM t GROUP BY a")
    restart(node)
    with Connection(node, db) as reader:
        assert reader.execute("SELECT a, count(*), sum(length(b)) FROM t GROUP BY a") == content
        assert reader.value("PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("page_size", [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_page_sizes_are_all_replicated(shared_node, db, mode, page_size):
    sql(
        shared_node,
        db,
        f"PRAGMA page_size={page_size}; PRAGMA journal_mode={mode}; PRAGMA cache_size=2;"
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); "
        "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300)"
        "INSERT INTO t SELECT i, randomblob(400) FROM n; UPDATE t SET a=randomblob(450); COMMIT;"
        "DELETE FROM t WHERE id % 3 = 0;",
    )
    assert sql(
        shared_node, db, "PRAGMA page_size; PRAGMA integrity_check; SELECT count(*) FROM t;"
    ) == (f"{page_size}\nok\n200")
    entry = shared_node.database(db)
    assert entry["page_size"] == page_size
    assert entry["pages"] == int(sql(shared_node, db, "PRAGMA page_count"))


def test_page_sizes_survive_a_restart(node):
    sizes = [512, 1024, 4096, 65536]
    for size in sizes:
        for mode in ("delete", "wal"):
            sql(
                node,
                f"{mode}{size}.db",
                f"PRAGMA page_size={size}; PRAGMA journal_mode={mode}; CREATE TABLE t(a);"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200)"
                "INSERT INTO t SELECT printf('%0200d', i) FROM n;",
            )
    restart(node)
    for size in sizes:
        for mode in ("delete", "wal"):
            script = "PRAGMA page_size; PRAGMA integrity_check; SELECT count(*), max(a)+0 FROM t;"
            assert sql(node, f"{mode}{size}.db", script) == f"{size}\nok\n200|200"


@pytest.mark.parametrize("kind", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_checkpoint_copies_everything_and_loses_nothing(node, db, kind):
    script = "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a);"
    with Connection(node, db) as connection:
        for statement in script.split(";")[:-1]:
            connection.execute(statement)
        for turn in range(4):
            for k in range(20):
                connection.execute("INSERT INTO t VALUES(randomblob(1000))")
            busy, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({kind})")[0]
            assert busy == 0 and frames == copied, (busy, frames, copied)
            if kind == "TRUNCATE":
                size = run(["stat", "-c", "%s", str(node.path(db + "-wal"))]).out.strip()
                assert size == "0"
        assert connection.value("SELECT count(*) FROM t") == 80
        restart(node)
    assert sql(node, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "80\nok"


def test_checkpoint_by_hand_beside_readers_and_a_writer_keeps_all_rows(shared_node, db):
    sql(shared_node, db, "PRAGMA journal_mode=WAL;")
    writer = Writer([shared_node], db, "--count", 150, "--rows", 2)
    while writer.process.poll() is None:
        for kind in ("PASSIVE", "TRUNCATE", "RESTART"):
            sql(
                shared_node,
                db,
                f"PRAGMA wal_checkpoint({kind}); SELECT count(*) FROM sqlite_master;",
                busy_ms=2000,
            )
    writer.wait()
    assert not writer.fails()
    assert check_acknowledged(sql(shared_node, db, "SELECT writer, seq FROM rows"), [writer]) == 300
    assert sql(shared_node, db, "PRAGMA integrity_check") == "ok"


def test_wal_stays_bounded_under_constant_writing(shared_node, db):
    writer = Writer([shared_node], db, "--count", 1500, "--rows", 2, "--body", 1000)
    writer.wait()
    # SQLite's own automatic checkpoint comes at 1000 frames
    wal = shared_node.data / f"{db}-wal"
    assert not wal.exists() or wal.stat().st_size < 12 << 20
    assert sql(shared_node, db, "SELECT count(*) FROM rows; PRAGMA quick_check;") == "3000\nok"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_vacuum_shrinks_the_database_which_then_grows_again(node, db, mode):
    fill = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000)"
        "INSERT INTO t SELECT randomblob(500) FROM n;"
    )
    sql(node, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(a); {fill}")
    before = node.database(db)["pages"]
    sql(node, db, "DELETE FROM t WHERE rowid > 100; VACUUM;")
    pages = node.database(db)["pages"]
    assert pages < before / 5
    restart(node)
    assert sql(node, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "100\nok"
    sql(node, db, fill)
    restart(node)
    assert sql(node, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "3100\nok"
    assert node.database(db)["pages"] == int(sql(node, db, "PRAGMA page_count"))


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_auto_vacuum_shrinks_and_grows(node, db, mode):
    sql(
        node,
        db,
        f"PRAGMA auto_vacuum=FULL; PRAGMA journal_mode={mode}; CREATE TABLE t(a);"
        "CREATE TABLE u(a);",
    )
    for _ in range(3):
        sql(
            node,
            db,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)"
            "INSERT INTO t SELECT randomblob(900) FROM n;"
            "INSERT INTO u SELECT randomblob(3000) FROM t LIMIT 20; DELETE FROM t;",
        )
    restart(node)
    assert sql(
        node, db, "SELECT count(*) FROM t; SELECT count(*) FROM u; PRAGMA integrity_check;"
    ) == ("0\n60\nok")


@pytest.mark.parametrize("size_mb", [3, 20])
def test_row_larger_than_an_entry_is_kept(node, db, size_mb):
    size = size_mb << 20
    sql(
        node,
        db,
        f"PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob({size}));"
        f"INSERT INTO t VALUES(randomblob({size}));",
        timeout=60,
    )
    restart(node)
    assert (
        sql(
            node,
            db,
            f"SELECT count(*) FROM t WHERE length(a)={size}; PRAGMA integrity_check;",
            timeout=60,
        )
        == "2\nok"
    )


def test_transaction_of_fifty_thousand_rows_is_kept(node, db):
    sql(
        node,
        db,
        "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<50000)"
        "INSERT INTO t SELECT i, randomblob(100) FROM n;",
        timeout=60,
    )
    restart(node)
    assert sql(
        node, db, "SELECT count(*), sum(id) FROM t; PRAGMA integrity_check;", timeout=60
    ) == ("50000|1250025000\nok")


# --- replicated or refused, never silently local ------------------------------------------------


def replicated_or_refused(node, db, script, query, before, after, options=()):
    """Runs the script. Whether it worked or not: what the application then reads is what is
    there after the node's memory and working files are gone. And if it worked, it is `after`."""
    try:
        sql(node, db, script, options=options)
        worked = True
    except SqlError:
        worked = False
    try:
        seen = sql(node, db, query, busy_ms=2000)
    except SqlError as error:
        assert not worked, f"done without an error, but then: {error}"
        seen = None
    restart(node)
    kept = sql(node, db, query)
    if worked:
        assert kept == after, "acknowledged, but not replicated"
    else:
        assert kept in (before, after)
    if seen is not None:
        assert seen == kept
    assert sql(node, db, "PRAGMA integrity_check") == "ok"
    return worked


@pytest.mark.parametrize("journal", ["TRUNCATE", "PERSIST", "MEMORY", "OFF"])
def test_other_journal_modes_are_replicated_or_refused(node, db, journal):
    sql(node, db, "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    replicated_or_refused(
        node,
        db,
        f"PRAGMA journal_mode={journal}; INSERT INTO t VALUES(2); INSERT INTO t VALUES(3);",
        "SELECT group_concat(a) FROM t",
        "1",
        "1,2,3",
    )
    # and the database is as good as before for an ordinary application
    sql(node, db, "INSERT INTO t VALUES(9);")
    restart(node)
    assert sql(node, db, "SELECT count(*) FROM t WHERE a=9") == "1"


@pytest.mark.parametrize("journal", ["TRUNCATE", "PERSIST", "MEMORY", "OFF"])
def test_database_created_in_another_journal_mode_is_replicated_or_refused(node, db, journal):
    try:
        sql(node, db, f"PRAGMA journal_mode={journal}; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
        worked = True
    except SqlError:
        worked = False
    restart(node)
    if worked:
        assert sql(node, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "1\nok"
    sql(node, f"after_{db}", "CREATE TABLE t(a);")


def test_page_size_changed_by_vacuum_is_replicated_or_refused(node, db):
    sql(node, db, "CREATE TABLE t(a); INSERT INTO t VALUES(1),(2);")
    worked = replicated_or_refused(
        node,
        db,
        "PRAGMA page_size=1024; VACUUM; INSERT INTO t VALUES(3);",
        "SELECT group_concat(a) FROM t",
        "1,2",
        "1,2,3",
    )
    if worked:
        assert sql(node, db, "PRAGMA page_size") == "1024"
        assert node.database(db)["page_size"] == 1024


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_exclusive_locking_mode_is_replicated_or_refused(node, db, mode):
    """In WAL mode SQLite then needs no -shm at all."""
    sql(node, db, f"PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    replicated_or_refused(
        node,
        db,
        "PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(2); INSERT INTO t VALUES(3);",
        "SELECT group_concat(a) FROM t",
        "1",
        "1,2,3",
    )


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_transaction_over_attached_databases_is_replicated_or_refused(node, db, mode):
    """DELETE mode needs a super-journal, whose name is no database's."""
    other = f"other_{db}"
    for name in (db, other):
        sql(node, name, f"PRAGMA journal_mode={mode}; CREATE TABLE t(a);")
    try:
        sql(
            node,
            db,
            f"ATTACH '{node.path(other)}' AS o;"
            "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO o.t VALUES(1); COMMIT;",
        )
        worked = True
    except SqlError:
        worked = False
    restart(node)
    counts = {sql(node, name, "SELECT count(*) FROM t", busy_ms=2000) for name in (db, other)}
    assert counts == {"1"} if worked else counts == {"0"}
    for name in (db, other):
        sql(node, name, "INSERT INTO t VALUES(2);")


def test_journal_size_limit_and_persist_wal_are_harmless(node, db):
    sql(node, db, "PRAGMA journal_mode=WAL; PRAGMA journal_size_limit=16384; CREATE TABLE t(a);")
    with Connection(node, db) as connection:
        connection.execute("PRAGMA journal_size_limit=16384")
        connection.execute("PRAGMA wal_autocheckpoint=20")
        for _ in range(200):
            connection.execute("INSERT INTO t VALUES(randomblob(2000))")
    restart(node)
    assert sql(node, db, "SELECT count(*) FROM t; PRAGMA integrity_check;") == "200\nok"


# --- several applications ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_processes_writing_at_once_lose_nothing(shared_node, db, mode):
    # first the table, so that none of them meets another's change of the journal mode
    Writer([shared_node], db, "--count", 1, "--mode", mode).wait()
    writers = [
        Writer([shared_node], db, "--count", 60, "--mode", mode, "--busy-ms", 20000)
        for _ in range(3)
    ]
    for writer in writers:
        writer.wait()
        if mode == "wal":
            assert not writer.fails()
    text = sql(shared_node, db, "SELECT writer, seq FROM rows")
    assert check_acknowledged(text, writers) == 3 * 60 * 5
    assert sql(shared_node, db, "PRAGMA integrity_check") == "ok"


def test_wal_reader_keeps_its_snapshot_while_others_write_and_checkpoint(shared_node, db):
    with Connection(shared_node, db) as reader, Connection(shared_node, db) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t(a)")
        writer.execute("INSERT INTO t VALUES(0)")
        reader.execute("BEGIN")
        assert reader.value("SELECT count(*) FROM t") == 1
        for i in range(50):
            writer.execute("INSERT INTO t VALUES(randomblob(3000))")
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        writer.execute("UPDATE t SET a=1")
        assert reader.execute("SELECT count(*), max(a) FROM t") == [(1, 0)]
        reader.execute("COMMIT")
        assert reader.value("SELECT count(*) FROM t") == 51


def test_second_writer_gets_busy_while_a_transaction_is_open(shared_node, db):
    with Connection(shared_node, db) as first, Connection(shared_node, db) as second:
        first.execute("PRAGMA journal_mode=WAL")
        first.execute("CREATE TABLE t(a)")
        first.execute("BEGIN IMMEDIATE")
        first.execute("INSERT INTO t VALUES(1)")
        with pytest.raises(SqlError, match="SQLITE_BUSY"):
            second.execute("INSERT INTO t VALUES(2)")
        first.execute("COMMIT")
        second.execute("INSERT INTO t VALUES(2)")
        assert first.value("SELECT count(*) FROM t") == 2


def test_read_only_connection_reads_and_is_refused_to_write(shared_node, db):
    sql(shared_node, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    assert sql(shared_node, db, "SELECT a FROM t", options=["-readonly"]) == "1"
    with pytest.raises(SqlError, match="readonly"):
        sql(shared_node, db, "INSERT INTO t VALUES(2)", options=["-readonly"])


def test_unprivileged_user_reads_and_writes_where_the_mode_lets_him(workspace):
    """Permissions are the kernel's to check: `-o allow_other` or not, root's files stay root's."""
    node = Node(workspace, "n1", options=["-o", "allow_other"]).start()
    sql(node, "a.db", "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    for path in (workspace.base, node.dir):
        path.chmod(0o755)
    assert run(["chmod", "600", str(node.path("a.db"))]).code == 0
    result = run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sqlite3",
            str(node.path("a.db")),
            "SELECT a FROM t",
        ]
    )
    assert result.code != 0, result
    assert sql(node, "a.db", "INSERT INTO t VALUES(2); SELECT count(*) FROM t;") == "2"


# --- applications that die ------------------------------------------------------------------------


@pytest.mark.limit(240)
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_application_killed_at_random_instants_loses_nothing(node, db, mode, soak):
    writers = []
    for turn in range(100 if soak else 12):
        writer = Writer(
            [node], db, "--mode", mode, "--rows", 3, "--pragma", "cache_size=2", "--body", 900
        )
        writer.wait_acks(1)
        time.sleep((turn % 10) * 0.013)
        writer.kill9()
        writers.append(writer)
        # a local reader sees at once what was acknowledged
        text = sql(node, db, "SELECT writer, seq FROM rows", busy_ms=5000)
        check_acknowledged(text, writers)
    assert sql(node, db, "PRAGMA integrity_check") == "ok"
    restart(node)
    text = sql(node, db, "SELECT writer, seq FROM rows")
    assert check_acknowledged(text, writers) > 0
    assert sql(node, db, "PRAGMA integrity_check") == "ok"


def test_applications_killed_together_leave_a_sound_database(node, db):
    # pauses, since SQLite's busy handler is unfair to who waits for those that never do
    writers = [Writer([node], db, "--busy-ms", 20000, "--pause-ms", 5) for _ in range(3)]
    for writer in writers:
        writer.wait_acks(5)
    for writer in writers:
        os.kill(writer.process.pid, signal.SIGKILL)
    for writer in writers:
        writer.kill9()
    text = sql(node, db, "SELECT writer, seq FROM rows", busy_ms=5000)
    check_acknowledged(text, writers)
    assert sql(node, db, "PRAGMA integrity_check") == "ok"
    sql(node, db, "INSERT INTO rows VALUES('after', 1, '');", busy_ms=5000)
