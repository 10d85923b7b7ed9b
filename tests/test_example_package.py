"""A package outside skal: its strategy is found, checked, and used by name."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from skal.__main__ import main
from skal.testing import check_strategy
from skal.utils import all_strategies

PACKAGE = Path(__file__).parent / "example_package"
GROUP = "skal.strategies"


def install(folder, name, entry_points):
    """Write what an installer would, so that `folder` on sys.path is an environment."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Folder with the example package's metadata, on sys.path as its source is."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    install(tmp_path, "skal_example", project["entry-points"][GROUP])
    monkeypatch.syspath_prepend(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("skal_example")]:
        del sys.modules[name]


def skal(site, *arguments):
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "skal", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_strategy_is_found_and_a_broken_one_named_and_left_out(site):
    with pytest.warns(UserWarning, match="'broken'.*a_library_that_nobody_has"):
        found = dict(all_strategies())
    assert found["VariationRatioQuery"].__module__ == "skal_example"
    assert "EntropyQuery" in found and "BrokenQuery" not in found


@pytest.mark.filterwarnings("ignore:the strategy .* is left out")
@pytest.mark.parametrize("name", ["variation-ratio", "badge"])
def test_two_strategies_of_one_name_raise(site, name):
    install(site, "another", {name: "another:Query"})
    with pytest.raises(ValueError, match=f"two strategies '{name}'.*another:Query"):
        all_strategies()


def test_strategy_passes_the_common_checks(site):
    from skal_example import VariationRatioQuery

    results = check_strategy(VariationRatioQuery())
    assert {result["status"] for result in results} <= {"passed", "skipped"}


@pytest.mark.filterwarnings("ignore:the strategy .* is left out")
def test_command_line_lists_it(site, capsys):
    child = skal(site, "list")
    assert child.returncode == 0, child.stderr
    assert "variation-ratio" in child.stdout and "1965" in child.stdout
    assert "'broken'" in child.stderr and "Traceback" not in child.stderr
    assert main(["list", "variation-ratio"]) == 0
    assert "Freeman" in capsys.readouterr().out


@pytest.mark.slow
def test_command_line_runs_it(site, tmp_path):
    options = "--n-rounds 1 --n-initial 20 --batch-size 10 --epochs 1"
    child = skal(
        site,
        *("run", "--strategy", "variation-ratio", "--out", str(tmp_path / "out")),
        *options.split(),
    )
    assert child.returncode == 0, child.stderr


def test_help_does_not_import_it(site):
    (site / "skal_loud.py").write_text("print('imported')")
    install(site, "loud", {"loud": "skal_loud:LoudQuery"})
    child = skal(site, "run", "--help")
    assert child.returncode == 0, child.stderr
    assert "imported" not in child.stdout and not child.stderr
