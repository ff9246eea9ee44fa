"""The program of the former landing, for tests that run it beside this tree's: built from its commit,
once, into build/former/COMMIT/dqlitefs. The dependencies are those of build/third-party, and SQLite gets
the patches of that commit.

`python3 tests/cluster/former.py` builds it; scripts/test does so ahead of the tests that need it.

A landing that changes a format moves COMMIT on to the landing before it, in the same commit.
"""

import fcntl
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
COMMIT = "a78520a0fb72e388c19d3e1f7cf9bc14e16d120a"
BUILT = TOP / "build" / "former"
THIRD = TOP / "build" / "third-party"
LIMIT = 900  # seconds, for one step on a busy machine


class Unavailable(Exception):
    """It cannot be built here; the message says why."""


def git(*words, **options):
    # the tree may be another user's than root's
    command = ["git", "-c", "safe.directory=*", "-C", str(TOP), *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, **options)


def step(log, *words):
    """One command of the build; its output goes to `log`."""
    command = [str(word) for word in words]
    log.write(f"$ {' '.join(command)}\n")
    log.flush()
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=LIMIT
    )
    if result.returncode != 0:
        tail = Path(log.name).read_text(errors="backslashreplace").splitlines()[-30:]
        raise AssertionError(f"{command[0]} ended with {result.returncode}:\n" + "\n".join(tail))


def unpack(source):
    """The tree of the commit, with what scripts/setup would put into it."""
    archive = source.with_suffix(".tar")
    with open(archive, "wb") as out:
        result = git("archive", COMMIT, stdout=out, stderr=subprocess.PIPE)
    if result.returncode != 0:
        raise AssertionError(f"git archive {COMMIT}: {result.stderr.decode().strip()}")
    with tarfile.open(archive) as tar:
        tar.extractall(source)
    archive.unlink()
    sqlite = source / "build" / "third-party" / "sqlite"
    sqlite.mkdir(parents=True)
    for name in ("sqlite3.c", "sqlite3.h"):
        shutil.copy2(THIRD / "sqlite" / "upstream" / name, sqlite)
    return sqlite


def compile_tree(folder):
    source = folder / "source"
    source.mkdir(parents=True)
    with open(folder / "build.log", "w+") as log:
        sqlite = unpack(source)
        for patch in sorted((source / "walrepl" / "sqlite").glob("*.patch")):
            step(log, "patch", "-d", sqlite, "-p1", "--batch", "--forward", "-i", patch)
        setup = ["meson", "setup", "--buildtype=release", "-Db_ndebug=false", "-Dtests=disabled"]
        setup.append(f"-Dpkg_config_path={THIRD / 'prefix' / 'lib' / 'pkgconfig'}")
        step(log, *setup, source / "build", source)
        step(log, "ninja", "-C", source / "build", "dqlitefs")
    os.rename(source / "build" / "dqlitefs", folder / "dqlitefs")
    shutil.rmtree(source)


def program():
    """Its path. Builds it where it is not there yet."""
    found = BUILT / COMMIT / "dqlitefs"
    if found.exists():
        return str(found)
    if not shutil.which("git"):
        raise Unavailable("needs git (apt-get install git)")
    if git("cat-file", "-e", COMMIT + "^{commit}", stderr=subprocess.DEVNULL).returncode != 0:
        raise Unavailable(
            f"the former landing, {COMMIT[:12]}, is not in this clone (git fetch --unshallow)"
        )
    BUILT.mkdir(parents=True, exist_ok=True)
    with open(BUILT / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            print(f"# building {COMMIT[:12]} in {BUILT.relative_to(TOP)}", flush=True)
            making = BUILT / "making"
            shutil.rmtree(making, ignore_errors=True)
            compile_tree(making)
            for entry in BUILT.iterdir():  # of landings before that one
                if entry.is_dir() and entry != making:
                    shutil.rmtree(entry)
            os.rename(making, found.parent)
    return str(found)


if __name__ == "__main__":
    try:
        print(program())
    except Unavailable as error:
        print(f"# SKIP {error}")
