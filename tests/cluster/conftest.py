"""Fixtures and time limits; what a failing test's nodes had to say.

    pytest tests/cluster [--soak] [--share I/N]

--soak (or DQLITEFS_SOAK=1) adds the tests marked `soak` and makes others longer. --share leaves the
I-th of N shares of the tests, in their order: scripts/test runs those of a long file side by side.
"""

import faulthandler
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import harness  # noqa: E402

LIMIT = 120  # seconds, for the test itself; another has `@pytest.mark.limit(seconds)`


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="longer runs, and the tests marked soak")
    parser.addoption("--share", default="1/1", help="I/N: the I-th of N shares of the tests")


def soaking(config):
    return config.getoption("--soak") or os.environ.get("DQLITEFS_SOAK") == "1"


def pytest_configure(config):
    # What a shell runs in the background ignores it, and so would every daemon that a test starts.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    config.addinivalue_line("markers", "soak: runs with --soak only")
    config.addinivalue_line("markers", "limit(seconds): the time limit of this test")


def cannot_run():
    if os.geteuid() != 0:
        return "needs root: mounts, passthrough, network namespaces"
    if not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse (modprobe fuse)"
    if not shutil.which("sqlite3"):
        return "needs the sqlite3 shell (apt-get install sqlite3)"
    if not shutil.which("setpriv"):
        return "needs setpriv (apt-get install util-linux)"
    kernel = tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups()))
    if kernel < (6, 9):
        return f"needs Linux 6.9 or newer for FUSE passthrough, this is {os.uname().release}"
    return None


def share_of(items, share):
    number, count = map(int, share.split("/"))
    assert 1 <= number <= count, f"--share {share}"
    return items[len(items) * (number - 1) // count : len(items) * number // count]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    # asked for by an option, so not missing without it
    if not soaking(config):
        longer = [item for item in items if item.get_closest_marker("soak")]
        if longer:
            config.hook.pytest_deselected(items=longer)
            items[:] = [item for item in items if item not in longer]
    mine = share_of(items, config.getoption("--share"))
    config.hook.pytest_deselected(items=[item for item in items if item not in mine])
    items[:] = mine
    reason = cannot_run()
    for item in items:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


class limited:
    """Ends what it encloses with an exception, so that it still cleans up. Should that hang
    too, the whole run ends, and its daemons with it."""

    def __init__(self, seconds, what):
        self.seconds = seconds
        self.what = what

    def late(self, *_):
        raise harness.Hang(f"{self.what}: over its limit of {self.seconds} s")

    def __enter__(self):
        self.former = signal.signal(signal.SIGALRM, self.late)
        signal.alarm(self.seconds)
        faulthandler.dump_traceback_later(self.seconds + 90, exit=True)

    def __exit__(self, *_):
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, self.former)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    with limited(90, f"setup of {item.name}"):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    marker = item.get_closest_marker("limit")
    seconds = marker.args[0] if marker else LIMIT
    with limited(seconds * 20 if soaking(item.config) else seconds, item.name):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    with limited(60, f"teardown of {item.name}"):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for workspace in harness.workspaces:
            for name, tail in workspace.log_tails():
                report.sections.append((f"log of {name}", tail))


@pytest.fixture
def soak(request):
    return soaking(request.config)


@pytest.fixture
def workspace():
    with harness.Workspace() as workspace:
        yield workspace


class Reused:
    """Something to share between tests for as long as it is in good health."""

    def __init__(self, make):
        self.make = make
        self.workspace = None
        self.thing = None

    def healthy(self):
        if not self.thing:
            return False
        nodes = getattr(self.thing, "nodes", [self.thing])
        try:
            states = [node.running and node.status(check=False) for node in nodes]
            return all(states) and sum(state["role"] == "leader" for state in states) == 1
        except AssertionError:
            return False

    def get(self):
        if not self.healthy():
            self.close()
            self.workspace = harness.Workspace()
            self.thing = self.make(self.workspace)
        return self.thing

    def close(self):
        self.thing = None
        if self.workspace:
            self.workspace.close()
            self.workspace = None


@pytest.fixture(scope="session")
def reused_node():
    reused = Reused(lambda workspace: harness.Node(workspace, "shared").start())
    yield reused
    reused.close()


@pytest.fixture(scope="session")
def reused_cluster():
    # What shares it is no matter of elections: a busy machine is not to bring one about.
    options = ("--election-timeout", "3000")
    reused = Reused(
        lambda workspace: harness.Cluster(workspace, options=options, prefix="shared").start()
    )
    yield reused
    reused.close()


@pytest.fixture
def shared_node(reused_node):
    """A mount for tests that leave it as it was, but for their own database."""
    node = reused_node.get()
    harness.until("the shared node leads", lambda: node.status()["role"] == "leader")
    return node


@pytest.fixture
def shared_cluster(reused_cluster):
    """Three nodes for tests that leave them running, but for their own database."""
    cluster = reused_cluster.get()
    cluster.wait_follows()
    return cluster


@pytest.fixture
def node(workspace):
    """A mount for this test alone."""
    node = harness.Node(workspace, "n1").start()
    harness.until("the node leads", lambda: node.status()["role"] == "leader")
    return node


@pytest.fixture
def cluster(workspace):
    """Three nodes for this test alone."""
    return harness.Cluster(workspace).start()


@pytest.fixture
def db(request):
    """A database name that no other test uses."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", request.node.name).strip("_")
    return name[:80] + ".db"


def preloaded(tmp_path_factory, name):
    """The library made of workers/NAME.c, for LD_PRELOAD."""
    library = tmp_path_factory.mktemp("preload") / f"{name}.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("needs a C compiler")
    source = harness.WORKERS / f"{name}.c"
    options = ["-shared", "-fPIC", "-O1", "-Wall"]
    result = harness.run([compiler, *options, "-o", library, source, "-ldl"], timeout=60)
    assert result.code == 0, result.err
    return library


@pytest.fixture(scope="session")
def kill_at(tmp_path_factory):
    return preloaded(tmp_path_factory, "kill_at")


@pytest.fixture(scope="session")
def stepped_clock(tmp_path_factory):
    return preloaded(tmp_path_factory, "stepped_clock")
