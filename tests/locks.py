#!/usr/bin/env python3
"""Has clang check who holds which lock in raftlog/, walrepl/ and fusefs/: raftlog/include/guarded.h.

    python3 -B tests/locks.py [--all] [--update] [BUILD]
    python3 -B tests/locks.py --find        whether there is a clang that can

It needs clang 19 or newer, the first that knows fields of C, and says so where there is none. The flags of
each file are those of BUILD (build/ by default). The last line reads "N passed, N failed".

tests/locks.known lists the functions that break the rule today, as tests/layers.known does for its rules.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import layers

OLDEST = 19
RULES = {"locks": "what a lock guards is used under it, and who locks unlocks"}
WARNINGS = ["-Wno-everything", "-Wthread-safety", "-Wno-thread-safety-attributes"]  # pthread_mutex_t has none
HEADER = layers.TOP / "raftlog" / "include" / "guarded.h"


def find_clang():
    names = ["clang", *(f"clang-{version}" for version in range(OLDEST, OLDEST + 20))]
    for path in filter(None, map(shutil.which, names)):
        output = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
        if (version := re.search(r"clang version (\d+)", output)) and int(version[1]) >= OLDEST:
            return path
    return None


def compilations(build):
    """(source, the flags that matter to clang, the directory to be in)"""
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = (build / entry["file"]).resolve()
        folders = [layers.TOP / library for library in layers.FLOORS]
        if any(source.is_relative_to(folder) for folder in folders) and source.exists():
            words = shlex.split(entry["command"])
            yield source, [word for word in words if re.match("-(I|D|std|isystem|pthread)", word)], entry["directory"]


def check(clang, source, flags, directory):
    """What clang says about one file: [(rule, key, place)]."""
    command = [clang, "-fsyntax-only", *WARNINGS, "-include", HEADER, *flags, source]
    output = subprocess.run(command, cwd=directory, capture_output=True, text=True).stderr
    file = str(source.relative_to(layers.TOP))
    lines = source.read_text().splitlines()
    found = []
    for place, number, kind, words in re.findall(
        r"^(\S+?):(\d+):\d+: (warning|error|fatal error): (.*?)(?: \[-W.*)?$", output, re.M
    ):
        where = str(Path(os.path.normpath(Path(directory) / place)).relative_to(layers.TOP))
        name = inside(lines, int(number)) if where == file and kind == "warning" else ""
        found.append(("locks", name or f"{where} {words}", f"{where}:{number}: {words}"))
    return found


def inside(lines, number):
    """The name of the function that this line is in."""
    for begin, end in layers.functions(lines):
        if begin <= number <= end:
            return layers.signature(lines, begin - 1)[0]
    return ""


def main():
    if sys.argv[1:] == ["--find"]:
        return not find_clang()
    options = layers.options_of("tests/locks.py")
    clang = find_clang()
    if not clang:
        print(f"SKIPPED: there is no clang {OLDEST} or newer, which scripts/setup --for-tests gets where it can")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        checks = [pool.submit(check, clang, *words) for words in compilations(options.build.resolve())]
    known = layers.Known(layers.TOP / "tests" / "locks.known")
    return layers.report(RULES, [found for each in checks for found in each.result()], known, options)


sys.exit(main())
