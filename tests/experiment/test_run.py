import errno
import json
import os
import shutil
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from skal.cli.cli import main
from skal.datasets import load_dataset
from skal.experiment.config import RunConfig
from skal.experiment.options import UsageError
from skal.experiment.run import run_experiment
from skal.net import outputs
from skal.utils import scratch

QUICK = {"n_rounds": 2, "epochs": 3, "device": "cpu", "threads": 1}
FIELDS = (
    "run_id dataset model strategy seed round n_labeled n_queried accuracy "
    "balanced_accuracy nll ece train_s query_s acquired_class_counts device"
).split()


def timeless(records):
    return [
        {key: value for key, value in record.items() if not key.endswith("_s")}
        for record in records
    ]


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def badge(tmp_path_factory):
    """A finished run, with its result."""
    out = tmp_path_factory.mktemp("save")
    return out, run_experiment(RunConfig(**QUICK), out=out)


def test_semi_supervised_training_is_said(tmp_path, capsys):
    options = ["--n-rounds", "1", "--epochs", "1", "--threads", "1", "--device", "cpu"]
    options += ["--out", str(tmp_path)]
    said = "waal: semi-supervised: the network is trained on unlabelled rows, too"
    # New, stored, shown, and in a grid.
    for command in (["run"], ["run"], ["show"], ["compare"]):
        if command == ["show"]:
            folder = next(path.parent for path in tmp_path.rglob("DONE"))
            code = main(["show", str(folder)])
        elif command == ["run"]:
            code = main(["run", "--strategy", "waal", *options])
        else:
            code = main(["compare", "--strategies", "waal", "--seeds", "1", *options])
        assert code == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines.count(said) == 1, command
    config = json.loads((folder / "config.json").read_text())
    assert config["training"] == said.removeprefix("waal: ")


def test_files(badge):
    out, result = badge
    assert {path.name for path in result.path.iterdir()} == {
        "config.json",
        "rounds.jsonl",
        "queries.npz",
        "learning_curve.png",
        "DONE",
    }
    lines = (result.path / "rounds.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert records == result.records
    assert all(list(record) == FIELDS for record in records)
    assert [record["n_labeled"] for record in records] == [20, 40, 60]
    assert [record["n_queried"] for record in records] == [20, 20, 20]
    assert out / records[0]["run_id"] == result.path


def test_queries_are_rows_of_the_training_images(badge):
    _, result = badge
    data = load_dataset("digits", random_state=0)
    with np.load(result.path / "queries.npz") as queries:
        assert set(queries) == {"initial", "round_1", "round_2", "test"}
        bought = [queries[name] for name in ("initial", "round_1", "round_2")]
        np.testing.assert_array_equal(queries["test"], data.test_indices)
    assert all(rows.dtype == np.int64 and len(rows) == 20 for rows in bought)
    assert len(set(np.concatenate(bought))) == 60
    for rows, record in zip(bought, result.records, strict=True):
        counts = np.bincount(data.y_train[rows], minlength=10)
        assert counts.tolist() == record["acquired_class_counts"]


def test_same_seed_same_numbers(badge, tmp_path):
    _, result = badge
    torch.manual_seed(99)
    again = run_experiment(RunConfig(**QUICK), out=tmp_path)
    assert timeless(again.records) == timeless(result.records)
    one, other = ((r.path / "queries.npz").read_bytes() for r in (result, again))
    assert one == other


def test_strategies_share_round_0_and_seeds_do_not(badge, tmp_path):
    _, result = badge

    def numbers(record):
        named = ("run_id", "strategy", "seed")
        return {k: v for k, v in record.items() if k not in named}

    other = run_experiment(RunConfig(strategy="random", **QUICK), out=tmp_path)
    ours, theirs, (seeded, *_) = (
        [numbers(record) for record in timeless(records)]
        for records in (
            result.records,
            other.records,
            run_experiment(
                RunConfig(seed=1, **{**QUICK, "n_rounds": 0}), out=tmp_path
            ).records,
        )
    )
    assert ours[0] == theirs[0]
    assert ours[1] != theirs[1]
    assert seeded != ours[0]


def test_done_run_is_read_not_repeated(badge, capsys, monkeypatch):
    out, result = badge
    before = files(out)
    monkeypatch.setattr("skal.experiment.run.load_data", None)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in QUICK.items()]
    assert main(["run", f"--out={out}", *options]) == 0
    assert files(out) == before
    printed = capsys.readouterr().out
    assert "already done" in printed and "NLL" in printed
    assert all(f"{record['accuracy']:.4f}" in printed for record in result.records)


