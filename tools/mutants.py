"""Change the code in small ways and see whether the tests notice.

Draws places in some modules, makes a mutant of each by an operator of cosmic-ray (``pip install
cosmic-ray``), and runs the tests against it, in a copy of the working tree::

    OMP_NUM_THREADS=1 python tools/mutants.py sknoisy/_model sknoisy/_transition --sample 100

First come the tests of the same name as the module, then those of its folder, then those named by
``--then``. A mutant is killed by a test that fails, or if they take four times as long. Those that
survive are printed as a difference: either a test is missing, or the change makes no difference to
anybody. Mutants of annotations are left out. ``--results`` appends a row for each mutant to a CSV
file; a second run with the same seed goes on where the file ends.

The tests run in forks of this process, which has loaded all that they need but the package.
"""

from __future__ import annotations

import argparse
import ast
import csv
import difflib
import importlib
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cosmic_ray.ast import Visitor, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.util import read_python_source

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("seed", "number", "module", "line", "operator", "change", "outcome", "seconds")
LOADED = ("matplotlib.pyplot", "pandas", "skorch", "sklearn.decomposition", "torch")


class Mutant(NamedTuple):
    """A module with one change."""

    module: Path
    operator: str
    code: str

    def difference(self) -> list[str]:
        """Return the lines of a difference to the module as it is."""
        lines = difflib.unified_diff(
            (ROOT / self.module).read_text().splitlines(),
            self.code.splitlines(),
            str(self.module),
            self.operator,
            lineterm="",
            n=0,
        )
        return list(lines)

    def row(self, seed: int, number: int, outcome: str, seconds: float) -> list[Any]:
        """Return a row of the results."""
        lines = self.difference()[2:]
        at = lines[0].split()[1].split(",")[0].lstrip("-")
        change = " ".join(f"{line[0]} {line[1:].strip()}" for line in lines[1:])
        operator = self.operator.removeprefix("core/")
        return [seed, number, self.module, at, operator, change, outcome, round(seconds)]


class Places(Visitor):
    """Find where in a module the operators apply."""

    def __init__(self) -> None:
        self.operators: dict[str, Operator] = {}
        for name in sorted(operator_names()):
            with suppress(TypeError):  # some need to be told what to change
                self.operators[name] = get_operator(name)()
        self.counts: Counter[str] = Counter()
        self.places: dict[Any, list[tuple[str, int]]] = {}

    def visit(self, node: Any) -> Any:
        """Keep the operators that apply to a node, with the number of the occurrence."""
        for name, operator in self.operators.items():
            for start, _ in operator.mutation_positions(node):
                self.places.setdefault(start, []).append((name, self.counts[name]))
                self.counts[name] += 1
        return node


def essence(code: str) -> str:
    """Return what the interpreter sees of code, without annotations and marks of arguments."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arguments):  # how they may be passed
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.posonlyargs = node.kwonlyargs = []
    return ast.dump(tree)


def draw(modules: list[Path], size: int, seed: int) -> tuple[list[Mutant], int]:
    """Return one mutant of each of so many places in the modules, and the number of places."""
    rng, found = random.Random(seed), []
    for module in modules:
        visitor = Places()
        visitor.walk(get_ast(read_python_source(module)))
        found += [(module, place) for place in sorted(visitor.places.items())]
    rng.shuffle(found)
    mutants: list[Mutant] = []
    for module, (_, operators) in found:
        if len(mutants) == size:
            break
        code = module.read_text()
        name, occurrence = rng.choice(operators)
        changed = mutate_code(code, get_operator(name)(), occurrence)
        with suppress(SyntaxError):
            if changed and essence(changed) != essence(code):
                mutants.append(Mutant(module.relative_to(ROOT), name, changed))
    return mutants, len(found)


def tests_of(module: Path, then: list[str]) -> list[tuple[str, ...]]:
    """Return the tests of a module, the most likely to notice first."""
    folder = module.parent.name.lstrip("_")
    name = module.stem.lstrip("_")
    if folder == "sknoisy":
        return [(f"tests/test_{name}.py",), *([tuple(then)] if then else [])]
    own = Path("tests") / folder / f"test_{name}.py"
    rounds: list[tuple[str, ...]] = [(str(own.parent),)]
    if (ROOT / own).exists():
        rounds = [(str(own),), (str(own.parent), f"--ignore={own}")]
    return [*rounds, *([tuple(then)] if then else [])]


class FirstFailure:
    """A plugin of pytest that writes the name of the first test that fails."""

    def __init__(self, to: int) -> None:
        self.to = to

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take note of a test."""
        if report.failed:
            os.write(self.to, report.nodeid.encode() + b"\n")


