"""`dqlitefs log`: what a stopped node's log holds, entry by entry; damage is named, nothing written."""

import json
import os
import subprocess

import pytest
from harness import PROGRAM, Node, run, sql, tree, until

SEGMENT = "segment-0000000000000001.log"


def log(node, *options, data=None):
    """Runs the command, and checks that it leaves everything as it was."""
    data = data or node.data
    before = tree(data), times(data)
    result = run([PROGRAM, "log", "--data", str(data), *options])
    assert (tree(data), times(data)) == before, "changed something on disk"
    return result


def times(base):
    found = {}
    for folder, folders, files in os.walk(base):
        for name in [".", *files]:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            found[path] = (about.st_ino, about.st_mtime_ns, about.st_ctime_ns)
    return found


def objects(result):
    """{kind: [object, ...]}"""
    found = {}
    for line in result.out.splitlines():
        item = json.loads(line)
        found.setdefault(item["kind"], []).append(item)
    return found


def refused(result, *mentions):
    assert result.code in (1, 2), result
    assert not result.out, result
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, f"not one line: {result}"
    for mention in mentions:
        assert str(mention) in lines[0], f"says nothing of {mention}: {lines[0]}"


def segment_path(node, name=SEGMENT):
    return node.data / ".dqlitefs" / "raft" / name


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))
        os.fsync(file.fileno())


def databases(result):
    """[(name, version, checksum, page size, pages)] at the end of a log."""
    return known_databases({"databases": objects(result)["database"]})


def known_databases(status):
    keys = ["name", "version", "checksum", "page_size", "pages"]
    return sorted(tuple(db[key] for key in keys) for db in status["databases"])


