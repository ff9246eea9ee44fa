"""`dqlitefs recover`: most nodes are lost for good; a survivor goes on alone, with all that it had."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from harness import PROGRAM, Cluster, Node, Writer, is_mounted, run, sql, tree, until


def recover(node_or_data, *options, env=None):
    data = getattr(node_or_data, "data", node_or_data)
    return run([PROGRAM, "recover", "--data", str(data), *options], timeout=60, env=env)


def refused(node, *mentions, code=1, options=("--yes",)):
    """One line that says why, and nothing has changed."""
    data = getattr(node, "data", node)
    before = tree(data)
    result = recover(data, *options)
    assert result.code == code and not result.out, result
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, f"not one line: {result}"
    for mention in mentions:
        assert str(mention) in lines[0], f"says nothing of {mention}: {lines[0]}"
    assert tree(data) == before, "changed something on disk"


def identity(node):
    return json.loads((node.data / ".dqlitefs" / "node").read_text())


def end(node):
    """Killed, and the dead mount taken away."""
    if node.running:
        node.kill9()
    run(["umount", "-l", str(node.mnt)])


def destroy(node):
    end(node)
    shutil.rmtree(node.data)
    node.data.mkdir()


def copy_data(source, target, sparse="always"):
    """Also of a control socket, which shutil does not copy."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", f"--sparse={sparse}", source, target], check=True)


def leads(node):
    def check():
        status = node.status()
        return status if status["role"] == "leader" else None

    return until(f"{node} leads", check)


def recovered(node):
    """It is, and says so."""
    before = identity(node)
    result = recover(node, "--yes")
    assert result.code == 0 and not result.err, result
    after = identity(node)
    assert after["cluster"] != before["cluster"] and after["cluster"] in result.out
    assert {k: v for k, v in after.items() if k != "cluster"} == {
        k: v for k, v in before.items() if k != "cluster"
    }
    assert node.address in result.out
    names = sorted(entry.name for entry in (node.data / ".dqlitefs").iterdir())
    assert not [name for name in names if name.startswith("raft.")], names


def mounted_alone(node):
    """Starts the survivor; its status."""
    node.start()
    status = leads(node)
    assert [member["address"] for member in status["members"]] == [node.address]
    assert status["members"][0]["role"] == "voter"
    return status


# --- what it is for ------------------------------------------------------------------------------


def test_survivor_has_all_that_was_acknowledged_and_takes_new_members(workspace, db):
    cluster = Cluster(workspace).start()
    writer = Writer(cluster.nodes, db, "--mode", "wal")
    writer.wait_acks(20)
    writer.stop()
    cluster.check_rows(db, [writer])
    survivor = cluster.followers()[0]
    database = survivor.database(db)
    lost = [node for node in cluster.nodes if node is not survivor]
    for node in cluster.nodes:
        end(node)
    for node in lost:
        destroy(node)

    before = tree(survivor.data)
    result = recover(survivor)
    assert result.code == 0 and not result.err and tree(survivor.data) == before, result
    assert "--yes" in result.out.splitlines()[-1], result
    log = run([PROGRAM, "log", "--data", str(survivor.data), "--json"])
    summary = json.loads(log.out.splitlines()[-1])
    about = identity(survivor)
    for word in (
        about["node"],
        about["cluster"],
        f"term {summary['last_term']}, index {summary['last_index']}",
        database["checksum"],
        f" {database['version']} ",
        "may or may not have been committed",
        "one node only",
        *(node.address for node in lost),
    ):
        assert word in result.out, f"says nothing of {word}: {result.out}"

    recovered(survivor)
    mounted_alone(survivor)
    assert {k: v for k, v in survivor.database(db).items()} == database
    again = Writer([survivor], db, "--mode", "wal")
    again.wait_acks(5)
    # under their old addresses, which nobody else has any more
    for node in lost:
        node.start(join=survivor.address)
    cluster.wait_voters(3)
    again.wait_acks(5)
    again.stop()
    cluster.check_rows(db, [writer, again])
    # and without the survivor
    end(survivor)
    last = Writer([cluster.wait_leader(other_than=survivor)], db, "--mode", "wal")
    last.wait_acks(5)
    last.stop()
    survivor.start()
    cluster.check_rows(db, [writer, again, last])


