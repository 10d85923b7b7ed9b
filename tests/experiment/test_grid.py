"""Grids of runs: paired, resumed, on several workers."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from skorch import NeuralNet

from skal.experiment import compare
from skal.experiment import data as data_module
from skal.experiment import grid as grid_module
from skal.experiment import workers as workers_module
from skal.experiment.config import GridConfig, RunConfig
from skal.experiment.names import STRATEGIES
from skal.experiment.options import UsageError
from skal.experiment.run import run_experiment

SMALL = {"n_rounds": 2, "epochs": 2}
TIMES = {"train_s", "query_s"}


def run_grid(out, strategies=("random", "margin"), seeds=2, **options):
    return compare(list(strategies), seeds, out=out, **{**SMALL, **options})


def plan(strategies, seeds, out, **options):
    which = "seeds" if isinstance(seeds, int) else "seed_list"
    return grid_module.plan(
        GridConfig(strategies=strategies, out=out, **{which: seeds}, **options)
    )


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


@pytest.mark.slow
def test_a_seed_is_the_same_start_for_all_strategies(tmp_path, monkeypatch):
    weights = []

    def begin(self, net, X=None, y=None):
        if len(y) == 30:  # not one that is only tried
            state = self.module_.state_dict()
            weights.append({name: w.numpy().tobytes() for name, w in state.items()})
        return on_train_begin(self, net, X, y)

    on_train_begin = NeuralNet.on_train_begin
    monkeypatch.setattr(NeuralNet, "on_train_begin", begin)
    options = {"n_rounds": 0, "epochs": 1, "pool_size": 100, "n_initial": 30}
    names = ["random", *set(STRATEGIES) - {"random"}]
    configs, _ = plan(names, [3], out=tmp_path, **options)
    configs += plan(["random"], [4], out=tmp_path, **options)[0]
    starts = []
    for config in configs:
        weights.clear()
        path = run_experiment(config, out=tmp_path).path
        with np.load(path / "queries.npz") as queries:
            rows = {name: queries[name].tolist() for name in queries}
        starts.append((rows, weights[0]))  # an ensemble has more
    (rows, state), *others, (other_rows, other_state) = starts
    assert set(rows) == {"initial", "pool", "test"}
    for its_rows, its_state in others:
        assert its_rows == rows
        assert {name: its_state[name] for name in state} == state
    assert all(other_rows[name] != rows[name] for name in rows)
    assert other_state != state


def test_a_cell_is_what_one_run_would_be(grid, tmp_path):
    config = RunConfig(strategy="margin", seed=1, threads=1, **SMALL)
    alone = run_experiment(config, out=tmp_path)
    assert alone.config == grid.results[-1].config
    stored = [{**record, **dict.fromkeys(TIMES)} for record in alone.records]
    cell = [{**record, **dict.fromkeys(TIMES)} for record in grid.results[-1].records]
    assert stored == cell


def test_data_are_loaded_once_a_seed(tmp_path, monkeypatch):
    loaded, load = [], data_module.load_dataset

    def counted(name, root, random_state, **options):
        loaded.append(random_state)
        return load(name, root, random_state=random_state, **options)

    monkeypatch.setattr(data_module, "load_dataset", counted)
    options = {"n_rounds": 0, "epochs": 1}
    run_grid(tmp_path / "first", **options)
    assert loaded == [0, 0, 1]  # once before anything is run
    # No other grid, and no run, takes what this one had.
    run_grid(tmp_path / "second", seeds=[1], **options)
    run_experiment(RunConfig(seed=1, **options), out=tmp_path / "third")
    assert loaded[3:] == [1, 1, 1]


@pytest.mark.slow
def test_processes_change_no_number(grid, tmp_path):
    assert numbers(run_grid(tmp_path, n_jobs=2)) == numbers(grid)


@pytest.mark.slow
def test_dask_changes_no_number(grid, tmp_path):
    pytest.importorskip("distributed")
    found = run_grid(tmp_path, backend="dask", n_jobs=2)
    assert numbers(found) == numbers(grid)


@pytest.mark.slow
@pytest.mark.parametrize("n_stored", [2, 9])
def test_a_killed_grid_goes_on(grid, tmp_path, n_stored):
    """Kill all processes as soon as they have stored so many of 12 rounds."""
    options = ["--seeds=2", "--n-jobs=2", "--n-rounds=2", "--epochs=2"]
    command = [sys.executable, "-m", "skal", "compare", f"--out={tmp_path}", *options]
    process = subprocess.Popen(
        [*command, "--strategies", "random", "margin"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            files = tmp_path.rglob("rounds.jsonl")
            if sum(file.read_text().count("\n") for file in files) >= n_stored:
                break
            time.sleep(0.002)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    stored = [file.read_text() for file in tmp_path.rglob("rounds.jsonl")]
    assert sum(text.count("\n") for text in stored) >= n_stored
    assert numbers(run_grid(tmp_path)) == numbers(grid)


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
        (["margin"], 0, {}, "--seeds must be a whole number of at least 1, got 0"),
        (["margin"], -1, {}, "--seeds must be a whole number of at least 1, got -1"),
        (["margin"], 1.5, {}, "--seeds must be a whole number"),
        (["margin"], True, {}, "--seeds must be a whole number of .* got True"),
        (["margin"], None, {}, "--seeds must be a whole number of .* got None"),
        (["margin"], [], {}, r"--seed-list must be a list of at least one, got \[\]"),
        (["margin"], [-1], {}, "--seed-list must be a whole number of at least 0"),
        ("margin", 1, {}, "--strategies must be a list of at least one, got 'margin'"),
        ([], 1, {}, r"--strategies must be a list of at least one, got \[\]"),
        (["bagde"], 1, {}, "'bagde'; did you mean 'badge'. Allowed are"),
        (["margin"], 1, {"epoch": 3}, "no option 'epoch'; did you mean 'epochs'"),
        (["margin"], 1, {"epochs": 0}, "--epochs must be a whole number of at least 1"),
        (["margin"], 1, {"lr": "fast"}, "--lr must be a number above 0, got 'fast'"),
        (["margin"], 1, {"batch_size": "0%"}, "--batch-size must be a percentage"),
        (["margin"], 1, {"n_jobs": 0}, "--n-jobs .* got 0; or -1 for one a core"),
        (["margin"], 1, {"scheduler": "nonsense"}, "--scheduler must be HOST:PORT, as"),
        (["margin"], 1, {"scheduler": "a:b"}, "--scheduler must be HOST:PORT, as in 1"),
        (["margin"], 1, {"max_rows": 19}, "--max-rows 19 is less than --batch-size 20"),
        (["margin"], 1, {"n_parts": 0}, "--n-parts must be a whole number of at le"),
        (["margin"], 1, {"scheduler": "h:1"}, "--scheduler 'h:1' needs --backend dask"),
        (["margin"], 1, {"seed": 3}, "no option 'seed'; did you mean 'seeds'"),
        (["margin"], 1, {"strategy_options": {"first": 1}}, "none of random, margin"),
        (
            ["margin"],
            1,
            {"backend": "spark"},
            "--backend cannot be 'spark'. All",
        ),
        (["margin"], 1, {"n_initial": 1438}, "--n-initial 1438 is larger than"),
        (["margin"], 1, {"data": "none.csv"}, "--data 'none.csv' does not exist"),
        (["margin"], 1, {"model": "no_such:Net"}, "--model 'no_such:Net' cannot be"),
        (["margin"], 1, {"embedding_layer": "no"}, "--embedding-layer 'no' is not in"),
        (["margin"], 1, {"device": "none"}, "--device 'none' cannot be used here"),
    ],
)
def test_requests_that_cannot_be_met(strategies, seeds, options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compare(strategies, seeds, out=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_cluster_that_cannot_be_reached(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    with socket.socket() as free:  # a port at which nobody listens
        free.bind(("127.0.0.1", 0))
        gone = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(grid_module, "plan", None)  # nothing is loaded before
    for address in (gone, f"tcp://{gone}"):
        message = f"--scheduler '{address}' cannot be reached .* leave it out"
        with pytest.raises(UsageError, match=message):
            run_grid(tmp_path / "new", backend="dask", scheduler=address)
    assert not (tmp_path / "new").exists()


def test_what_listens_but_is_no_scheduler(tmp_path, monkeypatch):
    """As a dashboard, which waits to be asked: the client would wait without end."""
    pytest.importorskip("distributed")
    monkeypatch.setattr(grid_module, "plan", None)
    monkeypatch.setattr(workers_module, "_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UsageError, match=rf"{address}' cannot be reached \(timed"):
            run_grid(tmp_path / "new", backend="dask", scheduler=address)


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_backend_that_is_not_installed(tmp_path, monkeypatch, backend):
    monkeypatch.setattr(workers_module, "find_spec", lambda name: None)
    message = rf"--backend {backend} needs .* pip install 'skal\[{backend}\]'"
    with pytest.raises(UsageError, match=message):
        run_grid(tmp_path / "new", backend=backend)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    first = run_grid(tmp_path, ["random"], 1)
    monkeypatch.setattr(grid_module.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UsageError, match="nothing can be written in"):
        run_grid(tmp_path, ["random"], 2)
    assert numbers(run_grid(tmp_path, ["random"], 1)) == numbers(first)  # only read


def test_a_cluster_without_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_module, "_run_cell", lambda *args: None)
    with pytest.raises(UsageError, match="must have this folder under the same path"):
        run_grid(tmp_path / "new")


class Awkward(Exception):
    """Cannot be made again from its message."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def test_errors_that_cannot_come_from_another_process(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise Awkward("one", "two")

    monkeypatch.setattr(grid_module, "run_experiment", fail)
    (failure,) = run_grid(tmp_path, ["random"], 1).failures
    assert "one and two" in str(failure[1])


