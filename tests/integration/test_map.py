"""The map of the package in CONTRIBUTING.rst, and the limits that keep it readable."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sknoisy"


def files_on_the_map():
    """Return the paths that the tree in CONTRIBUTING.rst draws."""
    text = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
    tree = text.split("    sknoisy/\n")[1].split("\n\n")[0]
    folder, found = "", set()
    for line in tree.splitlines():
        indent, name = re.match(r"    ([│ ]*)[├└]── (\S+)", line).groups()
        if name.endswith("/"):
            folder = name
        else:
            found.add(f"{folder if indent else ''}{name}")
    return found


def test_the_map_draws_every_file_and_no_other():
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert files_on_the_map() == {name for name in files if not name.endswith("__init__.py")}


def test_the_tests_have_the_folders_of_the_package():
    rooms = {path.parent.name.lstrip("_") for path in PACKAGE.glob("*/__init__.py")} - {"noise"}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == rooms | {"integration", "benchmarks"}


def lines_of_code(path):
    """Count lines that are not empty and belong neither to a comment nor to a docstring."""
    text = path.read_text(encoding="utf-8")
    documented = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            documented |= set(range(first.lineno, first.end_lineno + 1))
    return sum(
        number not in documented and bool(line.strip()) and not line.strip().startswith("#")
        for number, line in enumerate(text.splitlines(), 1)
    )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_a_file_is_read_in_one_sitting(path):
    assert lines_of_code(path) <= 300


def test_a_folder_is_seen_at_a_glance():
    for room in PACKAGE.glob("*/__init__.py"):
        assert len(list(room.parent.glob("*.py"))) - 1 <= 8, room.parent


LIBRARIES = ("sklearn", "skorch", "torch", "numpy", "scipy")


def private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names_of_other_libraries():
    """Return names with an underscore that the package uses and does not define."""
    defined, used = {"_replace", "_make", "_asdict"}, set()  # of named tuples
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(LIBRARIES):
                used |= {part for part in node.module.split(".") if private(part)}
                used |= {alias.name for alias in node.names if private(alias.name)}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Attribute):
                stored = isinstance(node.ctx, ast.Store)
                (defined if stored else used).update({node.attr} if private(node.attr) else ())
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
    return used - defined


def test_private_names_of_other_libraries_are_listed_with_a_reason():
    text = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
    section = text.split("Private names of other libraries")[1].split("How the tests")[0]
    listed = set(re.findall(r"``(_\w+)``", section))
    overridden = {"_sorted_keys"}  # and called by way of super()
    assert private_names_of_other_libraries() == listed - overridden


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
