"""Real nodes for black-box tests: mounts, daemons, stock SQLite, and the means to harm them.

A Workspace is a temporary directory on a real disk together with everything that runs in it;
a Node is one `dqlitefs mount --foreground`; a Cluster is some nodes that found each other.
Closing the workspace ends and removes all of it, whatever state it is in.

A mount may hang when the daemon behind it is wrong, so this process never touches one:
everything that does runs in a child with a time limit. A child that waits for a FUSE reply
cannot even be killed, so a limit that passes aborts the FUSE connections.
"""

import hashlib
import json
import os
import random
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("DQLITEFS", str(TOP / "build" / "dqlitefs"))
LOSSYFS = os.environ.get("LOSSYFS", str(TOP / "build" / "tests" / "lossy" / "lossyfs"))
WORKERS = Path(__file__).resolve().parent / "workers"
SQLITE3 = shutil.which("sqlite3") or "sqlite3"
PYTHON = sys.executable

# Those alive, for the log tails of a failing test.
workspaces = []


class Hang(AssertionError):
    """A command did not end in time, or what is waited for cannot come any more."""


class SqlError(Exception):
    """What SQLite said. `code` is its symbolic name when a worker asked, else None."""

    def __init__(self, message, code=None):
        super().__init__(f"{code}: {message}" if code else message)
        self.message = message
        self.code = code


class Result:
    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self):
        return f"<exit {self.code}, stdout {self.out!r}, stderr {self.err!r}>"


def until(what, check, timeout=20, pause=0.03):
    """The first true result of check(). Its AssertionErrors count as false, and are told."""
    end = time.monotonic() + timeout
    reason = None
    while True:
        try:
            result = check()
            if result:
                return result
        except (Hang, SqlError):
            raise
        except AssertionError as error:
            reason = error
        if time.monotonic() > end:
            raise AssertionError(
                f"not within {timeout} s: {what}" + (f": {reason}" if reason else "")
            )
        time.sleep(pause)


def end_process(process, timeout=5):
    """SIGKILL, then aborts what may hold it in the kernel."""
    if process.poll() is None:
        process.kill()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        for workspace in workspaces:
            workspace.abort_connections()
        process.wait(timeout)


def run(command, timeout=20, stdin="", env=None, cwd=None):
    """Runs a command in a child of its own, with a time limit."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, **env) if env else None,
        cwd=cwd,
        text=True,
        errors="backslashreplace",
    )
    try:
        out, err = process.communicate(stdin, timeout)
    except BaseException as error:
        end_process(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise Hang(f"{' '.join(map(str, command))}: not ended within {timeout} s") from None
        raise
    return Result(process.returncode, out, err)


def over_io_uring():
    """The options of a node that switch FUSE over io_uring on, where the kernel has it. Without
    them a node uses what the machine is set to: most are set to the slower /dev/fuse."""
    os.close(os.open("/dev/fuse", os.O_RDWR))  # loads the module
    there = os.path.exists("/sys/module/fuse/parameters/enable_uring")
    return ["--fuse-uring=on"] if there else []


def transport():
    """The options of a node whose test does not care. What the machine is set to does not decide: one
    test that switches FUSE over io_uring on would do so for those that run beside it."""
    wish = os.environ.get("DQLITEFS_FUSE_URING")
    return [f"--fuse-uring={wish}"] if wish else over_io_uring() or ["--fuse-uring=off"]


def mounts_under(base):
    """[(mount point, device)], in the order they were mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape")
        if point == str(base) or point.startswith(f"{base}/"):
            found.append((point, fields[2]))
    return found


def mounts_from(base):
    """Mount points, wherever, of daemons whose data directory is below."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        if after.split()[1].startswith(f"{base}/"):
            found.append(before.split()[4])
    return found


def is_mounted(point):
    return any(found == str(point) for found, _ in mounts_under(point))


def flip(path, offset, mask=0xFF):
    """Damage one byte of a file, on the disk."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
        file.flush()
        os.fsync(file.fileno())