def test_damage_to_one_run_stops_no_other(tmp_path):
    first = run_grid(tmp_path, ["random"], 3)
    paths = [result.path for result in first.results]
    (paths[0] / "rounds.jsonl").write_text("{}\n")
    (paths[1] / "DONE").unlink()
    (paths[2] / "DONE").unlink()
    (paths[2] / "rounds.jsonl").write_text("nothing\n")
    again = run_grid(tmp_path, ["random"], 3)
    assert [result.path for result in again.results] == [paths[1]]
    messages = [str(error) for _, error in again.failures]
    assert "a damaged rounds.jsonl, line 1" in messages[0]
    assert "a damaged rounds.jsonl, line 1" in messages[1]
    assert (paths[2] / "rounds.jsonl").read_text() == "nothing\n"
    (paths[0] / "config.json").write_text("{")
    with pytest.raises(UsageError, match="seed=0' holds a config.json that cannot"):
        run_grid(tmp_path, ["random"], 3)


def test_another_configuration_is_refused_before_anything_runs(tmp_path):
    run_grid(tmp_path, ["random"], [1])
    with pytest.raises(UsageError, match="another configuration: epochs is 2 there"):
        run_grid(tmp_path, ["random"], [0, 1], epochs=3)
    assert not list(tmp_path.glob("**/seed=0"))
