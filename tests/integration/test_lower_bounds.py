"""The oldest versions that are tested are those that the package asks for."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="a checkout has the constraints")
def test_the_constraints_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {}
    for line in [*project["dependencies"], *extras["plot"], *extras["files"], *extras["test"]]:
        requirement = Requirement(line)
        bound = [part.version for part in requirement.specifier if part.operator == ">="]
        asked.setdefault(requirement.name, bound[0])
        assert asked[requirement.name] == bound[0]
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned.pop("distributed") == pinned["dask"]
    for name, bound in asked.items():
        release = [int(part) for part in pinned.pop(name).split(".")]
        assert release[: len(bound.split("."))] == [int(part) for part in bound.split(".")]
        assert not any(release[len(bound.split(".")) :])
    assert not pinned
