"""Grids of runs: paired, resumed, on several workers."""

import json

import numpy as np
import pytest

from skal.__main__ import main
from skal.experiment import compare
from skal.experiment.config import RunConfig, UsageError
from skal.experiment.grid import plan
from skal.experiment.run import run_experiment

SMALL = {"n_rounds": 2, "epochs": 2}
TIMES = {"train_s", "query_s"}


def run_grid(out, strategies=("random", "margin"), seeds=2, **options):
    return compare(list(strategies), seeds, out=out, **{**SMALL, **options})


def numbers(comparison):
    """All records without their times."""
    return [
        {key: value for key, value in record.items() if key not in TIMES}
        for result in comparison.results
        for record in result.records
    ]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return run_grid(tmp_path_factory.mktemp("grid"))


def test_results_come_by_seed_and_strategy(grid):
    found = [(r.config.seed, r.config.strategy) for r in grid.results]
    assert found == [(0, "random"), (0, "margin"), (1, "random"), (1, "margin")]
    assert all(len(r.records) == 3 for r in grid.results)
    assert grid.failures == []


def test_a_seed_is_the_same_start_for_all_strategies(grid):
    starts = {}
    for result in grid.results:
        with np.load(result.path / "queries.npz") as queries:
            first = (queries["initial"].tolist(), result.records[0]["accuracy"])
        starts.setdefault(result.config.seed, []).append(first)
    assert starts[0][0] == starts[0][1] and starts[1][0] == starts[1][1]
    assert starts[0][0] != starts[1][0]


def test_a_cell_is_what_one_run_would_be(grid, tmp_path):
    config = RunConfig(strategy="margin", seed=1, threads=1, **SMALL)
    alone = run_experiment(config, out=tmp_path)
    assert alone.config == grid.results[-1].config
    stored = [{**record, **dict.fromkeys(TIMES)} for record in alone.records]
    cell = [{**record, **dict.fromkeys(TIMES)} for record in grid.results[-1].records]
    assert stored == cell


@pytest.mark.slow
def test_processes_change_no_number(grid, tmp_path):
    assert numbers(run_grid(tmp_path, n_jobs=2)) == numbers(grid)


@pytest.mark.slow
def test_dask_changes_no_number(grid, tmp_path):
    pytest.importorskip("distributed")
    found = run_grid(tmp_path, backend="dask", n_jobs=2)
    assert numbers(found) == numbers(grid)


def test_what_is_missing_is_run(grid, tmp_path):
    first = run_grid(tmp_path)
    paths = [result.path for result in first.results]
    for path in (paths[1], paths[2]):
        (path / "DONE").unlink()
    lines = (paths[1] / "rounds.jsonl").read_text().splitlines(keepends=True)
    (paths[1] / "rounds.jsonl").write_text(lines[0] + lines[1][:20])  # killed there
    before = [path.stat().st_mtime_ns for path in (paths[0], paths[3])]
    assert numbers(run_grid(tmp_path)) == numbers(grid)
    assert before == [path.stat().st_mtime_ns for path in (paths[0], paths[3])]


def test_random_is_added(tmp_path):
    configs, notes = plan(["margin"], 1, out=tmp_path)
    assert [c.strategy for c in configs] == ["random", "margin"]
    assert "random is added" in notes[0]
    assert plan(["margin", "random"], 1, out=tmp_path)[1] == []


def test_one_thread_unless_asked(tmp_path):
    assert {c.threads for c in plan(["margin"], 1, out=tmp_path)[0]} == {1}
    assert {c.threads for c in plan(["margin"], 1, out=tmp_path, threads=2)[0]} == {2}


def test_options_of_a_strategy_go_to_those_that_have_them(tmp_path):
    options = {"first": "uniform", "posterior__n_draws": 7}
    names = ["badge", "bald", "margin"]
    configs, _ = plan(names, 1, out=tmp_path, strategy_options=options)
    assert {c.strategy: c.strategy_options for c in configs} == {
        "random": {},
        "badge": {"first": "uniform"},
        "bald": {"posterior__n_draws": 7},
        "margin": {},
    }


def test_percentages(tmp_path):
    configs, _ = plan(["margin"], 1, out=tmp_path, batch_size="5%")
    assert {c.batch_size for c in configs} == {71}


@pytest.mark.parametrize(
    "strategies, seeds, options, message",
    [
        (["margin", "margin"], 1, {}, "--strategies has 'margin' more than once"),
        (["margin"], [3, 3], {}, "--seed-list has 3 more than once"),
        (["margin"], 0, {}, "--seeds must be at least 1, got 0"),
        (["bagde"], 1, {}, "Unknown strategy 'bagde'; allowed are"),
        (["margin"], 1, {"epoch": 3}, "no option epoch"),
        (["margin"], 1, {"seed": 3}, "no option seed"),
        (["margin"], 1, {"strategy_options": {"first": 1}}, "none of random, margin"),
        (["margin"], 1, {"backend": "spark"}, "Unknown backend 'spark'"),
    ],
)
def test_requests_that_cannot_be_met(strategies, seeds, options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compare(strategies, seeds, out=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_another_configuration_is_refused_before_anything_runs(tmp_path):
    run_grid(tmp_path, ["random"], [1])
    with pytest.raises(UsageError, match="another configuration: epochs is 2 there"):
        run_grid(tmp_path, ["random"], [0, 1], epochs=3)
    assert not list(tmp_path.glob("**/seed=0"))


def test_a_run_that_fails_stops_no_other(tmp_path, capsys):
    command = "compare --strategies bald --seeds 1 --dropout 0 --n-rounds 1 --epochs 1"
    assert main([*command.split(), "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "failed: bald, seed 0: --model 'mlp'" in printed.err
    assert "no active dropout" in printed.err
    assert "random" in printed.out and "runs what failed again" in printed.out


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_from_a_file(ending, tmp_path, capsys):
    path = tmp_path / f"grid.{ending}"
    text = {
        "toml": 'strategies = ["margin"]\nseed-list = [4]\nn-rounds = 1\nepochs = 1\n',
        "yaml": "strategies: [margin]\nseed-list: [4]\nn-rounds: 1\nepochs: 1\n",
    }
    path.write_text(text[ending])
    assert main(["compare", "--config", str(path), "--out", str(tmp_path / "o")]) == 0
    runs = sorted(p.parent.relative_to(tmp_path) for p in tmp_path.glob("o/**/DONE"))
    assert [str(p) for p in runs] == [
        f"o/digits/mlp/20+1x20/{name}/seed=4" for name in ("margin", "random")
    ]
    options = json.loads((tmp_path / runs[0] / "config.json").read_text())["options"]
    assert options["epochs"] == 1 and options["threads"] == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("strategies: margin\n", "strategies: must be a list, got 'margin'"),
        ("strategies: [margin\n", "is not YAML"),
        ("- margin\n", "must be a table of options"),
        ("seed: 3\n", "unknown key 'seed'"),
        ("backend: spark\n", "must be one of loky, dask, ray, got 'spark'"),
    ],
)
def test_files_that_cannot_be_used(text, message, tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(text)
    assert main(["compare", "--config", str(tmp_path / "grid.yaml")]) == 2
    assert message in capsys.readouterr().err