def drop_cache(node, db):
    """Make the kernel forget what it keeps of a database, so that the next read asks the daemon. Who
    damages the file does that afterwards: the scrub may come by first, and then it cannot be opened."""
    result = run(
        [
            PYTHON,
            "-c",
            "import os, sys; fd = os.open(sys.argv[1], os.O_RDONLY);"
            "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)",
            str(node.path(db)),
        ]
    )
    assert result.code == 0, result


reserved_ports = []  # sockets, open for as long as this process lives


def reserve_port(port):
    """Keeps other test processes from choosing that port: between the probe and the daemon's own bind
    it is nobody's. The reservation is an abstract socket's name, which ends with this process."""
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0dqlitefs-test-port-{port}")
    except OSError:
        reservation.close()
        return False
    reserved_ports.append(reservation)
    return True


def free_port(host="127.0.0.1"):
    """Below the ephemeral range: a port of a dead node must not become the source port of a
    connection that its peers are trying to make."""
    try:
        limit = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        limit = 32768
    while True:
        port = random.randrange(10000, max(limit, 11000))
        if not reserve_port(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port


def tree(base):
    """Everything in a directory, with content, to tell whether something was changed. Mounts
    below it are left out."""
    mounted = {point for point, _ in mounts_under(base)}
    found = {}
    for folder, folders, files in os.walk(base):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in mounted]
        for name in folders + files:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            content = ""
            if stat.S_ISREG(about.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            found[os.path.relpath(path, base)] = (about.st_mode, about.st_size, content)
    return found


def sqlite3_command(path, busy_ms=0, options=()):
    command = [SQLITE3, "-batch", "-bail", "-init", "/dev/null", *options]
    if busy_ms:
        command += ["-cmd", f".timeout {busy_ms}"]
    return command + [str(path)]


def sql_file(path, script, timeout=20, busy_ms=0, options=(), env=None):
    """Runs a script in the stock sqlite3 shell; returns what it printed."""
    result = run(sqlite3_command(path, busy_ms, options), timeout, stdin=script, env=env)
    if result.code != 0 or "rror" in result.err:
        raise SqlError(result.err.strip() or f"sqlite3 ended with {result.code}")
    return result.out.strip()


def sql(node, db, script, timeout=20, busy_ms=0, options=(), env=None):
    return sql_file(node.path(db), script, timeout, busy_ms, options, env)


class Connection:
    """One connection that stays open, in a child: Python's sqlite3 module, autocommit."""

    def __init__(self, node, db, busy_ms=0, timeout=20, env=None):
        self.timeout = timeout
        self.process = subprocess.Popen(
            [PYTHON, "-B", str(WORKERS / "connection.py"), str(node.path(db)), str(busy_ms)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ, **env) if env else None,
        )
        self.buffer = b""
        node.workspace.children.append(self.process)

    def send(self, statement, *parameters):
        line = json.dumps({"sql": statement, "parameters": parameters}) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def receive(self, timeout=None):
        end = time.monotonic() + (timeout or self.timeout)
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Hang(f"no reply from a connection within {timeout or self.timeout} s")
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                raise EOFError("the process of a connection died")
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\n", 1)
        reply = json.loads(line)
        if "error" in reply:
            raise SqlError(reply["error"], reply["code"])
        return [tuple(row) for row in reply["rows"]]

    def execute(self, statement, *parameters, timeout=None):
        self.send(statement, *parameters)
        return self.receive(timeout)

    def value(self, statement, *parameters, timeout=None):
        return self.execute(statement, *parameters, timeout=timeout)[0][0]

    def kill9(self):
        end_process(self.process)

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                end_process(self.process)
                raise Hang("a connection did not close") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Writer:
    """workers/writer.py: an application that inserts rows in transactions for as long as it is
    let, on the first of `nodes` that takes them, and tells each commit after it returned."""

    count = 0

    def __init__(self, nodes, db, *options, name=None, env=None):
        Writer.count += 1
        self.name = name or f"w{Writer.count}"
        self.workspace = nodes[0].workspace
        self.output = self.workspace.base / f"writer-{self.name}.out"
        self.offset = 0
        self.lines = []
        paths = [str(node.path(db)) for node in nodes]
        with open(self.output, "ab") as out:
            self.process = subprocess.Popen(
                [PYTHON, "-B", str(WORKERS / "writer.py"), "--name", self.name, *map(str, options)]
                + paths,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, **env) if env else None,
            )
        self.workspace.children.append(self.process)

    def read(self):
        """All events so far: (kind, first, last, monotonic time, index of the node, message)."""
        with open(self.output, "rb") as out:
            out.seek(self.offset)
            data = out.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.decode(errors="backslashreplace").splitlines():
            words = line.split(" ", 5)
            if words[0] in ("ack", "fail") and len(words) >= 5:
                message = words[5] if len(words) > 5 else ""
                self.lines.append(
                    (
                        words[0],
                        int(words[1]),
                        int(words[2]),
                        float(words[3]),
                        int(words[4]),
                        message,
                    )
                )
            else:
                self.lines.append(("text", 0, 0, 0.0, 0, line))
        return self.lines

    def acks(self):
        return [event for event in self.read() if event[0] == "ack"]

    def fails(self):
        return [event for event in self.read() if event[0] == "fail"]

    def text(self):
        return [event[5] for event in self.read() if event[0] == "text"]

    def wait_acks(self, count, timeout=20):
        """Until that many more transactions were acknowledged."""
        wanted = len(self.acks()) + count

        def check():
            ended = self.process.poll() is not None
            if len(self.acks()) >= wanted:
                return True
            # at once, instead of waiting for what cannot come
            if ended:
                raise Hang(f"writer {self.name} ended: {self.text()[-5:]}")
            return False

        until(f"{count} more transactions of writer {self.name}", check, timeout)

    def kill9(self):
        end_process(self.process)

    def wait(self, timeout=60):
        """Until it ends by itself, and well."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            end_process(self.process)
            raise Hang(f"writer {self.name} did not end within {timeout} s") from None
        assert code == 0, f"writer {self.name} ended with {code}: {self.text()[-5:]}"

    def stop(self, timeout=30):
        """Let it end its transaction."""
        if self.process.poll() is None:
            self.process.terminate()
        self.wait(timeout)


class LossyDisk:
    """tests/lossy/lossyfs.c: a file system in memory whose power fails when it is told to. Nobody
    may touch it from here while its power is off: what does waits until release()."""

    def __init__(self, workspace, name):
        assert os.access(LOSSYFS, os.X_OK), f"{LOSSYFS} is missing: run scripts/setup"
        self.mnt = workspace.base / name
        self.mnt.mkdir(parents=True)
        self.buffer = b""
        self.fails = False  # with errors, instead of silence, when the power is off
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", LOSSYFS, str(self.mnt)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        workspace.children.append(self.process)
        self.reply()

    def reply(self, timeout=20):
        end = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Hang(f"no reply from {self.mnt.name} within {timeout} s")
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                raise Hang(f"{self.mnt.name} ended with {self.process.wait(5)}")
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\n", 1)
        word, _, rest = line.decode().partition(" ")
        assert word == "ok", f"{self.mnt.name}: {rest}"
        return rest

    def command(self, *words, timeout=20):
        """One of lossyfs.c's commands; returns what follows its "ok"."""
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return self.reply(timeout)

    def ops(self):
        """Changing operations since the power came on."""
        return int(self.command("ops").split()[0])

    def is_off(self):
        return self.command("ops").split()[1] == "off"

    def counts(self):
        """{(kind, file): operations}"""
        words = (word.rsplit("=", 1) for word in self.command("counts").split())
        return {tuple(key.split(":", 1)): int(count) for key, count in words}

    def operations(self):
        """What was recorded: (kind, file, offset, bytes, whether with O_DSYNC)."""
        found = []
        for word in self.command("operations", timeout=60).split():
            kind, name, offset, length, sync = word.split(":")
            found.append((kind, name, int(offset), int(length), sync == "1"))
        return found

    def cut(self, after=0, how="hang"):
        """In that many changing operations from now; 0: at once."""
        self.fails = how == "fail"
        self.command("cut", self.ops() + after if after else 0, how)

    def release(self):
        self.command("release")

    def restore(self, seed):
        """Power on, with what the seed leaves. Whoever used the disk must have ended."""
        self.fails = False
        return self.command("restore", seed)

    def replay(self, operation, seed):
        """As if power had failed in that one of the recorded operations, and come back."""
        self.fails = False
        return self.command("replay", operation, seed, timeout=60)