def test_other_configuration_is_exit_code_2(badge, capsys):
    out, _ = badge
    before = files(out)
    options = {**QUICK, "epochs": 4}
    options = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    assert main(["run", f"--out={out}", *options]) == 2
    assert "epochs is 3 there and 4 now" in capsys.readouterr().err
    assert files(out) == before


@pytest.mark.parametrize("model", ["cnn", "resnet"])
def test_models_run_on_part_of_the_pool(tmp_path, model):
    options = {**QUICK, "n_rounds": 1, "epochs": 1, "n_initial": 10, "batch_size": 10}
    config = RunConfig(model=model, pool_size=15, **options)
    result = run_experiment(config, out=tmp_path)
    assert [record["n_labeled"] for record in result.records] == [10, 15]
    with np.load(result.path / "queries.npz") as queries:
        bought = np.concatenate([queries["initial"], queries["round_1"]])
        np.testing.assert_array_equal(np.sort(bought), queries["pool"])


@pytest.mark.parametrize(
    "options, match",
    [
        ({"pool_size": 2000}, "--pool-size 2000 is larger than the 1437"),
        ({"pool_size": 15}, "--n-initial 20 is larger than the pool of 15 rows"),
        ({"device": "abacus"}, "--device 'abacus' cannot be used.*'cpu'"),
        ({"data": "MNIST"}, "'.*train-images-idx3-ubyte' is damaged"),
    ],
)
def test_bad_input_leaves_no_folder(tmp_path, options, match):
    root = tmp_path / "data" / "MNIST" / "raw"
    root.mkdir(parents=True)
    for stem in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3"):
        (root / f"{stem}-ubyte").write_bytes(b"damaged")
    (root / "t10k-labels-idx1-ubyte").write_bytes(b"damaged")
    config = RunConfig(**{**QUICK, **options})
    out = tmp_path / "save"
    with pytest.raises(UsageError, match=match):
        run_experiment(config, out=out, data_root=tmp_path / "data")
    assert not out.exists()


@pytest.mark.parametrize("stop_after", [0, 1])
def test_ctrl_c_leaves_a_folder_that_the_same_command_ends(
    badge, tmp_path, capsys, monkeypatch, stop_after
):
    from skal.experiment.results import RunFolder

    _, result = badge
    store = RunFolder.record

    def interrupt(self, record, *args):
        store(self, record, *args)
        if record["round"] == stop_after:
            raise KeyboardInterrupt

    options = [f"--{key.replace('_', '-')}={value}" for key, value in QUICK.items()]
    command = ["run", f"--out={tmp_path}", *options]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "record", interrupt)
        assert main(command) == 130
    error = capsys.readouterr().err
    assert "interrupted" in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("DONE"))
    stored = (*tmp_path.rglob("rounds.jsonl"),)[0].read_text()
    assert stored.count("\n") == stop_after + 1
    assert main(command) == 0
    path = tmp_path / result.records[0]["run_id"]
    assert (path / "DONE").exists()
    text = (path / "rounds.jsonl").read_text()
    assert text.startswith(stored)
    records = [json.loads(line) for line in text.splitlines()]
    assert timeless(records) == timeless(result.records)


