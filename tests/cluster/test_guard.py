"""A daemon that is killed while it waits for itself ends, and its place can be used again.

The daemon uses its own mount. Its thread that waits there for an answer cannot be killed, and
keeps /dev/fuse open, so without help nothing would ever end that wait: see fusefs/mount/guard.h.
"""

import os
import re
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from harness import (
    PROGRAM,
    PYTHON,
    WORKERS,
    Cluster,
    Connection,
    Hang,
    Writer,
    end_process,
    is_mounted,
    mounts_from,
    over_io_uring,
    run,
    sql,
    until,
)

ENDS_WITHIN = 60  # it takes a moment; without the guard it would never end


def guard_of(node):
    """The number of the guard process, a child of the daemon."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rsplit(")", 1)
            except OSError:
                continue
            state, parent = words[1].split()[:2]
            if words[0].endswith("(fsd-guard") and parent == str(node.process.pid) and state != "Z":
                return int(entry.name)
    return None


def gone(pid):
    try:
        # whoever adopted it may take a while to notice
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def waits_for_itself(node):
    """Is the thread that applies transactions waiting for the answer to a FUSE request?"""
    for task in Path(f"/proc/{node.process.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "applier":
            return "fuse" in (task / "stack").read_text()
    return False


def hold(node):
    """From now on the daemon takes FUSE requests and does not answer them. To be killed, close
    the stdin of what this returns."""
    holder = subprocess.Popen(
        [PYTHON, "-B", str(WORKERS / "hold.py"), str(node.process.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    node.workspace.children.append(holder)
    if holder.stdout.readline() != b"armed\n":
        reason = holder.stderr.read().decode(errors="replace").strip()
        if "ptrace" in reason:
            pytest.skip(reason)
        raise AssertionError(reason)
    return holder


def make_it_wait_for_itself(cluster, db):
    """A node that had to give up leadership, whose applier waits for the file that it opens to
    keep writers away; what holds it; and the application for whose sake it does so."""
    node = cluster.leader()
    sql(node, db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    cluster.check_sound(db)
    application = Connection(node, db)
    assert application.value("SELECT count(*) FROM t") == 1
    holder = hold(node)
    result = run([PROGRAM, "transfer", str(node.mnt)])
    assert result.code == 0, result
    until("the applier waits for itself", lambda: waits_for_itself(node))
    return node, holder, application


def describe_threads(node):
    """Where each of them is, for who has to find out why they do not end."""
    lines = []
    for task in sorted(Path(f"/proc/{node.process.pid}/task").iterdir()):
        try:
            where = [line.split()[1] for line in (task / "stack").read_text().splitlines()[:4]]
            status = (task / "status").read_text()
            signals = re.findall(r"^(?:State|TracerPid|SigPnd|ShdPnd|SigBlk):.*", status, re.M)
            lines.append(f"{(task / 'comm').read_text().strip()} {signals} {where}")
        except OSError:  # it is gone
            continue
    return "\n".join(lines)


def check_ended(node, within=ENDS_WITHIN):
    started = time.monotonic()
    try:
        node.wait_ended(within)
    except Hang as error:
        raise Hang(f"{error}:\n{describe_threads(node)}") from None
    print(f"{node} ended after {time.monotonic() - started:.3f} s")


@pytest.fixture
def three(workspace):
    return Cluster(workspace, 3).start()


@pytest.mark.parametrize("uring", ["on", "off"])
def test_daemon_killed_while_it_waits_for_itself_ends(workspace, db, uring):
    if uring == "on" and not over_io_uring():
        pytest.skip("this kernel has no FUSE over io_uring")
    cluster = Cluster(workspace, 3, options=[f"--fuse-uring={uring}"]).start()
    node, holder, application = make_it_wait_for_itself(cluster, db)
    guard = guard_of(node)
    assert guard
    holder.stdin.close()
    check_ended(node)
    until("the guard is gone", lambda: gone(guard), ENDS_WITHIN)
    application.kill9()
    node.start()
    cluster.check_sound(db)


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGQUIT])
def test_daemon_that_crashes_while_it_waits_for_itself_ends(three, db, number):
    """The kernel dumps no core before all threads have stopped."""
    node, holder, application = make_it_wait_for_itself(three, db)
    # of those that are held nobody could handle a signal: let them run into it
    node.process.send_signal(number)
    end_process(holder)
    check_ended(node)
    assert node.process.returncode == -number
    application.kill9()
    node.start()
    three.check_sound(db)


@pytest.mark.limit(300)
def test_follower_killed_in_a_storm_ends_every_time(three, db, soak):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    leader, follower = three.leader(), three.followers()[0]
    writers = [Writer([leader], f"{i}{db}", "--busy-ms", 2000) for i in range(2)]
    for writer in writers:
        writer.wait_acks(5)
    for _ in range(200 if soak else 30):
        readers = []
        for i in range(2):
            path = follower.path(f"{i}{db}")
            script = (
                "import sqlite3,sys\n"
                "while True:\n"
                "    try:\n"
                "        db = sqlite3.connect(sys.argv[1], timeout=5)\n"
                "        for _ in range(20): db.execute('SELECT sum(seq) FROM rows').fetchall()\n"
                "        db.close()\n"
                "    except sqlite3.Error: pass\n"
            )
            readers.append(
                subprocess.Popen([PYTHON, "-B", "-c", script, str(path)], stderr=subprocess.DEVNULL)
            )
            follower.workspace.children.append(readers[-1])
        time.sleep(chance.uniform(0.05, 0.5))
        follower.process.kill()
        check_ended(follower)
        for reader in readers:
            end_process(reader)
        follower.start()
    for writer in writers:
        writer.stop()
    for i, writer in enumerate(writers):
        assert three.check_rows(f"{i}{db}", [writer]) > 0


def test_guard_goes_with_an_orderly_umount(node):
    guard = guard_of(node)
    assert guard
    held = [os.readlink(f"/proc/{guard}/fd/{fd}") for fd in os.listdir(f"/proc/{guard}/fd")]
    kinds = sorted(re.sub(r"^/\d+/|:\[\d+\]", "", name) for name in held)
    # "/": the root of the mount, which is nowhere
    assert kinds == ["/", "abort", "anon_inode:[pidfd]", "socket"], held
    assert str(node.data) not in Path(f"/proc/{guard}/cmdline").read_text()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guard, number)
    assert guard_of(node) == guard and node.running
    node.stop()
    assert not Path(f"/proc/{guard}").exists()


def test_guard_that_was_killed_is_missed_but_not_needed(node, db):
    os.kill(guard_of(node), signal.SIGKILL)
    until("the log says so", lambda: "guard process died" in node.log_text())
    assert sql(node, db, "CREATE TABLE t(a); SELECT 1;") == "1"
    node.stop()


@pytest.mark.parametrize("command", ["mount", "umount"])
def test_next_command_stands_in_for_a_guard_that_was_killed_too(three, db, command):
    node, holder, application = make_it_wait_for_itself(three, db)
    os.kill(guard_of(node), signal.SIGKILL)
    holder.stdin.close()
    with pytest.raises(Hang):
        node.wait_ended(1)
    if command == "umount":
        result = run([PROGRAM, "umount", str(node.mnt)])
        assert result.code == 0, result
        check_ended(node)
        assert not is_mounted(node.mnt)
    else:
        killed, node.process = node.process, None
        node.start()
        killed.wait(ENDS_WITHIN)
    application.kill9()
    if command == "umount":
        node.start()
    three.check_sound(db)


def test_mount_left_aside_by_a_daemon_killed_on_its_way_up_goes_with_the_next_start(node, db):
    sql(node, db, "CREATE TABLE t(a)")
    # as fsd_place_mount() leaves it: a second mount of the same data directory, in /run
    left = tempfile.mkdtemp(prefix="dqlitefs-", dir="/run")
    aside = Path(left[: len("/run/dqlitefs-XXXXXX")])
    os.rename(left, aside)
    result = run(["mount", "--bind", node.mnt, aside])
    assert result.code == 0, result
    try:
        node.kill9()
        node.start()
        assert not aside.exists() and mounts_from(node.workspace.base) == [str(node.mnt)]
        sql(node, db, "INSERT INTO t VALUES(1)", busy_ms=5000)
    finally:
        run(["umount", "-l", aside])
        run(["rmdir", aside])