def run_tests(tests: tuple[str, ...], tree: Path, most: int) -> tuple[str | None, float]:
    """Run tests in a fork.

    Returns the first one that fails, or None if all of them pass, and the seconds that the
    processor took, which are at most `most`.
    """
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.chdir(tree)
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        sys.path.insert(0, str(tree))
        os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        status = 1
        try:
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
            status = pytest.main([*options, *tests], plugins=[FirstFailure(write)])
        finally:
            os._exit(int(status))
    os.close(write)
    _, status, used = os.wait4(process, 0)
    with os.fdopen(read) as failures:
        failed = failures.readline().strip()
    if not failed and status:
        failed = "too slow" if os.WIFSIGNALED(status) else "not collected"
    return failed or None, used.ru_utime + used.ru_stime


def outcome(mutant: Mutant, tree: Path, then: list[str]) -> str:
    """Run the tests against a mutant; return "survived", or the test that it is killed by."""
    rounds = tests_of(mutant.module, then)
    limits = [10 + int(4 * seconds_unchanged(tests, tree)) for tests in rounds]
    path = tree / mutant.module
    whole = path.read_text()
    path.write_text(mutant.code)
    try:
        runs = (run_tests(tests, tree, most) for tests, most in zip(rounds, limits, strict=True))
        return next((failed for failed, _ in runs if failed), "survived")
    finally:
        path.write_text(whole)


@cache
def seconds_unchanged(tests: tuple[str, ...], tree: Path) -> float:
    """Time the tests on the code as it is, where all must pass: else they kill every mutant."""
    failed, seconds = run_tests(tests, tree, 3600)
    if failed is not None:
        sys.exit(f"{failed} fails without a change")
    return seconds


@contextmanager
def copied() -> Iterator[Path]:
    """Copy the files of the working tree that git knows or does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, tree / name)
        yield tree


def main() -> None:
    """Draw the sample, run it, and print the count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, help="modules, or folders of them")
    parser.add_argument("--sample", type=int, default=50, help="mutants, of all paths together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--then", nargs="*", default=[], help="tests to run in addition")
    parser.add_argument("--results", type=Path, help="CSV file to append to")
    arguments = parser.parse_args()
    found = [path.resolve() for path in arguments.paths]
    modules = sorted(m for path in found for m in ([path] if path.is_file() else path.glob("*.py")))
    sample, n_places = draw(modules, arguments.sample, arguments.seed)
    print(f"{len(sample)} of {n_places} places in {len(modules)} modules", flush=True)
    for name in LOADED:
        importlib.import_module(name)
    done: list[list[str]] = []
    if arguments.results and arguments.results.exists():
        with arguments.results.open(newline="") as file:
            done = list(csv.reader(file))
    known = {tuple(row[:6]): row[6] for row in done}
    n_killed = 0
    with copied() as tree:
        for number, mutant in enumerate(sample, start=1):
            began = time.monotonic()
            row = mutant.row(arguments.seed, number, "", 0)
            ended = known.get(tuple(map(str, row[:6]))) or outcome(mutant, tree, arguments.then)
            row[6:] = [ended, round(time.monotonic() - began)]
            n_killed += ended != "survived"
            if ended == "survived":
                print(f"{number}: {n_killed} killed so far; survived:", flush=True)
                print(*mutant.difference(), sep="\n", flush=True)
            if arguments.results and tuple(map(str, row[:6])) not in known:
                with arguments.results.open("a", newline="") as file:
                    csv.writer(file).writerows([row] if done else [COLUMNS, row])
                done.append(row)
    print(f"{n_killed} of {len(sample)} killed")


if __name__ == "__main__":
    main()