def test_the_test_split_is_scored_once_a_round(tmp_path, monkeypatch):
    from skal.experiment import rounds

    calls = []
    predict_proba = rounds.ActiveLearningLoop.predict_proba

    def count(self, X):
        calls.append(len(X))
        return predict_proba(self, X)

    monkeypatch.setattr(rounds.RecordedLoop, "predict_proba", count, raising=False)
    run_experiment(RunConfig(**QUICK), out=tmp_path)
    assert calls == [360] * 3


def test_the_run_and_its_picture_need_no_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run_experiment(RunConfig(**{**QUICK, "n_rounds": 0}), out=tmp_path)
    assert result.notes == []
    with Image.open(result.path / "learning_curve.png") as picture:
        assert picture.size == (750, 500)


def test_the_number_of_threads_is_restored(tmp_path):
    before = torch.get_num_threads()
    config = RunConfig(**{**QUICK, "n_rounds": 0, "threads": before + 1})
    run_experiment(config, out=tmp_path)
    assert torch.get_num_threads() == before


def test_percent_and_balanced_and_strategy_options(badge, tmp_path):
    out, _ = badge
    config = RunConfig(
        **{**QUICK, "n_rounds": 1},
        n_initial="2%",
        batch_size="1%",
        initial="balanced",
        strategy="badge",
        strategy_options={"first": "uniform"},
    )
    result = run_experiment(config, out=tmp_path)
    assert [record["n_labeled"] for record in result.records] == [28, 42]
    assert set(result.records[0]["acquired_class_counts"]) == {2, 3}
    assert result.path == tmp_path / "digits/mlp/28+1x14/badge/seed=0"
    before = files(tmp_path)
    assert run_experiment(config, out=tmp_path).records == result.records
    numbers = RunConfig(**{**vars(config), "n_initial": 28, "batch_size": 14})
    assert run_experiment(numbers, out=tmp_path).records == result.records
    assert files(tmp_path) == before


@pytest.mark.parametrize("method", ["config.json", "queries.npz", "rounds.jsonl"])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    badge, tmp_path, capsys, monkeypatch, method
):
    from skal.experiment import results

    _, whole = badge
    write, append = results.atomic_write, results.append_line
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def no_room(path, mode="wb"):
        with write(path, mode) as file:
            yield file
            if path.name == method and (method != "queries.npz" or path.exists()):
                raise full

    def no_room_for_a_line(path, line):
        if method == "rounds.jsonl" and path.exists():
            with path.open("a") as file:
                file.write(line[:20])
            raise full
        append(path, line)

    options = [f"--{key.replace('_', '-')}={value}" for key, value in QUICK.items()]
    command = ["run", f"--out={tmp_path / 'save'}", *options]
    with monkeypatch.context() as patch:
        patch.setattr(results, "atomic_write", no_room)
        patch.setattr(results, "append_line", no_room_for_a_line)
        assert main(command) == 2
    error = capsys.readouterr().err
    assert "No space left" in error and error.count("\n") == 1
    if method == "config.json":
        assert not list(tmp_path.rglob("*seed*"))
    assert not [path for path in files(tmp_path) if path.name.startswith(".")]
    assert main(command) == 0
    path = tmp_path / "save" / whole.records[0]["run_id"]
    records = [json.loads(x) for x in (path / "rounds.jsonl").read_text().splitlines()]
    assert timeless(records) == timeless(whole.records)


def test_show(badge, tmp_path, capsys):
    out, result = badge
    assert main(["show", str(result.path)]) == 0
    printed = capsys.readouterr().out
    assert all(f"{record['accuracy']:.4f}" in printed for record in result.records)
    assert "not finished" not in printed
    unfinished = tmp_path / "run"
    shutil.copytree(result.path, unfinished)
    (unfinished / "DONE").unlink()
    lines = (unfinished / "rounds.jsonl").read_text().splitlines(keepends=True)
    (unfinished / "rounds.jsonl").write_text(lines[0] + lines[1][:30])
    before = files(unfinished)
    assert main(["show", str(unfinished)]) == 0
    assert "not finished: 1 of 3 rounds" in capsys.readouterr().out
    assert files(unfinished) == before
    assert main(["show", str(out)]) == 2
    error = capsys.readouterr().err
    assert "not the folder of a run" in error and str(result.path) in error
    assert main(["show", str(tmp_path / "nothing")]) == 2


