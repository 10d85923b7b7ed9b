"""A run that was killed at any moment is ended by the same command."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from skal.cli.cli import main
from skal.experiment import rounds, run
from skal.experiment.config import RunConfig, options_hash
from skal.experiment.options import UsageError
from skal.experiment.results import RunFolder, read_run
from skal.experiment.run import run_experiment
from skal.models import WassersteinGAN
from skal.query import RandomQuery

CONFIG = RunConfig(n_rounds=3, epochs=3, device="cpu", threads=1)


def timeless(path):
    lines = (path / "rounds.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.endswith("_s")}
        for line in lines
    ]


def same(path, whole):
    assert (path / "DONE").exists()
    assert timeless(path) == timeless(whole)
    one, other = ((p / "queries.npz").read_bytes() for p in (path, whole))
    assert one == other
    assert {p.name for p in path.iterdir()} == {p.name for p in whole.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_experiment(CONFIG, out=tmp_path_factory.mktemp("whole")).path


@pytest.fixture
def trained(monkeypatch):
    """Numbers of labels of the models that are trained."""
    sizes = []
    train = rounds.ActiveLearningLoop._train

    def count(self, *args):
        sizes.append(len(self.labeled_indices_))
        return train(self, *args)

    monkeypatch.setattr(rounds.ActiveLearningLoop, "_train", count)
    return sizes


class Killed(BaseException):
    """Ends a run where it stands."""


def kill(out, monkeypatch, method, number, config=CONFIG):
    """Run until a round is about to be stored, or has been; or to the last file."""

    def die(self, record, *args):
        if method == "before" and record["round"] == number:
            raise Killed
        found = store(self, record, *args)
        if method == "after" and record["round"] == number:
            raise Killed
        return found

    def leave_queries_only(path, line):
        if method == "between" and json.loads(line)["round"] == number:
            raise Killed
        append(path, line)

    def unfinished(self, figure):
        raise Killed

    from skal.experiment import results

    store, append = RunFolder.record, results.append_line
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "record", die)
        patch.setattr(results, "append_line", leave_queries_only)
        if method == "unfinished":
            patch.setattr(RunFolder, "finish", unfinished)
        with pytest.raises(Killed):
            run_experiment(config, out=out)
    return RunFolder(out, config).path


@pytest.mark.parametrize(
    "method, number, again",
    [
        ("before", 0, [20, 40, 60, 80]),
        ("between", 0, [20, 40, 60, 80]),
        ("after", 0, [20, 40, 60, 80]),
        ("between", 2, [40, 60, 80]),
        ("after", 2, [60, 80]),
        ("unfinished", 3, []),
    ],
)
def test_finished_rounds_are_not_trained_again(
    tmp_path, whole, trained, monkeypatch, method, number, again
):
    path = kill(tmp_path, monkeypatch, method, number)
    before = (path / "rounds.jsonl").read_text() if again != [20, 40, 60, 80] else ""
    trained.clear()
    seen = []
    result = run_experiment(CONFIG, out=tmp_path, on_round=seen.append)
    assert trained == again
    assert (path / "rounds.jsonl").read_text().startswith(before)
    assert seen == result.records and len(seen) == 4
    same(path, whole)


def test_resumed_loop_has_the_history(tmp_path, whole, monkeypatch):
    kill(tmp_path, monkeypatch, "after", 1)
    loops = []
    after_round = rounds.Rounds.after_round

    def keep(self, loop, record):
        loops.append(loop)
        return after_round(self, loop, record)

    monkeypatch.setattr(rounds.Rounds, "after_round", keep)
    result = run_experiment(CONFIG, out=tmp_path)
    loop = loops[-1]
    assert loop.n_iter_ == 3
    assert loop.history_["round"].tolist() == [0, 1, 2, 3]
    for name, key in (("fit_time", "train_s"), ("n_labeled", "n_labeled")):
        values = [record[key] for record in result.records]
        assert loop.history_[name].tolist() == values
    assert np.bincount(loop.labeled_iter_ + 1)[1:].tolist() == [20] * 4


@pytest.mark.parametrize("n_stored", [0, 1, 3])
@pytest.mark.slow
def test_sigkill(tmp_path, whole, n_stored):
    """Kill a process as soon as it has stored so many rounds."""
    path = RunFolder(tmp_path, CONFIG).path
    options = {"n-rounds": 3, "epochs": 3, "device": "cpu", "threads": 1}
    options = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "skal", "run", f"--out={tmp_path}", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    file = path / "rounds.jsonl"
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            stored = file.read_text().count("\n") if file.exists() else 0
            if (path / "config.json").exists() and stored >= n_stored:
                break
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    assert (path / "config.json").exists()
    run_experiment(CONFIG, out=tmp_path)
    same(path, whole)


def test_other_numbers_are_refused_and_untouched(tmp_path, monkeypatch):
    path = kill(tmp_path, monkeypatch, "after", 1)
    file = path / "rounds.jsonl"
    lines = file.read_text().splitlines()
    record = {**json.loads(lines[1]), "accuracy": 0.125}
    file.write_text(lines[0] + "\n" + json.dumps(record) + "\n")
    before = {p: p.read_bytes() for p in path.iterdir()}
    with pytest.raises(UsageError, match="round 1 with other numbers: accuracy 0.125"):
        run_experiment(CONFIG, out=tmp_path)
    assert {p: p.read_bytes() for p in path.iterdir()} == before


@pytest.mark.parametrize(
    "name, rows, match",
    [
        ("initial", np.zeros(20, dtype=int), "not distinct"),
        ("initial", [*range(19), 5000], "not distinct"),
        ("test", slice(1, None), "other data .'test'"),
        ("initial", np.arange(500, 520), "labels of round 0"),
        ("data", None, "it has changed since"),
    ],
)
def test_purchases_of_other_data_are_refused(tmp_path, monkeypatch, name, rows, match):
    path = kill(tmp_path, monkeypatch, "after", 0)
    if name == "data":
        load = run.load_data

        def changed(*args):
            data = load(*args)
            data.X_test[0, 0, 0, 0] += 1
            return data

        monkeypatch.setattr(run, "load_data", changed)
        name, rows = "test", slice(None)
    with np.load(path / "queries.npz") as queries:
        arrays = dict(queries)
    arrays[name] = arrays[name][rows] if isinstance(rows, slice) else np.asarray(rows)
    np.savez(path / "queries.npz", **arrays)
    with pytest.raises(UsageError, match=match):
        run_experiment(CONFIG, out=tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"pool_size": 90, "initial": "balanced", "patience": 2, "lr": 0.1},
        {"pool_size": 70, "strategy": "k-center-greedy", "model": "cnn"},
        {"strategy": "k-means", "optimizer": "sgd", "momentum": 0.9},
        {"strategy": "random", "seed": 3},
    ],
)
def test_resumed_runs_of_other_options(tmp_path, monkeypatch, options):
    config = RunConfig(**{**vars(CONFIG), **options, "n_rounds": 4})
    path = kill(tmp_path / "killed", monkeypatch, "after", 1, config)
    whole = run_experiment(config, out=tmp_path / "whole")
    run_experiment(config, out=tmp_path / "killed")
    same(path, whole.path)
    sizes = [20, 40, 60, 80, 100]
    n_pool = options.get("pool_size", 1437)
    expected = sorted({min(size, n_pool) for size in sizes})
    assert [record["n_labeled"] for record in whole.records] == expected


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """A run whose strategy keeps its clusters from round to round."""
    config = RunConfig(**{**vars(CONFIG), "strategy": "cluster-margin"})
    return run_experiment(config, out=tmp_path_factory.mktemp("clustered"))


@pytest.mark.parametrize(
    "method, number", [("after", 0), ("between", 1), ("after", 1), ("after", 2)]
)
def test_what_a_strategy_keeps_is_restored(
    tmp_path, clustered, monkeypatch, method, number
):
    path = kill(tmp_path, monkeypatch, method, number, clustered.config)
    run_experiment(clustered.config, out=tmp_path)
    same(path, clustered.path)
    files = [p / "strategy.npz" for p in (path, clustered.path)]
    assert files[0].read_bytes() == files[1].read_bytes()
    with np.load(files[0]) as state:
        assert set(state) == {"1.rows_", "1.labels_"}
        assert len(state["1.rows_"]) == 1437 - 20


def test_clusters_made_again_would_be_others(tmp_path, clustered, monkeypatch):
    path = kill(tmp_path, monkeypatch, "after", 2, clustered.config)
    (path / "strategy.npz").unlink()
    run_experiment(clustered.config, out=tmp_path)
    assert timeless(path)[:3] == timeless(clustered.path)[:3]
    with np.load(path / "queries.npz") as one:
        with np.load(clustered.path / "queries.npz") as other:
            assert not np.array_equal(one["round_3"], other["round_3"])


def test_nets_that_a_strategy_keeps_are_not_trained_again(tmp_path, monkeypatch):
    options = {"aux__max_iter": 6, "n_steps": 2}
    changes = {"strategy": "asal", "strategy_options": options}
    config = RunConfig(**{**vars(CONFIG), **changes})
    whole = run_experiment(config, out=tmp_path / "whole").path
    path = kill(tmp_path, monkeypatch, "between", 1, config)
    run_experiment(config, out=tmp_path)  # trains again: there is no line of round 1
    same(path, whole)
    path = kill(tmp_path / "again", monkeypatch, "after", 1, config)
    monkeypatch.setattr(WassersteinGAN, "fit", None)
    run_experiment(config, out=tmp_path / "again")
    same(path, whole)
    files = [p / "strategy.npz" for p in (path, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    "state", [b"PK", {"1.rows_": np.arange(3)}, {"1.rows_": None, "1.labels_": None}]
)
def test_other_states_are_refused(tmp_path, clustered, monkeypatch, state):
    path = kill(tmp_path, monkeypatch, "after", 1, clustered.config)
    if isinstance(state, bytes):
        (path / "strategy.npz").write_bytes(state)
    else:
        np.savez(path / "strategy.npz", **state)
    with pytest.raises(UsageError, match="a strategy.npz"):
        run_experiment(clustered.config, out=tmp_path)


def test_other_numbers_on_a_gpu_are_noted(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, CONFIG)
    folder.start()
    monkeypatch.setattr(folder, "record", lambda *args: ["nll 1.0 there and 1.1 now"])
    data = run.load_data(CONFIG)
    gpu = RunConfig(**{**vars(CONFIG), "device": "cuda"})
    found = rounds.Rounds(gpu, data, np.arange(1437), folder, {})
    found.stored = [None]
    loop = SimpleNamespace(
        labeled_indices_=np.arange(20),
        strategy_=RandomQuery(),
        predict_proba=lambda X: np.full((len(X), 10), 0.1),
    )
    record = {"round": 0, "n_labeled": 20, "n_queried": 20}
    found.after_round(loop, {**record, "fit_time": 0.0, "query_time": 0.0})
    (note,) = found.notes
    assert "trained again on cuda" in note and "nll 1.0 there and 1.1 now" in note


# What skal 0.1.0 wrote when its options were a dataclass, for
# skal run --epochs 2 --n-rounds 3 --device cpu --threads 1 --lr 0.01 --n-initial 2%
# --strategy k-means --strategy-option n_init=3 --batch-size 1% --pool-size 500
# --weight-decay 0 --optimizer sgd --momentum 0.5 --strategy-option max_iter=9
EARLIER = """{
  "options": {
    "data": "digits",
    "test_data": null,
    "test_size": 0.2,
    "label_column": -1,
    "header": null,
    "model": "mlp",
    "embedding_layer": "auto",
    "dropout": null,
    "strategy": "k-means",
    "strategy_options": {
      "n_init": 3,
      "max_iter": 9
    },
    "initial": "uniform",
    "n_initial": 10,
    "batch_size": 5,
    "n_rounds": 3,
    "epochs": 2,
    "patience": 0,
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.5,
    "weight_decay": 0.0,
    "seed": 0,
    "device": "cpu",
    "threads": 1,
    "pool_size": 500
  },
  "hash": "ae9ec59905bbfcd5",
  "data_fingerprint": "0244ed14",
  "training": "",
  "device_name": "x86_64",
  "processor": "AMD EPYC",
  "versions": {
    "skal": "0.1.0"
  }
}
"""


def test_a_folder_of_an_earlier_release_goes_on(tmp_path, monkeypatch, capsys):
    options = json.loads(EARLIER)["options"]
    config = RunConfig(**options)
    assert options_hash(options) == "ae9ec59905bbfcd5"
    assert config.model_dump() == {**RunConfig().model_dump(), **options}
    path = kill(tmp_path, monkeypatch, "after", 1, config)
    (path / "config.json").write_text(EARLIER)
    whole = run_experiment(config, out=tmp_path / "whole").path
    command = (
        "run --epochs 2 --n-rounds 3 --device cpu --threads 1 --lr 0.01 --n-initial 2% "
        "--initial uniform "
        "--strategy k-means --strategy-option n_init=3 --batch-size 1% --pool-size 500 "
        "--weight-decay 0 --optimizer sgd --momentum 0.5 --strategy-option max_iter=9"
    )
    assert main([*command.split(), "--out", str(tmp_path)]) == 0
    same(path, whole)
    assert (path / "config.json").read_text() == EARLIER
    assert (path / "DONE").read_text() == "ae9ec59905bbfcd5\n4 rounds\n"
    assert main(["show", str(path)]) == 0
    assert "k-means on digits, mlp, seed 0" in capsys.readouterr().out


def test_options_that_nobody_knows_any_more_are_read(tmp_path):
    """Names of strategies and data that were there, and are no more."""
    text = EARLIER.replace("k-means", "theirs").replace('"digits"', '"folder"')
    (tmp_path / "config.json").write_text(text)
    config = read_run(tmp_path).config
    assert (config.strategy, config.data, config.lr) == ("theirs", "folder", 0.01)
    assert config.strategy_options == {"n_init": 3, "max_iter": 9}


@pytest.mark.filterwarnings("ignore:the initial set of 4 rows held one class")
def test_a_rare_class_takes_its_labels_out_of_the_rounds(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(400, 2)).round(3)
    lines = [f"{a},{b},{'yes' if k % 40 else 'no'}" for k, (a, b) in enumerate(rows)]
    (tmp_path / "rare.csv").write_text("\n".join(["a,b,label", *lines]))
    changes = {"n_initial": 4, "batch_size": 10, "n_rounds": 20}
    data = str(tmp_path / "rare.csv")
    config = RunConfig(**{**vars(CONFIG), **changes, "data": data, "epochs": 1})
    whole = run_experiment(config, out=tmp_path / "whole")
    sizes = [record["n_labeled"] for record in whole.records]
    assert sizes[0] > 4 and sizes == [*range(sizes[0], 205, 10)]
    path = kill(tmp_path / "killed", monkeypatch, "after", 1, config)
    run_experiment(config, out=tmp_path / "killed")
    same(path, whole.path)