class Node:
    program = PROGRAM  # another one for a node that is to run another version

    def __init__(self, workspace, name, host="127.0.0.1", options=(), prefix=(), disk=None):
        self.workspace = workspace
        self.name = name
        self.dir = workspace.base / name
        self.mnt = self.dir / "mnt"
        self.disk = disk  # a LossyDisk, on which the daemon makes its data directory itself
        self.data = disk.mnt / "data" if disk else self.dir / "data"
        self.mnt.mkdir(parents=True)
        if not disk:
            self.data.mkdir()
        self.address = f"{host}:{free_port() if host == '127.0.0.1' else 7001}"
        self.options = list(options)
        self.prefix = list(prefix)  # e.g. nsenter
        self.stderr_path = self.dir / "stderr.log"
        self.process = None
        self.paused = False
        workspace.nodes.append(self)

    def __repr__(self):
        return self.name

    def path(self, db):
        return self.mnt / db

    def command(self, join=None):
        command = [self.program, "mount", str(self.mnt), "--data", str(self.data)]
        command += ["--listen", self.address, "--foreground", *transport(), *self.options]
        return command + (["--join", join] if join else [])

    def launch(self, join=None):
        """Starts the daemon and returns at once."""
        assert os.access(self.program, os.X_OK), f"{self.program} is missing: run scripts/setup"
        assert self.process is None or self.process.poll() is not None, f"{self} runs already"
        # It must not outlive a test run that was killed.
        command = ["setpriv", "--pdeathsig=KILL", *self.prefix, *self.command(join)]
        with open(self.stderr_path, "ab") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
                start_new_session=True,
            )
        return self

    def wait_mounted(self, timeout=20):
        def check():
            if self.process.poll() is not None:  # nothing to wait for
                raise Hang(f"{self} ended with {self.process.returncode}")
            # The mount that a killed daemon left is there too, until the new one replaces it:
            # only the new one answers.
            return is_mounted(self.mnt) and self.status(check=False) is not None

        try:
            until(f"{self} is mounted", check, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail(15)}") from None

    def start(self, join=None, timeout=20):
        self.launch(join)
        self.wait_mounted(timeout)
        return self

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill9(self):
        self.process.kill()
        self.wait_ended(10)

    def lose_power(self):
        """Ends the daemon and what it waits for; its disk has no power from now on."""
        self.disk.command("cut", 0)
        end = time.monotonic() + 1
        while self.disk.fails and self.running and time.monotonic() < end:
            # It meets I/O errors, which end it. Killed while it unmounts, it may never go:
            # a thread of it that the kernel lets drop the last reference to the mount waits for
            # what only it can do itself (fuse_wait_aborted(), with FUSE over io_uring).
            if "shutting down" in self.log_text():
                self.wait_ended(20)
            time.sleep(0.01)
        if self.running:
            self.process.kill()
        self.disk.release()  # a request that hangs would keep the dead daemon
        if self.process:
            self.wait_ended(10)

    def wait_ended(self, timeout=20):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Hang(f"{self} did not end within {timeout} s") from None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True

    def resume(self):
        self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def stop(self, timeout=20):
        """`dqlitefs umount`, and all that it promises."""
        result = run([self.program, "umount", str(self.mnt)], timeout)
        assert result.code == 0, f"umount of {self}: {result}"
        code = self.wait_ended(timeout)
        assert code == 0, f"{self} ended with {code} after umount:\n{self.log_tail(15)}"
        assert not is_mounted(self.mnt), f"{self} is still mounted after umount"

    def status(self, check=True, timeout=10):
        """`status --json`, or None where it fails and may."""
        result = run([self.program, "status", str(self.mnt), "--json"], timeout)
        if result.code != 0:
            assert not check, f"status of {self}: {result}"
            return None
        return json.loads(result.out)

    def text_status(self):
        result = run([self.program, "status", str(self.mnt)])
        assert result.code == 0, f"status of {self}: {result}"
        return result.out

    def database(self, db):
        """What status says about one database, or None."""
        for entry in self.status()["databases"]:
            if entry["name"] == db:
                return entry
        return None

    def log_paths(self):
        # a lossy disk may have no power; a daemon in the foreground logs to stderr anyway
        return [self.stderr_path] + ([] if self.disk else [self.data / ".dqlitefs" / "log"])

    def log_text(self):
        texts = []
        for path in self.log_paths():
            if path.is_file():
                texts.append(path.read_text(errors="backslashreplace"))
        return "".join(texts)

    def log_tail(self, lines=40):
        tail = []
        for path in self.log_paths():
            if path.is_file():
                found = path.read_text(errors="backslashreplace").splitlines()[-lines:]
                if found:
                    tail += [f"--- {path.relative_to(self.workspace.base)}", *found]
        return "\n".join(tail)


