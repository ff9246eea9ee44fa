"""Bad input: one line that names the remedy, an exit code that is not 0, nothing changed."""

import os
import re
import shutil
import socket
import time

import pytest
from harness import (
    PROGRAM,
    Cluster,
    Node,
    free_port,
    is_mounted,
    mounts_under,
    run,
    sql,
    tree,
    until,
)


@pytest.fixture
def place(workspace):
    """An empty mount point and an empty data directory."""
    (workspace.base / "mnt").mkdir()
    (workspace.base / "data").mkdir()
    return workspace.base


def refused(base, *words, mentions=(), prefix=(), timeout=30, ignore=()):
    """Runs the program and checks all that a refusal promises."""

    def state():
        found = tree(base)
        return {
            name: about
            for name, about in found.items()
            if not name.startswith(tuple(ignore) or "\0")
        }

    before, mounts = state(), mounts_under(base)
    result = run([*prefix, PROGRAM, *map(str, words)], timeout)
    assert mounts_under(base) == mounts, "something was mounted or unmounted"
    assert result.code != 0, result
    assert result.code > 0, f"died of a signal: {result}"
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, f"not one line: {result}"
    assert not result.out.strip(), result
    assert len(lines[0]) > 20, f"names no remedy: {result}"
    for choices in mentions:
        if isinstance(choices, str):
            choices = [choices]
        assert any(
            str(choice).lower() in lines[0].lower() for choice in choices
        ), f"says nothing of {choices}: {lines[0]}"
    assert state() == before, "changed something on disk"
    return lines[0]


# --- the command line -------------------------------------------------------------------------


def test_unknown_option_is_refused(place):
    refused(
        place,
        "mount",
        place / "mnt",
        "--data",
        place / "data",
        "--frobnicate",
        mentions=["frobnicate"],
    )


def test_unknown_command_is_refused(place):
    refused(place, "frobnicate", place / "mnt", mentions=["frobnicate"])


def test_no_command_at_all_is_refused_with_the_usage():
    result = run([PROGRAM])
    assert result.code > 0 and "mount" in result.out + result.err


def test_help_and_version_are_no_errors():
    result = run([PROGRAM, "--help"])
    assert result.code == 0 and "mount" in result.out and "umount" in result.out
    result = run([PROGRAM, "--version"])
    assert result.code == 0 and result.out.strip()


