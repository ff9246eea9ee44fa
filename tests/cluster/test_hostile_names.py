"""File names that would forge a line, command a terminal, or are no UTF-8: what the daemon and the commands
print of them is one line, and tells them apart."""

import json
import os
import re
import subprocess
import unicodedata

import pytest
from fetching import PAGE, fill
from harness import PROGRAM, Cluster, Node, drop_cache, flip, run, sql, until

FORGED = "2026-01-01T00:00:00.000Z E forged"
NAMES = [
    b"plain.db",
    b"two words.db",
    f"line\n{FORGED}\n.db".encode(),
    b"\nnode     ffffffff at nowhere:1.db",
    b"tab\t.db",
    b"\x1b[2J\x1b]0;title\x07.db",
    b"\x7f\r\x08.db",
    b"\xff.db",
    b"\\xff.db",
    b"\xfe.db",
    b"\xc3.db",
    b"\xc2\x9b.db",  # C1, as UTF-8
    b"\x9b.db",  # and alone
    "\u202egnp.db".encode(),
    "\u65e5\u672c.db".encode(),
    "\"quoted\" 'name'.db".encode(),
]
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [IWE] [^ ]")


def as_path(name):
    return os.fsdecode(name)


def unescape(text):
    """What README tells of names."""
    special = {"\\\\": b"\\", "\\n": b"\n", "\\t": b"\t"}
    parts = re.split(r"(\\(?:\\|n|t|x[0-9a-f]{2}))", text)
    return b"".join(
        special[part] if part in special
        else bytes([int(part[2:], 16)]) if re.fullmatch(r"\\x..", part)
        else part.encode()
        for part in parts
    )


def check_text(output):
    """Bytes for people: UTF-8, lines, and nothing that a terminal obeys. Returns the lines."""
    text = output.decode()
    odd = [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")]
    assert not odd, f"{odd} in {text!r}"
    return text.splitlines()


def raw(*command, code=0):
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == code, done
    check_text(done.stderr)
    return done.stdout


def check_log(node):
    for line in check_text(node.stderr_path.read_bytes()):
        assert LINE.match(line), line
        assert not line.startswith(FORGED)


def make(node, names=NAMES):
    for name in names:
        sql(node, as_path(name), "CREATE TABLE t(a); INSERT INTO t VALUES(1)")


def check_names(texts):
    assert sorted(unescape(text) for text in texts) == sorted(NAMES)
    assert len(set(texts)) == len(NAMES)


def test_status_tells_hostile_names_apart(node):
    make(node)
    status = json.loads(raw(PROGRAM, "status", node.mnt, "--json"))
    check_names([entry["name"] for entry in status["databases"]])
    lines = check_text(raw(PROGRAM, "status", node.mnt))
    table = lines[lines.index(next(line for line in lines if line.startswith("DATABASE"))) + 1 :]
    assert len(table) == len(NAMES)
    check_names([re.fullmatch(r"(.*?) +\d+  [0-9a-f]{16} .*", line).group(1) for line in table])
    assert sum(line.startswith("node ") for line in lines) == 1


def test_names_in_the_log_make_no_line(node):
    make(node)
    for name in [f"no database\n{FORGED}", "\x1b[2J", as_path(b"\xff\xfe")]:
        assert run(["touch", str(node.path(name))]).code != 0
    until("it says why", lambda: "no database" in node.log_text())
    check_log(node)


@pytest.mark.parametrize("name", [NAMES[2], b"\xff.db", b"\x1b[2J.db"], ids=["line", "bytes", "escape"])
def test_status_tells_of_damage_in_a_hostile_name(node, name):
    path = as_path(name)
    fill(node, path, 300)
    node.stop()
    flip(os.path.join(node.data, path), PAGE * 200 + 100)
    node.start()
    until("it is found", lambda: node.status()["damage"]["found"])
    status = node.status()
    assert [unescape(entry["name"]) for entry in status["databases"] if entry["damaged"]] == [name]
    assert name in unescape(status["damage"]["last"])
    told = [line for line in check_text(raw(PROGRAM, "status", node.mnt)) if line.startswith("damage")]
    assert len(told) == 1 and name in unescape(told[0])
    check_log(node)


def test_log_of_a_stopped_node_tells_hostile_names_apart(node):
    make(node)
    node.stop()
    entries = [json.loads(line) for line in raw(PROGRAM, "log", "--data", node.data, "--json").splitlines()]
    check_names([entry["name"] for entry in entries if entry["kind"] == "database"])
    creates = [entry["database"] for entry in entries if entry.get("type") == "create"]
    check_names(creates)
    for line in check_text(raw(PROGRAM, "log", "--data", node.data)):
        assert not line.startswith((FORGED, "node     ffffffff"))


def test_recover_tells_hostile_names_apart(workspace):
    cluster = Cluster(workspace, count=2).start()
    make(cluster.leader())
    cluster.wait_caught_up()
    for node in cluster.nodes:
        node.kill9()
    lines = check_text(raw(PROGRAM, "recover", "--data", cluster.nodes[0].data))
    table = [re.fullmatch(r"  (.*?) +\d+  [0-9a-f]{16} +\d+", line) for line in lines]
    check_names([match.group(1) for match in table if match])


def test_hostile_arguments_are_named_in_one_line(workspace, node):
    missing = workspace.base / f"no\n{FORGED}"
    for command in (
        ["status", missing],
        ["mount", missing],
        ["log", "--data", missing],
        ["mount", workspace.base, f"--\x1b[2J{FORGED}\n"],
        ["transfer", node.mnt, "--to", f"\n{FORGED}"],
        ["transfer", node.mnt, "--to", as_path(b"\xff\x1b")],
        [f"\n{FORGED}"],
    ):
        done = subprocess.run(
            [PROGRAM, *map(str, command)], capture_output=True, timeout=30, check=False
        )
        assert done.returncode in (1, 2), done
        assert len(check_text(done.stderr)) == 1, done