class Cluster:
    """Nodes n1, n2, ...; the first one bootstraps, the others join it."""

    def __init__(
        self, workspace, count=3, options=(), hosts=None, prefixes=None, prefix="n", lossy=False
    ):
        self.workspace = workspace
        self.nodes = [
            Node(
                workspace,
                f"{prefix}{i + 1}",
                hosts[i] if hosts else "127.0.0.1",
                options,
                prefixes[i] if prefixes else (),
                LossyDisk(workspace, f"disk{i + 1}") if lossy else None,
            )
            for i in range(count)
        ]

    def start(self, timeout=30):
        self.nodes[0].start()
        self.wait_leader()
        for node in self.nodes[1:]:
            node.start(join=self.nodes[0].address)
        self.wait_voters(timeout=timeout)
        return self

    @property
    def running(self):
        return [node for node in self.nodes if node.running and not node.paused]

    def leader(self):
        """The node that leads, or None. An old leader that does not know better yet is told
        from the new one by its term."""
        best = None
        for node in self.running:
            status = node.status(check=False)
            if status and status["role"] == "leader" and (not best or status["term"] > best[0]):
                best = (status["term"], node)
        return best[1] if best else None

    def wait_leader(self, timeout=15, other_than=None):
        def check():
            leader = self.leader()
            return leader if leader is not other_than else None

        return until("a leader", check, timeout)

    def wait_follows(self, timeout=15):
        """Until all running nodes agree on the leader; returns it."""

        def check():
            leader = self.leader()
            for node in self.running if leader else ():
                known = node.status()["leader"] or {}
                assert known.get("address") == leader.address, f"{node} follows {known}"
            return leader

        return until("all nodes agree on a leader", check, timeout)

    def followers(self):
        leader = self.wait_follows()
        return [node for node in self.running if node is not leader]

    def wait_voters(self, count=None, timeout=30):
        count = count or len(self.nodes)

        def check():
            for node in self.running:
                roles = [member["role"] for member in node.status()["members"]]
                assert roles == ["voter"] * count, f"{node} knows members {roles}"
            return True

        until(f"{count} voters", check, timeout)

    def wait_caught_up(self, timeout=30):
        """Until every running node has applied what the leader had committed when this was
        called; also while an application goes on writing."""
        goal = self.wait_leader().status()["commit_index"]

        def check():
            for node in self.running:
                applied = node.status()["applied_index"]
                assert applied >= goal, f"{node} has applied {applied} of {goal}"
            return True

        until("all nodes have caught up", check, timeout, 0.05)

    def wait_equal(self, timeout=30):
        """Until every running node has caught up, and all have the same databases, which nobody
        may write meanwhile. Returns these."""
        self.wait_caught_up(timeout)

        def check():
            seen = {}
            for node in self.running:
                seen[node] = sorted(
                    (entry["name"], entry["version"], entry["checksum"], entry["pages"])
                    for entry in node.status()["databases"]
                )
            first = next(iter(seen.values()))
            assert all(one == first for one in seen.values()), f"databases differ: {seen}"
            return seen

        return next(iter(until("all nodes are equal", check, timeout, 0.1).values()))

    def wait_same(self, db, script, timeout=20):
        """Until a query gives the same on all running nodes, by their stock SQLite; returns it.
        A follower publishes a moment after its status counts the entry."""

        def ask(node):
            try:
                # a reader may meet a checkpointer or a recovery on a just started node
                return sql(node, db, script, busy_ms=5000)
            except SqlError as error:
                # a new one, and what is in it, comes to a follower later than the leader says so
                assert run(["test", "-e", node.path(db)]).code == 0, f"{node} has no {db} yet"
                assert "no such table" not in error.message, f"{node}: {error}"
                raise

        def check():
            seen = {node: ask(node) for node in self.running}
            first = next(iter(seen.values()))
            short = {node: text[-200:] for node, text in seen.items()}
            assert all(text == first for text in seen.values()), f"{db} differs: {short}"
            return (first,)

        return until(f"{db} is the same on all nodes", check, timeout, 0.1)[0]

    def check_sound(self, db, timeout=30):
        """Equal by status, equal by content, and integrity_check ok, on all running nodes."""
        self.wait_equal(timeout)
        self.wait_same(db, ".sha3sum --schema", timeout)
        assert self.wait_same(db, "PRAGMA integrity_check", timeout) == "ok"

    def check_rows(self, db, writers, timeout=30):
        """check_sound, and each node holds every acknowledged row of these writers, and every
        other transaction of theirs wholly or not at all. Returns the number acknowledged."""
        self.check_sound(db, timeout)
        text = self.wait_same(db, "SELECT writer, seq FROM rows", timeout)
        return check_acknowledged(text, writers)

    def restart_dead(self, timeout=30):
        for node in self.nodes:
            if not node.running:
                node.start(timeout=timeout)