def test_a_run_that_failed_at_once_does_not_block_the_next(tmp_path):
    quick = {"n_rounds": 1, "epochs": 2, "device": "cpu", "threads": 1}
    with pytest.raises(ValueError, match="learning rate"):
        run_experiment(RunConfig(lr=1e30, **quick), out=tmp_path)
    assert len(run_experiment(RunConfig(**quick), out=tmp_path).records) == 2


def test_a_plan_of_one_class_names_the_options_that_help(tmp_path, capsys):
    rows = "".join(f"{i % 7},{i % 5},{i < 2}\n" for i in range(200))
    (tmp_path / "rare.csv").write_text("a,b,label\n" + rows)
    options = "--model mlp --n-initial 2 --batch-size 2 --n-rounds 1 --test-size 100"
    options += f" --data {tmp_path / 'rare.csv'} --out {tmp_path / 'save'} --epochs 1"
    assert main(["run", *options.split(), "--threads", "1", "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert "all 4 labels of the plan are of one class" in message
    assert "--initial balanced" in message


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_memory_limit_changes_no_number(badge, tmp_path, monkeypatch, command):
    spilled, file_map = [], scratch._file_map
    monkeypatch.setattr(
        scratch, "_file_map", lambda n: spilled.append(n) or file_map(n)
    )
    options = tmp_path / "options.toml"
    options.write_text('memory-limit = "64K"\nn-rounds = 2\nepochs = 3\nthreads = 1\n')
    words = [command, "--config", str(options), "--out", str(tmp_path / "save")]
    if command == "compare":
        words += ["--strategies", "u-herding", "--seeds", "1"]
    assert main([*words, "--device", "cpu"]) == 0
    assert spilled
    (found,) = (tmp_path / "save").rglob("u-herding/seed=0/rounds.jsonl")
    records = [json.loads(line) for line in found.read_text().splitlines()]
    assert timeless(records) == timeless(badge[1].records)
    config = json.loads((found.parent / "config.json").read_text())
    assert "memory_limit" not in config["options"]  # it plays no part in results


@pytest.mark.parametrize("limit", ["2X", -1, 0, True])
def test_what_is_no_memory_limit(limit, capsys):
    assert main(["run", "--memory-limit", str(limit)]) == 2
    assert "--memory-limit must be a positive number" in capsys.readouterr().err


def test_a_memory_limit_for_no_batch_is_said_before_there_is_a_folder(tmp_path, capsys):
    assert main(["run", "--memory-limit", "1K", "--out", str(tmp_path / "a")]) == 2
    assert "--memory-limit 1024 bytes is less than one" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_the_precision_of_the_pass_is_an_option(badge, tmp_path, capsys, monkeypatch):
    found, mixed = [], outputs.mixed
    monkeypatch.setattr(
        outputs, "mixed", lambda net, p: found.append(p) or mixed(net, p)
    )
    config = RunConfig(**{**QUICK, "n_rounds": 1}, precision="bfloat16")
    result = run_experiment(config, out=tmp_path)
    assert "bfloat16" in found
    assert result.records[0]["nll"] == badge[1].records[0]["nll"]  # trains as ever
    with pytest.raises(UsageError, match="precision is 'bfloat16' there and None now"):
        run_experiment(RunConfig(**{**QUICK, "n_rounds": 1}), out=tmp_path)
    assert main(["run", "--precision", "half"]) == 2
    assert "--precision cannot be 'half'" in capsys.readouterr().err
