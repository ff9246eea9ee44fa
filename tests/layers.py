#!/usr/bin/env python3
"""Checks how the files of raftlog/, walrepl/ and fusefs/ hang together.

    python3 -B tests/layers.py [--all] [--update] [BUILD]

It reads the sources, and the objects in BUILD (build/ by default), so build first. Each rule below passes or
fails; the last line reads "N passed, N failed".

tests/layers.known lists what breaks a rule today: "RULE KEY" a line. That list only shrinks. A line whose
violation is gone fails, too: --update takes such lines out. It adds none.

--all also shows the places of what is known.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
# The floors, lowest first. A folder sees itself and the folders of lower lines. Folders of one line do not
# see each other. "." is a library's own folder; "include" holds its public headers.
FLOORS = {
    "raftlog": ["include", "base", "wire log ring", "server net offline", "loop", "."],
    "walrepl": [
        "include",
        "base",
        "sqlite",
        "record",
        "pages",
        "state",
        "db inspect",
        "txn",
        "snapshot",
        "apply",
        "names repair",
        "file",
        ".",
    ],
    "fusefs": ["node", "mount", "ops", "daemon", "cli", "."],
}

# What is visible outside its file begins with one of these.
PREFIXES = {"raftlog": ("rlog_",), "walrepl": ("wrep_", "walrepl_"), "fusefs": ("fsd_",)}

# Files without a header of their own name, and who declares what they define. A file whose functions are all
# in the library's public headers needs none either.
DECLARED_ELSEWHERE = {
    r"raftlog/server/(deliver|receive)\.c": "server.h is the face of the folder",
    r"fusefs/main\.c": "nobody calls it",
    r"walrepl/record/entry_(de|en)code\.c": "record/entry.h",
    r"fusefs/cli/cmd_\w+\.c": "cli/cli.h lists the commands",
}

# Functions whose parameters others decided.
GIVEN = r"fsd_op_\w+"  # libfuse

LINES = 700  # of a file
FUNCTION_LINES = 70  # from { to }
PARAMETERS = 5

RULES = {
    "folder": "each folder stands on a floor of tests/layers.py",
    "path": "an include line names the folder, and the file is there",
    "private": "other libraries include public headers only",
    "include-up": "no file includes one of a higher floor",
    "include-circle": "the headers and files of a folder include each other in no circle",
    "call-up": "no file calls one of a higher floor",
    "call-circle": "the files of a folder call each other in no circle",
    "header": "a .c has its own .h",
    "prefix": "a visible name has its library's prefix",
    "lines": f"no file is longer than {LINES} lines",
    "function": f"no function is longer than {FUNCTION_LINES} lines",
    "parameters": f"no function has more than {PARAMETERS} parameters",
}


# ---- the tree ------------------------------------------------------------------------------------


class Tree:
    def __init__(self):
        self.floor = {}  # folder: height
        height = 0
        for library, lines in FLOORS.items():
            for line in lines:
                height += 1
                for name in line.split():
                    self.floor[library if name == "." else f"{library}/{name}"] = height
        found = (path for library in FLOORS for path in sorted((TOP / library).rglob("*.[ch]")))
        self.text = {str(path.relative_to(TOP)): path.read_text() for path in found}

    def files(self, ending=""):
        return [file for file in self.text if file.endswith(ending)]

    def sees(self, one, other):
        """Whether a file of the first one's folder may know the second."""
        one, other = folder(one), folder(other)
        return one == other or self.floor.get(one, 0) > self.floor.get(other, 0)

    def public(self, file):
        return folder(file).endswith("/include")


def folder(file):
    return file.rpartition("/")[0]


def library(file):
    return file.partition("/")[0]


def circles(edges):
    """The strongly connected parts of more than one node (Tarjan), each sorted."""
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    for node in edges:
        if node not in number:
            visit(node)
    return found


# ---- what is wrong -------------------------------------------------------------------------------
#
# Each of these yields (rule, key, place). The key is what tests/layers.known names; it does not change when a
# file is split or a function moves.


def check_folders(tree):
    for file in tree.files():
        if folder(file) not in tree.floor:
            yield "folder", folder(file), file


