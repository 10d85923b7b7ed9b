"""The oldest versions that are tested are the lower bounds that are promised."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_oldest_versions_are_the_lower_bounds():
    oldest = ROOT / ".ci/oldest.txt"
    if not oldest.exists():
        pytest.skip("no .ci beside the tests")
    lines = [line for line in oldest.read_text().splitlines() if line[0] != "#"]
    pins = {name: Version(pin) for name, pin in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounds = {}
    for text in (*project["dependencies"], *extras["plot"], *extras["test"]):
        requirement = Requirement(text)
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        bounds[requirement.name] = Version(bound.version)
    assert bounds == {name: pins.get(name) for name in bounds}
