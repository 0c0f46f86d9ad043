"""Change the code in small ways and see whether the tests notice.

Draws places in some modules, makes a mutant of each by an operator of cosmic-ray (``pip install
cosmic-ray``), and runs the tests against it, in a copy of the working tree::

    OMP_NUM_THREADS=1 python tools/mutants.py sknoisy/_model sknoisy/_transition --sample 100

The tests are those of the folder of the module, and those named by ``--then``. First come the tests
of the same name as the module, then the files that are quick, and in each file the tests that are.
A mutant is killed by a test that fails, or one that takes far longer than without the change. Those
that survive are printed as a difference: either a test is missing, or the change makes no
difference to anybody. Mutants of annotations are left out. ``--results`` appends a row for each
mutant to a CSV file; a second run with the same seed goes on where the file ends.

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
import signal
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


def tests_of(module: Path, then: list[str]) -> tuple[str, ...]:
    """Return the files and folders of tests that may notice a change of a module."""
    folder = module.parent.name.lstrip("_")
    own = f"tests/test_{module.stem}.py" if folder == "sknoisy" else f"tests/{folder}"
    return own, *then


class Tests:
    """A plugin of pytest that runs the tests most likely to notice first, and stops slow ones.

    Parameters
    ----------
    log : Path
        Gets a line for each test: its name, the seconds that the processor took, and whether it
        failed.
    name : str
        The tests of a file of this name come first.
    seconds : dict
        What each test takes without a change. Quick files come first, and quick tests in a file;
        four times as long as the longest one of its file and ten seconds is too slow.
    """

    def __init__(self, log: Path, name: str, seconds: dict[str, float]) -> None:
        self.log = log
        self.name = name
        self.seconds = seconds
        self.of_file: dict[str, list[float]] = {}
        for test, took in seconds.items():
            self.of_file.setdefault(test.split("::")[0], []).append(took)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort the tests."""

        def place(item: pytest.Item) -> tuple[Any, ...]:
            file = item.nodeid.split("::")[0]
            is_own = Path(file).stem == f"test_{self.name}"
            took = sum(self.of_file.get(file, []))
            return not is_own, took, file, self.seconds.get(item.nodeid, 0.0)

        items.sort(key=place)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Time a test, and end the process if it takes too long."""
        if self.seconds:
            longest = max(self.of_file.get(item.nodeid.split("::")[0], [0.0]))
            signal.setitimer(signal.ITIMER_PROF, 10 + 4 * longest)
        self.failed, began = False, time.process_time()
        try:
            return (yield)
        except BaseException:  # an interrupt
            self.failed = True
            raise
        finally:
            with self.log.open("a") as file:
                file.write(f"{time.process_time() - began:.3f} {self.failed:d} {item.nodeid}\n")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take note of a failure."""
        self.failed |= report.failed


def run_tests(
    tests: tuple[str, ...], tree: Path, name: str, seconds: dict[str, float]
) -> tuple[str | None, dict[str, float]]:
    """Run tests in a fork.

    Returns the first one that fails, or None if all of them pass, and the seconds of those that
    were run.
    """
    log = tree.parent / "log"
    log.write_text("")
    process = os.fork()
    if process == 0:
        os.chdir(tree)
        if seconds:
            most = 60 + int(4 * sum(seconds.values()))
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
            status = pytest.main([*options, *tests], plugins=[Tests(log, name, seconds)])
        finally:
            os._exit(int(status))
    _, status = os.waitpid(process, 0)
    rows = [line.split(" ", 2) for line in log.read_text().splitlines()]
    failed = next((test for _, has_failed, test in rows if has_failed == "1"), None)
    if failed is None and status:
        failed = "too slow" if os.WIFSIGNALED(status) else "not collected"
    return failed, {test: float(took) for took, _, test in rows}


def outcome(mutant: Mutant, tree: Path, then: list[str]) -> str:
    """Run the tests against a mutant; return "survived", or the test that it is killed by."""
    tests = tests_of(mutant.module, then)
    seconds = seconds_unchanged(tests, tree)
    path = tree / mutant.module
    whole = path.read_text()
    path.write_text(mutant.code)
    try:
        failed, _ = run_tests(tests, tree, mutant.module.stem.lstrip("_"), seconds)
        return failed or "survived"
    finally:
        path.write_text(whole)


@cache
def seconds_unchanged(tests: tuple[str, ...], tree: Path) -> dict[str, float]:
    """Time the tests on the code as it is, where all must pass: else they kill every mutant."""
    failed, seconds = run_tests(tests, tree, "", {})
    if failed is not None:
        sys.exit(f"{failed} fails without a change")
    print(f"{sum(seconds.values()):.0f} s for {len(seconds)} tests without a change", flush=True)
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