def check_acknowledged(text, writers):
    present = {}
    for line in text.splitlines():
        name, seq = line.split("|")
        present.setdefault(name, set()).add(int(seq))
    acknowledged = 0
    for writer in writers:
        rows = present.get(writer.name, set())
        for kind, first, last, *_ in writer.read():
            if kind == "text":
                continue
            wanted = set(range(first, last + 1))
            missing = wanted - rows
            if kind == "ack":
                acknowledged += len(wanted)
                assert not missing, f"acknowledged {sorted(missing)} of {writer.name} are missing"
            else:
                whole = not missing or missing == wanted
                assert whole, f"a part of the refused {first}-{last} of {writer.name}: no {missing}"
    return acknowledged


class Network:
    """One network namespace per node, on a bridge in another; any can be cut off."""

    def __init__(self, workspace, count):
        self.workspace = workspace
        self.tag = f"dqfs{os.getpid()}"
        self.hub = f"{self.tag}hub"
        self.hosts = [f"10.213.7.{i + 1}" for i in range(count)]
        self.names = [f"{self.tag}n{i + 1}" for i in range(count)]
        workspace.networks.append(self)
        self.ip("netns", "add", self.hub)
        self.ip("-n", self.hub, "link", "add", "hub", "type", "bridge")
        self.ip("-n", self.hub, "link", "set", "hub", "up")
        for i, name in enumerate(self.names):
            self.ip("netns", "add", name)
            self.ip("-n", name, "link", "set", "lo", "up")
            # made inside the namespaces: the machine's own interfaces stay untouched
            self.ip(
                "-n",
                self.hub,
                "link",
                "add",
                f"p{i}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                name,
            )
            self.ip("-n", self.hub, "link", "set", f"p{i}", "master", "hub", "up")
            self.ip("-n", name, "addr", "add", f"{self.hosts[i]}/24", "dev", "eth0")
            self.ip("-n", name, "link", "set", "eth0", "up")

    @staticmethod
    def ip(*words):
        result = run(["ip", *words])
        if result.code != 0:
            raise OSError(f"ip {' '.join(words)}: {result.err.strip()}")

    def prefixes(self):
        # not `ip netns exec`: that makes a mount namespace, in which the mount would hide
        return [["nsenter", f"--net=/run/netns/{name}"] for name in self.names]

    def cut(self, i):
        self.ip("-n", self.hub, "link", "set", f"p{i}", "down")

    def heal(self, i):
        self.ip("-n", self.hub, "link", "set", f"p{i}", "up")

    def close(self):
        for name in [*self.names, self.hub]:
            run(["ip", "netns", "del", name])