def includes(tree):
    """file: {file that it includes: line}, and what is wrong with the lines."""
    edges, wrong = {}, []
    for file, text in tree.text.items():
        edges[file] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not (include := re.match(r'\s*#\s*include\s+"([^"]+)"', line)):
                continue
            name, place = include[1], f"{file}:{number}"
            own = f"{library(file)}/{name}"
            public = [f"{other}/include/{name}" for other in FLOORS]
            target = next((path for path in (own, *public) if path in tree.text), None)
            # what the compiler would find beside the file, or was given a way to
            beside = str(Path(os.path.normpath(TOP / folder(file) / name)).relative_to(TOP))
            others = [beside, name, *(f"{other}/{name}" for other in FLOORS)]
            private = next((path for path in others if library(path) != library(file) and path in tree.text), None)
            if target:
                edges[file][target] = number
            elif private:
                wrong.append(("private", f"{library(file)} {private}", place))
            else:
                wrong.append(("path", f"{file} {name}", place))
    return edges, wrong


def check_includes(tree):
    edges, wrong = includes(tree)
    yield from wrong
    for file, targets in edges.items():
        for target, number in targets.items():
            if not tree.sees(file, target):
                yield "include-up", f"{folder(file)} {folder(target)}", f"{file}:{number} includes {target}"
    yield from check_circles("include-circle", edges)


def check_circles(rule, edges):
    """Within each folder: a circle through several has a step up, which is a violation of its own."""
    for where in sorted({folder(file) for file in edges}):
        inside = {
            file: [target for target in targets if folder(target) == where]
            for file, targets in edges.items()
            if folder(file) == where
        }
        for part in circles(inside):
            yield rule, where, " ".join(part)


def symbols(tree, build):
    """The visible names that each object defines, and those that it uses: two times {file: {name}}."""
    objects = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = (build / entry["file"]).resolve()
        if source.is_relative_to(TOP) and str(source.relative_to(TOP)) in tree.text:
            objects[str(build / entry["output"])] = str(source.relative_to(TOP))
    sources = set(objects.values())
    for file in tree.files(".c"):
        if file not in sources:
            raise SystemExit(f"layers: {file} is in no meson.build, or {build} was not configured since")
    for path, file in objects.items():
        if not Path(path).exists() or Path(path).stat().st_mtime < (TOP / file).stat().st_mtime:
            raise SystemExit(f"layers: {path} is not built, or older than {file}: ninja -C {build}")
    output = subprocess.run(
        ["nm", "-A", "-P", "-g", *objects], check=True, capture_output=True, text=True
    ).stdout
    defined, used = ({file: set() for file in sources} for _ in range(2))
    for line in output.splitlines():
        path, _, rest = line.partition(": ")
        name, kind = rest.split()[:2]
        if kind in "Uw":
            used[objects[path]].add(name)
        elif kind not in "vW":
            defined[objects[path]].add(name)
    return defined, used


def check_calls(tree, defined, used):
    home = {name: file for file, names in defined.items() for name in names}
    edges = {file: {} for file in used}
    for file, names in used.items():
        for name in sorted(names):
            if (target := home.get(name)) and target != file:
                edges[file].setdefault(target, []).append(name)
    for file, targets in edges.items():
        for target, names in targets.items():
            if not tree.sees(file, target):
                place = f"{file} uses {target}: {' '.join(names)}"
                yield "call-up", f"{folder(file)} {folder(target)}", place
    yield from check_circles("call-circle", edges)


def check_names(tree, defined):
    public = {lib: "" for lib in FLOORS}
    for file in tree.files(".h"):
        if tree.public(file):
            public[library(file)] += tree.text[file]
    for file, names in sorted(defined.items()):
        known = [name for name in names if re.search(rf"\b{name}\b", public[library(file)])]
        elsewhere = any(re.fullmatch(pattern, file) for pattern in DECLARED_ELSEWHERE)
        if f"{file[:-2]}.h" not in tree.text and not elsewhere and len(known) < len(names):
            yield "header", file, file
        for name in sorted(names):
            if name != "main" and not name.startswith(PREFIXES[library(file)]):
                yield "prefix", f"{library(file)} {name}", file