def fill(node):
    """Two databases, one of them in WAL mode, one made twice; returns what status says."""
    sql(node, "wal.db", "PRAGMA journal_mode=WAL; CREATE TABLE t(x);")
    for i in range(5):
        sql(node, "wal.db", f"INSERT INTO t VALUES({i});")
    sql(node, "old.db", "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    removed = run(["rm", str(node.path("old.db"))])
    assert removed.code == 0, removed
    sql(node, "old.db", "CREATE TABLE t(x); INSERT INTO t VALUES(1); INSERT INTO t VALUES(2);")
    return node.status()


@pytest.fixture
def stopped(node):
    """A node with two databases that was unmounted, and its last status."""
    status = fill(node)
    node.stop()
    return node, status


def test_log_of_a_stopped_node_matches_its_status(stopped):
    node, status = stopped
    result = log(node, "--json")
    assert result.code == 0 and not result.err, result
    found = objects(result)
    assert set(found) == {"node", "snapshot", "segment", "entry", "database", "summary"}

    (about,) = found["node"]
    assert about["node"] == status["node"] and about["address"] == node.address
    assert about["term"] >= status["term"] and not about["torn"]

    assert databases(result) == known_databases(status) and len(status["databases"]) == 2

    entries = found["entry"]
    assert [entry["index"] for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[0]["type"] == "members"
    assert entries[0]["members"] == [
        {"node": status["node"], "address": node.address, "role": "voter"}
    ]
    by_type = {}
    for entry in entries:
        by_type.setdefault(entry["type"], []).append(entry)
    assert [e["database"] for e in by_type["create"]] == ["wal.db", "old.db", "old.db"]
    assert [e["database"] for e in by_type["unlink"]] == ["old.db"]
    assert all(e["id"] == e["index"] for e in by_type["create"])
    # unmounting made everything durable: the entries do not count any more
    (snapshot,) = found["snapshot"]
    assert status["commit_index"] <= snapshot["index"] <= entries[-1]["index"]
    assert snapshot["term"] == status["term"]
    assert snapshot["members"] == entries[0]["members"]
    commands = [e for e in entries if e["type"] not in ("members", "barrier")]
    assert all(entry["effect"] is None for entry in commands)
    for database in found["database"]:
        (durable,) = (d for d in snapshot["databases"] if d["id"] == database["id"])
        assert durable["name"] == database["name"]
        assert durable["version"] == database["version"]
        commits = [e for e in by_type["commit"] if e["id"] == database["id"]]
        assert durable["index"] == commits[-1]["index"]
        versions = [entry["version"] for entry in commits]
        assert versions == list(range(1, database["version"] + 1))
    assert by_type["commit"][-1]["mode"] == "rollback"
    assert any(entry["mode"] == "wal" for entry in by_type["commit"])

    (segment,) = found["segment"]
    assert segment["file"] == SEGMENT and segment["state"] == "last"
    assert segment["entries"] == len(entries)
    assert segment["bytes"] == segment_path(node).stat().st_size
    (summary,) = found["summary"]
    assert summary["entries"] == summary["last_index"] == len(entries)
    assert summary["last_index"] >= status["commit_index"]


def test_log_as_text_names_what_is_in_it(stopped):
    node, status = stopped
    result = log(node)
    assert result.code == 0 and not result.err, result
    for word in (
        "snapshot at index",
        status["node"],
        node.address,
        SEGMENT,
        "create wal.db",
        "unlink old.db",
        "members",
    ):
        assert word in result.out, f"says nothing of {word}: {result.out}"
    for database in status["databases"]:
        assert f"{database['name']} version {database['version']}," in result.out
        assert database["checksum"] in result.out


def test_log_after_a_restart_and_a_kill_goes_on(stopped):
    node, _ = stopped
    node.start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    sql(node, "wal.db", "INSERT INTO t VALUES(6);", busy_ms=5000)
    status = node.status()
    node.kill9()
    run(["umount", "-l", str(node.mnt)])
    result = log(node, "--json")
    assert result.code == 0, result
    assert databases(result) == known_databases(status)
    assert objects(result)["summary"][0]["terms"] >= 2
    # one behind the snapshot that the unmounting left, all others in front of it
    commits = [e for e in objects(result)["entry"] if e["type"] == "commit"]
    assert [e["effect"] for e in commits] == [None] * (len(commits) - 1) + [True]


@pytest.mark.parametrize("killed", [True, False])
def test_compacted_log_gives_what_status_said(workspace, killed):
    node = Node(workspace, "n1", options=["--log-size", "16M"]).start()
    until("the node leads", lambda: node.status()["role"] == "leader")
    fill(node)
    sql(node, "gone.db", "CREATE TABLE t(x);")
    assert run(["rm", str(node.path("gone.db"))]).code == 0
    for i in range(12):
        sql(node, "wal.db", f"INSERT INTO t VALUES(zeroblob({4 << 20}));", timeout=60)
    sql(node, "old.db", "INSERT INTO t VALUES(3);")
    first = segment_path(node)
    until("the first segment is gone", lambda: not first.exists())
    status = node.status()
    if killed:
        node.kill9()
        run(["umount", "-l", str(node.mnt)])
    else:
        node.stop()

    result = log(node, "--json")
    assert result.code == 0 and not result.err, result
    found = objects(result)
    assert databases(result) == known_databases(status)
    (snapshot,) = found["snapshot"]
    (summary,) = found["summary"]
    first_index = summary["first_index"]
    assert 1 < first_index <= snapshot["index"] + 1
    assert SEGMENT not in [segment["file"] for segment in found["segment"]]
    if not killed:
        assert snapshot["index"] >= status["commit_index"]
    for entry in found["entry"]:
        if entry["index"] <= snapshot["index"]:
            assert entry.get("effect") is None, entry
    for database in snapshot["databases"]:
        assert database["index"] <= summary["last_index"] and database["wal_frames"] >= 0

    text = log(node).out
    assert f"snapshot at index {snapshot['index']}, term {snapshot['term']}" in text
    for database in status["databases"]:
        assert database["checksum"] in text


def test_damaged_snapshot_is_named(stopped):
    node, _ = stopped
    snapshot = segment_path(node, "snapshot")
    for offset in (0, 20, 60, 64, 100):
        flip(snapshot, offset)
        result = log(node, "--json")
        assert result.code == 1, result
        (damage,) = objects(result)["damage"]
        assert damage["file"] == "snapshot" and damage["offset"] == 0
        assert damage["segments_unread"] == 1
        lines = result.err.strip().splitlines()
        assert len(lines) == 1 and "file=snapshot offset=0 " in lines[0], result
        assert "snapshot at offset 0" in log(node).out
        flip(snapshot, offset)
    assert log(node).code == 0


def test_large_transaction_is_shown_with_its_parts(node):
    sql(node, "big.db", "PRAGMA journal_mode=WAL; CREATE TABLE t(x);")
    sql(node, "big.db", "INSERT INTO t VALUES(zeroblob(12000000));", timeout=60)
    version = node.database("big.db")["version"]
    node.stop()
    found = objects(log(node, "--json"))
    parts = [entry for entry in found["entry"] if entry["type"] == "pages"]
    last = [entry for entry in found["entry"] if entry["type"] == "commit"][-1]
    assert [entry["part"] for entry in parts] == list(range(len(parts))) and len(parts) > 5
    assert last["part"] == len(parts)
    assert last["total_pages"] == last["pages"] + sum(entry["pages"] for entry in parts)
    assert found["database"][0]["version"] == version == last["version"]
    assert [segment["state"] for segment in found["segment"]][-2:] == ["full", "last"]


def test_flipped_bit_is_named_with_file_and_offset(stopped):
    node, _ = stopped
    commits = [
        entry for entry in objects(log(node, "--json"))["entry"] if entry["type"] == "commit"
    ]
    hit = commits[3]
    flip(segment_path(node), hit["offset"] + 64 + hit["bytes"] // 2)

    result = log(node, "--json")
    assert result.code == 1, result
    found = objects(result)
    (damage,) = found["damage"]
    assert damage["file"] == SEGMENT and damage["offset"] == hit["offset"]
    assert found["entry"][-1]["index"] == hit["index"] - 1
    assert found["segment"][0]["state"] == "damaged"
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result
    for word in (SEGMENT, f"offset={hit['offset']}", "join again"):
        assert word in lines[0], lines[0]

    result = log(node)
    assert result.code == 1, result
    assert f"{SEGMENT} at offset {hit['offset']}" in result.out
    assert result.err.strip().splitlines() == lines
    # and that is where the daemon sees it
    assert node.launch().wait_ended() != 0
    assert f"file={SEGMENT} offset={hit['offset']} " in node.log_text()


def test_damaged_term_and_vote_are_named(stopped):
    node, _ = stopped
    meta = node.data / ".dqlitefs" / "raft" / "meta"
    flip(meta, 60)
    result = log(node, "--json")
    assert result.code == 0 and objects(result)["node"][0]["torn"], result
    flip(meta, 4096 + 60)
    result = log(node, "--json")
    assert result.code == 1, result
    (damage,) = objects(result)["damage"]
    assert damage["file"] == "meta" and damage["offset"] == 0
    assert "meta" in result.err


def test_running_daemon_is_refused_with_its_process_id(node):
    sql(node, "a.db", "CREATE TABLE t(x);")
    for options in ([], ["--json"]):
        result = run([PROGRAM, "log", "--data", str(node.data), *options])
        refused(result, node.process.pid, node.mnt)
    assert node.database("a.db")["version"] == 1


def test_directories_that_hold_no_node_are_refused(workspace):
    empty = workspace.base / "empty"
    empty.mkdir()
    refused(log(None, data=empty), empty, "--data")
    refused(log(None, data=workspace.base / "missing"), "missing", "--data")
    file = workspace.base / "file"
    file.write_text("content")
    refused(run([PROGRAM, "log", "--data", str(file)]), file)


def test_wrong_arguments_are_refused(workspace):
    base = str(workspace.base)
    for words in ([], ["--json"], [base], ["--data"], ["--data", ""], ["--data", base, "more"]):
        result = run([PROGRAM, "log", *words])
        assert result.code == 2, f"{words}: {result}"
        refused(result, "dqlitefs help")


def test_log_on_a_read_only_file_system_is_shown(stopped):
    node, _ = stopped
    place = node.dir / "read-only"
    place.mkdir()
    assert run(["mount", "--bind", "-o", "ro", str(node.data), str(place)]).code == 0
    remounted = run(["mount", "-o", "remount,bind,ro", str(place)])
    assert remounted.code == 0, remounted
    try:
        result = run([PROGRAM, "log", "--data", str(place)])
        assert result.code == 0 and "wal.db" in result.out, result
    finally:
        run(["umount", str(place)])


def test_output_that_cannot_be_written_is_an_error(stopped):
    node, _ = stopped
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [PROGRAM, "log", "--data", str(node.data)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=20,
        )
    assert result.returncode == 1 and "output" in result.stderr, result