class Workspace:
    def __init__(self):
        self.base = Path(
            tempfile.mkdtemp(prefix="dqlitefs-", dir=os.environ.get("DQLITEFS_TMP", "/var/tmp"))
        )
        self.nodes = []
        self.children = []
        self.networks = []
        workspaces.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def log_tails(self, lines=40):
        return [(node.name, node.log_tail(lines)) for node in self.nodes]

    def abort_connections(self):
        """Every request on our mounts ends with an error, whatever the daemons do."""
        devices = [device for point, device in mounts_under(self.base) if point != str(self.base)]
        control = Path("/sys/fs/fuse/connections")
        own = None
        if not any(control.iterdir()):
            own = control = self.base / "fusectl"  # not mounted here: mount one of our own
            own.mkdir(exist_ok=True)
            run(["mount", "-t", "fusectl", "fusectl", str(own)])
        try:
            for device in devices:
                abort = control / device.split(":")[1] / "abort"
                try:
                    abort.write_text("1")
                except OSError:
                    pass
        finally:
            if own:
                run(["umount", "-l", str(own)])

    def strays(self):
        """Processes that have our directory in their command line and are not known."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.base).encode() in line:
                    found.append(int(entry.name))
        return found

    def close(self):
        """Ends all processes, then takes away all mounts, then the directory."""
        try:
            processes = [p for p in self.children if p.poll() is None]
            processes += [n.process for n in self.nodes if n.running]
            for process in processes:
                process.kill()
            for pid in self.strays():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            end = time.monotonic() + 3
            while any(p.poll() is None for p in processes) and time.monotonic() < end:
                time.sleep(0.01)
            if any(p.poll() is None for p in processes):
                self.abort_connections()
            for process in processes:
                process.wait(5)
            for child in self.children:
                for pipe in (child.stdin, child.stdout):
                    if pipe:
                        try:
                            pipe.close()
                        except OSError:
                            pass
        finally:
            for point, _ in reversed(mounts_under(self.base)):
                run(["umount", "-l", point])
            for point in mounts_from(self.base):
                run(["umount", "-l", point])
                run(["rmdir", point])
            for network in self.networks:
                network.close()
            if self in workspaces:
                workspaces.remove(self)
            assert not mounts_under(self.base), f"{self.base} has mounts that do not go away"
            shutil.rmtree(self.base, ignore_errors=True)