def check_sizes(tree):
    for file, text in tree.text.items():
        lines = text.splitlines()
        if len(lines) > LINES:
            yield "lines", file, f"{file}: {len(lines)}"
        for begin, end in functions(lines):
            name, parameters = signature(lines, begin - 1)
            if end - begin + 1 > FUNCTION_LINES:
                yield "function", name, f"{file}:{begin}: {end - begin + 1}"
            if parameters > PARAMETERS and not re.fullmatch(GIVEN, name):
                yield "parameters", name, f"{file}:{begin}: {parameters}"


def functions(lines):
    """The numbers of the lines with their { and }: clang-format has these in the first column for them alone."""
    begin = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            begin = number
        elif line == "}" and begin:
            yield begin, number
            begin = None


def signature(lines, end):
    """The name and the count of parameters of a function whose { follows lines[:end]."""
    begin = end
    while begin and lines[begin - 1] and not re.match(r"[}#/ ]|\s*\*/|.*;$", lines[begin - 1]):
        begin -= 1
    head = " ".join(lines[begin:end])
    found = re.search(r"(\w+)\(", re.sub(r"__attribute__\(\(.*?\)\)", "", head))
    if not found:
        return head, 0
    depth, count = 0, 1
    inside = head[head.index(found[0]) + len(found[0]) :]
    for letter in inside:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth < 0:
            break
        count += letter == "," and depth == 0
    return found[1], count


def violations(tree, build):
    yield from check_folders(tree)
    yield from check_includes(tree)
    defined, used = symbols(tree, build)
    yield from check_calls(tree, defined, used)
    yield from check_names(tree, defined)
    yield from check_sizes(tree)


# ---- the known ones, and what is told ------------------------------------------------------------


class Known:
    """A list of violations that are known: "RULE KEY" a line."""

    def __init__(self, path):
        self.path = path
        self.name = path.relative_to(TOP)

    def lines(self):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return {line for line in lines if line and not line.startswith("#")}

    def drop(self, stale):
        lines = self.path.read_text().splitlines(keepends=True)
        self.path.write_text("".join(line for line in lines if line.rstrip("\n") not in stale))
        print(f"{len(stale)} line(s) taken out of {self.name}")


def options_of(name):
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    parser.add_argument("--all", action="store_true", help="show the places of known violations, too")
    parser.add_argument("--update", action="store_true", help="take lines out of the list of known ones")
    parser.add_argument("build", nargs="?", type=Path, default=TOP / "build")
    return parser.parse_args()


def report(rules, violations, known, options):
    """Compares with what is known, and prints. Returns whether a rule failed."""
    found = {}  # "rule key": places
    for rule, key, place in violations:
        found.setdefault(f"{rule} {key}", []).append(place)
    expected = known.lines()
    stale = expected - set(found)
    if options.update and stale:
        known.drop(stale)
        stale = set()

    failed = 0
    for rule, meaning in rules.items():
        mine = {line: places for line, places in found.items() if line.split()[0] == rule}
        new = {line for line in mine if line not in expected}
        gone = {line for line in stale if line.split()[0] == rule}
        failed += bool(new or gone)
        count = f" ({len(mine) - len(new)} known)" if len(mine) > len(new) else ""
        print(f"{'FAIL' if new or gone else 'ok':<4} {rule:<15} {meaning}{count}")
        for line in sorted(mine):
            if line in new or options.all:
                print(f"     | {line}{'' if line in new else ' (known)'}")
                print(*(f"     |     {place}" for place in mine[line]), sep="\n")
        for line in sorted(gone):
            print(f"     | {line}: is gone, so take it out of {known.name} (--update)")
    print(f"{len(rules) - failed} passed, {failed} failed")
    return failed > 0


def main():
    options = options_of("tests/layers.py")
    known = Known(TOP / "tests" / "layers.known")
    return report(RULES, violations(Tree(), options.build.resolve()), known, options)


if __name__ == "__main__":
    sys.exit(main())
