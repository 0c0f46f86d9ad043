"""Change the code in small ways and see whether the tests notice.

Draws places in some modules, makes a mutant of each by an operator of cosmic-ray (``pip install
cosmic-ray``), and runs the tests against it, in a copy of the working tree::

    OMP_NUM_THREADS=1 python tools/mutants.py sknoisy/_model sknoisy/_transition --sample 100

First come the tests of the same name as the module, then those of its folder, then those named by
``--then``. A mutant is killed by a test that fails or takes too long. Those that survive are
printed as a difference: either a test is missing, or the change makes no difference to anybody.
Mutants of annotations are left out.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cosmic_ray.ast import Visitor, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.util import read_python_source

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1800


class Mutant(NamedTuple):
    """A module with one change."""

    module: Path
    operator: str
    code: str


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


def tests_of(module: Path, then: list[str]) -> list[list[str]]:
    """Return the tests of a module, the most likely to notice first."""
    folder = module.parent.name.lstrip("_")
    name = module.stem.lstrip("_")
    if folder == "sknoisy":
        return [[f"tests/test_{name}.py"], then]
    own = Path("tests") / folder / f"test_{name}.py"
    rounds = [[str(own)]] if (ROOT / own).exists() else []
    return [*rounds, [str(own.parent)], *([then] if then else [])]


def survives(mutant: Mutant, tree: Path, then: list[str]) -> bool:
    """Run the tests against a mutant; return whether all of them pass."""
    path = tree / mutant.module
    whole = path.read_text()
    path.write_text(mutant.code)
    try:
        for tests in tests_of(mutant.module, then):
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
            environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
            try:
                done = subprocess.run(
                    command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS
                )
            except subprocess.TimeoutExpired:
                return False
            if done.returncode:
                return False
        return True
    finally:
        path.write_text(whole)


def main() -> None:
    """Draw the sample, run it, and print the count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, help="modules, or folders of them")
    parser.add_argument("--sample", type=int, default=50, help="mutants, of all paths together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--then", nargs="*", default=[], help="tests to run in addition")
    arguments = parser.parse_args()
    found = [path.resolve() for path in arguments.paths]
    modules = sorted(m for path in found for m in ([path] if path.is_file() else path.glob("*.py")))
    sample, n_places = draw(modules, arguments.sample, arguments.seed)
    print(f"{len(sample)} of {n_places} places in {len(modules)} modules", flush=True)
    n_killed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.split():
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, tree / name)
        for number, mutant in enumerate(sample, start=1):
            if not survives(mutant, tree, arguments.then):
                n_killed += 1
                continue
            before, after = (tree / mutant.module).read_text(), mutant.code
            lines = difflib.unified_diff(
                before.splitlines(),
                after.splitlines(),
                str(mutant.module),
                mutant.operator,
                lineterm="",
                n=0,
            )
            print(f"{number}: {n_killed} killed so far; survived:", *lines, sep="\n", flush=True)
    print(f"{n_killed} of {len(sample)} killed")


if __name__ == "__main__":
    main()