COMMANDS = ["mount", "status", "transfer", "umount", "log", "recover"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_is_that_of_no_other(command):
    for words in ([command, "--help"], [command, "-h"], ["help", command]):
        result = run([PROGRAM, *words])
        assert result.code == 0 and not result.err, result
        named = re.findall(r"^  dqlitefs (\w+) ", result.out, re.MULTILINE)
        assert named == [command], result
    assert result.out in run([PROGRAM, "help"]).out


def test_help_of_an_unknown_command_is_refused(place):
    refused(place, "help", "frobnicate", mentions=["frobnicate"])


def test_mount_without_a_mount_point_is_refused(place):
    refused(place, "mount", "--data", place / "data")


def test_argument_too_many_is_refused(place):
    (place / "mnt2").mkdir()
    refused(place, "mount", place / "mnt", place / "mnt2", "--data", place / "data")


@pytest.mark.parametrize(
    "option, value",
    [
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:99999"),
        ("--listen", "127.0.0.1:"),
        ("--join", "nowhere"),
        ("--join", "127.0.0.1:0"),
        ("--commit-timeout", "soon"),
        ("--commit-timeout", "-1"),
        ("--election-timeout", "soon"),
        ("--election-timeout", "0x"),
        ("--fuse-uring", "maybe"),
        ("--max-transaction", "much"),
        ("--max-transaction", "1K"),
    ],
)
def test_option_with_a_bad_value_is_refused(place, option, value):
    words = ["mount", place / "mnt", "--data", place / "data", f"{option}={value}"]
    refused(place, *words, mentions=[option.lstrip("-")])


def test_option_without_its_value_is_refused(place):
    refused(place, "mount", place / "mnt", "--data", mentions=["data"])


def test_unknown_mount_option_is_refused(place):
    refused(place, "mount", place / "mnt", "--data", place / "data", "-o", "frobnicate")


# --- mount points -----------------------------------------------------------------------------


def test_mount_point_missing_is_refused(place):
    refused(place, "mount", place / "missing", "--data", place / "data", mentions=["missing"])
    refused(
        place, "mount", place / "missing", "--data", place / "data-missing", mentions=["missing"]
    )


@pytest.mark.parametrize("command", ["status", "transfer", "umount"])
def test_command_says_whether_a_directory_is_missing_or_no_mount(place, command):
    line = refused(place, command, place / "missing", mentions=["no such directory"])
    assert "dqlitefs mount" not in line
    (place / "plain").mkdir()
    refused(place, command, place / "plain", mentions=["is not a dqlitefs mount", "makes it one"])


def test_mount_point_that_is_a_file_is_refused(place):
    (place / "file").write_text("content")
    refused(place, "mount", place / "file", "--data", place / "data", mentions=["director"])


def test_mount_point_inside_the_data_directory_is_refused(place):
    (place / "data" / "mnt").mkdir()
    refused(place, "mount", place / "data" / "mnt", "--data", place / "data", mentions=["data"])


def test_mount_point_that_is_the_data_directory_is_refused(place):
    refused(place, "mount", place / "data", "--data", place / "data", mentions=["data"])


def test_mount_point_inside_the_data_directory_by_a_symlink_is_refused(place):
    (place / "data" / "mnt").mkdir()
    (place / "link").symlink_to(place / "data" / "mnt")
    refused(place, "mount", place / "link", "--data", place / "data", mentions=["data"])


def test_data_directory_inside_the_mount_point_is_refused(place):
    (place / "mnt" / "data").mkdir()
    refused(place, "mount", place / "mnt", "--data", place / "mnt" / "data", mentions=["data"])


def test_mount_point_that_is_mounted_already_is_refused(node):
    other = node.workspace.base / "other"
    other.mkdir()
    refused(
        other,
        "mount",
        node.mnt,
        "--data",
        other / "data",
        "--listen",
        f"127.0.0.1:{free_port()}",
        mentions=[["mount"]],
    )
    assert sql(node, "a.db", "CREATE TABLE t(a); SELECT 1;") == "1"


# --- data directories ------------------------------------------------------------------------


def test_data_directory_that_is_a_file_is_refused(place):
    (place / "file").write_text("content")
    refused(place, "mount", place / "mnt", "--data", place / "file", mentions=["file"])


def test_data_directory_in_a_missing_place_is_refused(place):
    refused(
        place,
        "mount",
        place / "mnt",
        "--data",
        place / "no" / "such" / "place",
        mentions=["no/such"],
    )


def test_data_directory_in_use_by_a_running_daemon_is_refused(node):
    sql(node, "a.db", "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    other = node.workspace.base / "othermnt"
    other.mkdir()
    refused(
        node.dir,
        "mount",
        other,
        "--data",
        node.data,
        "--listen",
        f"127.0.0.1:{free_port()}",
        mentions=[["in use", "running", "another"]],
        ignore=("data/.dqlitefs/log", "stderr.log"),
    )
    assert sql(node, "a.db", "INSERT INTO t VALUES(2); SELECT count(*) FROM t;") == "2"


def test_data_directory_of_a_node_with_another_address_is_refused(workspace):
    """A copy of a node's directory, or the neighbour's: two nodes with one identity."""
    cluster = Cluster(workspace, 2).start()
    sql(cluster.leader(), "a.db", "CREATE TABLE t(a);")
    victim = cluster.followers()[0]
    other = workspace.base / "other"
    other.mkdir()
    (other / "mnt").mkdir()
    victim.stop()
    shutil.copytree(victim.data, other / "data", symlinks=True)
    victim.start()
    refused(
        other,
        "mount",
        other / "mnt",
        "--data",
        other / "data",
        "--listen",
        f"127.0.0.1:{free_port()}",
        mentions=[victim.address],
    )
    cluster.check_sound("a.db")


def test_data_directory_of_another_cluster_is_refused_by_join(workspace):
    one, two = Node(workspace, "one").start(), Node(workspace, "two").start()
    sql(two, "b.db", "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    until("one leads", lambda: one.status()["role"] == "leader")
    two.stop()
    refused(
        two.dir,
        "mount",
        two.mnt,
        "--data",
        two.data,
        "--listen",
        two.address,
        "--join",
        one.address,
        mentions=["cluster"],
        ignore=("stderr.log",),
    )
    assert len(one.status()["members"]) == 1
    two.start()
    assert sql(two, "b.db", "SELECT count(*) FROM t") == "1"


def test_fresh_node_with_the_address_of_a_member_is_refused(workspace):
    cluster = Cluster(workspace, 3).start()
    victim = cluster.followers()[0]
    victim.stop()
    other = workspace.base / "other"
    (other / "data").mkdir(parents=True)
    (other / "mnt").mkdir()
    leader = cluster.wait_leader()
    refused(
        other,
        "mount",
        other / "mnt",
        "--data",
        other / "data",
        "--listen",
        victim.address,
        "--join",
        leader.address,
        mentions=[victim.address],
    )
    victim.start()
    cluster.wait_voters(3)


def test_data_directory_with_foreign_files_is_refused(place):
    """Files that no cluster knows would be shown on one node only."""
    (place / "data" / "letter.txt").write_text("mine")
    refused(
        place, "mount", place / "mnt", "--data", place / "data", mentions=[["empty", "letter.txt"]]
    )


# --- the network ---------------------------------------------------------------------------------


def test_port_in_use_is_refused(place):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(
            place,
            "mount",
            place / "mnt",
            "--data",
            place / "data",
            "--listen",
            f"127.0.0.1:{port}",
            mentions=[str(port)],
        )


def test_address_of_another_machine_is_refused(place):
    refused(
        place,
        "mount",
        place / "mnt",
        "--data",
        place / "data",
        "--listen",
        "192.0.2.1:7001",
        mentions=["192.0.2.1"],
    )


def test_join_to_a_port_nobody_listens_on_is_refused(place):
    port = free_port()
    started = time.monotonic()
    refused(
        place,
        "mount",
        place / "mnt",
        "--data",
        place / "data",
        "--listen",
        f"127.0.0.1:{free_port()}",
        "--join",
        f"127.0.0.1:{port}",
        mentions=[str(port)],
        timeout=60,
    )
    assert time.monotonic() - started < 45


def test_join_to_something_that_is_no_node_is_refused(place):
    """It accepts, and never answers a word that a node would say."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(
            place,
            "mount",
            place / "mnt",
            "--data",
            place / "data",
            "--listen",
            f"127.0.0.1:{free_port()}",
            "--join",
            f"127.0.0.1:{port}",
            mentions=[str(port)],
            timeout=60,
        )


def test_refused_join_can_be_repeated_once_the_peer_is_there(workspace):
    first, second = Node(workspace, "n1"), Node(workspace, "n2")
    refused(
        second.dir,
        "mount",
        second.mnt,
        "--data",
        second.data,
        "--listen",
        second.address,
        "--join",
        first.address,
        timeout=60,
    )
    first.start()
    until("it leads", lambda: first.status()["role"] == "leader")
    second.start(join=first.address)
    until("two voters", lambda: [m["role"] for m in second.status()["members"]] == ["voter"] * 2)


def test_garbage_on_the_port_of_a_node_harms_nothing(node):
    host, port = node.address.split(":")
    for garbage in (b"", b"GET / HTTP/1.0\r\n\r\n", os.urandom(5000), b"\xff" * 64, b"\0" * 4096):
        with socket.create_connection((host, int(port)), 5) as connection:
            try:
                connection.sendall(garbage)
            except OSError:
                pass
    time.sleep(0.3)
    assert node.running
    assert sql(node, "a.db", "CREATE TABLE t(a); SELECT 1;") == "1"


# --- the machine --------------------------------------------------------------------------------


def test_user_who_is_not_root_is_refused(place):
    for path in (place, place / "mnt", place / "data"):
        os.chmod(path, 0o777)
    # whoever cannot even read the program is told so by the shell
    program = place / "dqlitefs"
    shutil.copy(PROGRAM, program)
    program.chmod(0o755)
    before = tree(place)
    result = run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            str(program),
            "mount",
            str(place / "mnt"),
            "--data",
            str(place / "data"),
        ]
    )
    assert result.code > 0 and len(result.err.strip().splitlines()) == 1, result
    assert "root" in result.err
    assert tree(place) == before and not is_mounted(place / "mnt")


def test_mount_without_passthrough_is_refused(place, workspace):
    """In a user namespace there is a root whom the kernel does not allow passthrough, so that
    one kernel shows what another one lacks."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if run([*namespace, "true"]).code != 0:
        pytest.skip("user namespaces are not allowed here")
    refused(
        place,
        "mount",
        place / "mnt",
        "--data",
        place / "data",
        "--listen",
        f"127.0.0.1:{free_port()}",
        prefix=namespace,
        mentions=["passthrough"],
    )
    assert not workspace.strays(), "a daemon went on in the background"


# --- the other commands -------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "transfer", "umount"])
def test_command_on_what_is_no_mount_is_refused(place, command):
    refused(place, command, place / "mnt", mentions=[["mount"]])
    refused(place, command, place / "missing", mentions=[["missing", "mount"]])
    refused(place, command)


@pytest.mark.parametrize("command", ["status", "transfer"])
def test_command_on_a_dead_mount_is_refused(node, command):
    node.kill9()
    result = run([PROGRAM, command, str(node.mnt)])
    assert result.code > 0 and len(result.err.strip().splitlines()) == 1, result


def test_umount_of_a_dead_mount_takes_it_away(node):
    node.kill9()
    result = run([PROGRAM, "umount", str(node.mnt)])
    # taken away, or a line that says how
    assert (
        result.code == 0 and not is_mounted(node.mnt) or len(result.err.strip().splitlines()) == 1
    )