def test_old_members_are_refused_and_lose_nothing(workspace, db):
    cluster = Cluster(workspace).start()
    sql(cluster.leader(), db, "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    for node in cluster.nodes:
        end(node)
    survivor, old, other = cluster.nodes
    recovered(survivor)
    mounted_alone(survivor)
    sql(survivor, db, "INSERT INTO t VALUES(2);", busy_ms=5000)

    # told to join: does not even mount
    before = tree(old.data)
    result = run(old.command(survivor.address), timeout=30)
    lines = result.err.strip().splitlines()
    assert result.code == 1 and len(lines) == 1, result
    for word in (str(old.data), "another", "recovered without this node", "join again"):
        assert word in lines[0], lines[0]
    assert tree(old.data) == before and not is_mounted(old.mnt)

    # by itself: it finds its old cluster, of which the survivor is none any more
    old.start()
    until(
        "the old member says so",
        lambda: "belongs to another cluster now: if that was recovered" in old.log_text(),
    )
    until(
        "the survivor says so",
        lambda: "refused a connection of another cluster: if that node" in survivor.log_text(),
    )
    assert old.status()["role"] != "leader"
    status = survivor.status()
    assert status["role"] == "leader" and len(status["members"]) == 1
    sql(survivor, db, "INSERT INTO t VALUES(3);", busy_ms=5000)
    # what it had is there, what came later is not
    end(old)
    log = run([PROGRAM, "log", "--data", str(old.data), "--json"])
    databases = [json.loads(line) for line in log.out.splitlines()]
    assert [d["name"] for d in databases if d["kind"] == "database"] == [db], log

    # the remedy
    for node in (old, other):
        destroy(node)
        node.start(join=survivor.address)
    cluster.wait_voters(3)
    cluster.check_sound(db)
    assert cluster.wait_same(db, "SELECT x FROM t") == "1\n2\n3"


def test_recovery_beside_a_living_majority_disturbs_neither(workspace, db):
    """What is not to be done: two clusters, but two that know of it."""
    cluster = Cluster(workspace).start()
    sql(cluster.leader(), db, "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    lonely = cluster.followers()[0]
    end(lonely)
    others = [node for node in cluster.nodes if node is not lonely]
    recovered(lonely)
    term = mounted_alone(lonely)["term"]
    sql(lonely, db, "INSERT INTO t VALUES(2);", busy_ms=5000)
    for node in others:
        until(
            f"{node} says so",
            lambda: "belongs to another cluster now: if that was recovered" in node.log_text(),
        )
    until(
        "the recovered one says so",
        lambda: "refused a connection of another cluster" in lonely.log_text(),
    )
    leader = next(node for node in others if node.status()["role"] == "leader")
    for value in (3, 4, 5):
        sql(leader, db, f"INSERT INTO t VALUES({value});", busy_ms=5000)
    status = lonely.status()
    assert status["term"] == term and status["role"] == "leader"
    assert sql(lonely, db, "SELECT x FROM t") == "1\n2"
    until(
        "the others are equal",
        lambda: all(sql(node, db, "SELECT x FROM t") == "1\n3\n4\n5" for node in others),
    )


@pytest.mark.limit(240)
def test_compacted_log_is_recovered(workspace, db):
    cluster = Cluster(workspace, options=["--log-size", "16M"]).start()
    leader = cluster.leader()
    sql(leader, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(x);")
    sql(leader, "small.db", "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    for i in range(12):
        blob = f"INSERT INTO t VALUES(randomblob({4 << 20}));"
        sql(cluster.wait_leader(), db, blob, timeout=60, busy_ms=20000)
    survivor = cluster.followers()[0]
    first = survivor.data / ".dqlitefs" / "raft" / "segment-0000000000000001.log"
    until("the survivor's log is compacted", lambda: not first.exists(), 60)
    cluster.wait_equal()
    content = sql(survivor, db, ".sha3sum", timeout=60)
    known = {d["name"]: d for d in survivor.status()["databases"]}
    for node in cluster.nodes:
        end(node)
    for node in cluster.nodes:
        if node is not survivor:
            destroy(node)

    plan = recover(survivor)
    for database in known.values():
        assert database["checksum"] in plan.out, plan
    recovered(survivor)
    log = run([PROGRAM, "log", "--data", str(survivor.data), "--json"])
    assert log.code == 0, log
    items = [json.loads(line) for line in log.out.splitlines()]
    assert {d["name"]: d["checksum"] for d in items if d["kind"] == "database"} == {
        name: d["checksum"] for name, d in known.items()
    }
    mounted_alone(survivor)
    until(
        "it has applied its log",
        lambda: {d["name"]: d for d in survivor.status()["databases"]} == known,
    )
    assert sql(survivor, db, ".sha3sum; PRAGMA integrity_check".replace(";", "\n"), timeout=60) == (
        f"{content}\nok"
    )
    sql(survivor, db, "INSERT INTO t VALUES(1);", busy_ms=5000)
    for node in cluster.nodes:
        if node is not survivor:
            node.start(join=survivor.address)
    cluster.wait_voters(3, timeout=60)
    cluster.check_sound(db)
    # once more, and it is compacted again
    for i in range(6):
        blob = f"INSERT INTO t VALUES(randomblob({4 << 20}));"
        sql(cluster.wait_leader(), db, blob, timeout=60, busy_ms=20000)
    cluster.check_sound(db, timeout=60)
    end(survivor)
    survivor.start()
    cluster.check_sound(db, timeout=60)


def test_uncommitted_end_of_the_log_counts_from_then_on(workspace, db):
    """The leader takes what no other has; it fails, and is there after the recovery."""
    cluster = Cluster(workspace, options=["--commit-timeout", "1"]).start()
    leader = cluster.leader()
    sql(leader, db, "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    for node in cluster.followers():
        end(node)
    result = run(["sqlite3", str(leader.path(db)), "INSERT INTO t VALUES(2);"])
    assert result.code != 0, result
    end(leader)
    recovered(leader)
    mounted_alone(leader)
    assert sql(leader, db, "SELECT x FROM t; PRAGMA integrity_check;", busy_ms=5000) == "1\n2\nok"


# --- crashes -------------------------------------------------------------------------------------


def killed(data, library, call, count_file=None):
    """recover --yes, killed ahead of its `call`th change of the disk; or those are counted."""
    env = {"LD_PRELOAD": str(library), "KILL_CALL": "state", "KILL_N": str(call)}
    env["KILL_WHEN"] = "before"
    if count_file:
        env["KILL_COUNT"] = str(count_file)
    process = subprocess.run(
        [PROGRAM, "recover", "--data", str(data), "--yes"],
        env=dict(os.environ, **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    if count_file:
        assert process.returncode == 0, process
        return int(count_file.read_text())
    assert process.returncode == -signal.SIGKILL, process
    return None




@pytest.mark.limit(400)
def test_kill_at_every_change_of_the_disk_leaves_old_or_new_or_can_be_repeated(
    workspace, db, kill_at, soak
):
    cluster = Cluster(workspace).start()
    sql(cluster.leader(), db, "PRAGMA journal_mode=WAL; CREATE TABLE t(x);")
    sql(cluster.leader(), db, "INSERT INTO t VALUES(1);", busy_ms=5000)
    cluster.check_sound(db)
    node = cluster.followers()[0]
    # so that there is a snapshot, and an entry behind it
    node.stop()
    node.start()
    sql(cluster.wait_leader(), db, "INSERT INTO t VALUES(2);", busy_ms=5000)
    cluster.check_sound(db)
    for one in cluster.nodes:
        end(one)
    saved = node.dir / "saved"
    copy_data(node.data, saved)
    old = identity(node)

    count = killed(node.data, kill_at, 0, node.dir / "count")
    assert identity(node)["state"] == "member" and count > 20
    seen = {}
    for call in range(1, count + 1):
        copy_data(saved, node.data)
        killed(node.data, kill_at, call)
        now = identity(node)
        kind = "old" if now["cluster"] == old["cluster"] else now["state"]
        state = node.data / ".dqlitefs"
        there = tuple(sorted(e.name for e in state.iterdir() if e.name.startswith("raft")))
        first_seen = (kind, there) not in seen
        seen.setdefault((kind, there), call)

        if first_seen or soak:
            # what a mount makes of it
            middle = node.dir / "middle"
            copy_data(node.data, middle)
            if kind == "recovering":
                before = tree(node.data)
                result = run(node.command(), timeout=30)
                lines = result.err.strip().splitlines()
                assert result.code == 1 and len(lines) == 1, result
                assert "recover" in lines[0] and str(node.data) in lines[0], result
                assert tree(node.data) == before
                log = run([PROGRAM, "log", "--data", str(node.data)])
                assert log.code == 1 and "recover" in log.err and not log.out, log
                dry = recover(node)
                assert dry.code == 1 and "--yes" in dry.err and tree(node.data) == before, dry
            elif kind == "old":
                node.start()
                assert node.status()["role"] != "leader"
                end(node)
                assert not (state / "raft.refound").exists(), "the attempt was not tidied up"
            else:
                mounted_alone(node)
                end(node)
            copy_data(middle, node.data)

        # and recover, run again
        result = recover(node, "--yes")
        assert result.code == 0 and not result.err, (call, result)
        now = identity(node)
        assert now["state"] == "member" and now["cluster"] != old["cluster"]
        assert now["node"] == old["node"] and now["address"] == old["address"]
        assert sorted(e.name for e in state.iterdir() if e.name.startswith("raft")) == ["raft"]
        log = run([PROGRAM, "log", "--data", str(node.data), "--json"])
        items = [json.loads(line) for line in log.out.splitlines()]
        members = [e["members"] for e in items if e.get("type") == "members"][-1]
        assert log.code == 0 and [m["node"] for m in members] == [old["node"]], log
        (version,) = (d["version"] for d in items if d["kind"] == "database")
        assert version == 4, log.out
        if first_seen or soak:
            mounted_alone(node)
            assert sql(node, db, "SELECT x FROM t; PRAGMA integrity_check;") == "1\n2\nok"
            sql(node, db, "INSERT INTO t VALUES(3);", busy_ms=5000)
            end(node)
    kinds = [kind for kind, _ in seen]
    assert "old" in kinds and "recovering" in kinds, seen
    for there in (
        ("raft",),
        ("raft", "raft.refound"),
        ("raft.old", "raft.refound"),
        ("raft", "raft.old"),
    ):
        assert there in [names for _, names in seen], f"no crash between {there}: {seen}"


# --- refusals ------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused(workspace):
    base = str(workspace.base)
    for words in ([], ["--yes"], [base], ["--data"], ["--data", ""], ["--data", base, "more"]):
        result = run([PROGRAM, "recover", *words])
        assert result.code == 2 and not result.out, f"{words}: {result}"
        lines = result.err.strip().splitlines()
        assert len(lines) == 1 and "dqlitefs help" in lines[0], result


def test_directories_that_hold_no_node_are_refused(workspace):
    empty = workspace.base / "empty"
    empty.mkdir()
    refused(empty, empty, "--data")
    (empty / ".dqlitefs").mkdir()
    refused(empty, "node")
    missing = recover(workspace.base / "missing", "--yes")
    assert missing.code == 1 and "missing" in missing.err, missing


def test_running_daemon_is_refused(node):
    sql(node, "a.db", "CREATE TABLE t(x);")
    for options in ([], ["--yes"]):
        result = recover(node, *options)
        assert result.code == 1 and not result.out, result
        assert str(node.mnt) in result.err and str(node.process.pid) in result.err
    assert node.database("a.db")["version"] == 1


def test_cluster_of_one_has_nothing_to_recover(node):
    sql(node, "a.db", "CREATE TABLE t(x);")
    node.stop()
    for options in ([], ["--yes"]):
        before = tree(node.data)
        result = recover(node, *options)
        assert result.code == 0 and "nothing to recover" in result.out and not result.err, result
        assert tree(node.data) == before


def test_node_that_never_joined_is_refused(workspace):
    first, second = Node(workspace, "n1"), Node(workspace, "n2")
    assert second.launch(join=first.address).wait_ended(60) != 0
    if (second.data / ".dqlitefs").exists():
        refused(second, "no log yet")
    first.start()
    leads(first)
    second.start(join=first.address)
    Cluster.wait_voters(type("two", (), {"running": [first, second], "nodes": [first, second]}))
    end(second)
    # as it is after joining, before the leader has sent anything
    shutil.rmtree(second.data / ".dqlitefs" / "raft")
    refused(second, "no log yet")


def test_damaged_logs_are_refused_by_file_and_offset(workspace, db):
    cluster = Cluster(workspace).start()
    sql(cluster.leader(), db, "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    node = cluster.followers()[0]
    for one in cluster.nodes:
        one.kill9() if one is not node else one.stop()
        run(["umount", "-l", str(one.mnt)])
    raft = node.data / ".dqlitefs" / "raft"

    def flip(path, offset):
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 4]))

    for name, offset in (
        ("segment-0000000000000001.log", 100),
        ("segment-0000000000000001.log", 4096 + 70),
        ("snapshot", 70),
    ):
        flip(raft / name, offset)
        for options in ([], ["--yes"]):
            refused(node, "damaged", f"file={name} offset=", "another node", options=options)
        flip(raft / name, offset)

    # files that are not what the log says
    (node.data / ".dqlitefs" / "unfit").touch()
    for options in ([], ["--yes"]):
        refused(node, "unfit", "another node", options=options)
    (node.data / ".dqlitefs" / "unfit").unlink()

    # another node's identity
    mine = Path(node.data / ".dqlitefs" / "node").read_text()
    (node.data / ".dqlitefs" / "node").write_text(
        mine.replace(identity(node)["cluster"], "0123456789abcdef")
    )
    refused(node, "not of the same node")
    (node.data / ".dqlitefs" / "node").write_text("{}")
    refused(node, "damaged")
    (node.data / ".dqlitefs" / "node").write_text(mine)
    recovered(node)
    mounted_alone(node)


def test_full_disk_leaves_the_old_cluster(workspace, db):
    """The new log does not fit beside the old one."""
    cluster = Cluster(workspace, 2).start()
    sql(cluster.leader(), db, "CREATE TABLE t(x); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    node = cluster.followers()[0]
    for one in cluster.nodes:
        end(one)
    for spare in (node.data / ".dqlitefs" / "raft").glob("spare-*"):
        spare.unlink()
    small = workspace.base / "small"
    small.mkdir()
    assert run(["mount", "-t", "tmpfs", "-o", "size=14M", "tmpfs", str(small)]).code == 0
    try:
        data = small / "data"
        copy_data(node.data, data, sparse="never")
        before = tree(data)
        result = recover(data, "--yes")
        assert result.code == 1 and "No space left" in result.err, result
        assert len(result.err.strip().splitlines()) == 1, result
        # but for what reading a log notes there: how far it is whole
        assert {n: a for n, a in tree(data).items() if not n.endswith("/meta")} == {
            n: a for n, a in before.items() if not n.endswith("/meta")
        }
        assert run(["mount", "-o", "remount,size=30M", str(small)]).code == 0
        assert recover(data, "--yes").code == 0
    finally:
        run(["umount", str(small)])
