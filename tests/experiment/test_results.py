import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from skal.experiment import results
from skal.experiment.config import RunConfig
from skal.experiment.options import UsageError
from skal.experiment.results import RunFolder, read_run

CONFIG = RunConfig(device="cpu", threads=1)
QUERIES = {"initial": np.arange(3)}


def record(number, accuracy=0.5, train_s=1.0):
    return {
        "round": number,
        "accuracy": accuracy,
        "train_s": train_s,
        "query_s": 0.0,
    }


def started(out, config=CONFIG):
    folder = RunFolder(out, config)
    folder.check()
    folder.start()
    return folder


def interrupted(out, *records):
    folder = started(out)
    for each in records:
        folder.record(each, QUERIES)
    return folder


def test_folder_and_config(tmp_path):
    folder = started(tmp_path)
    assert folder.path == tmp_path / "digits/mlp/20+10x20/u-herding/seed=0"
    content = json.loads((folder.path / "config.json").read_text())
    assert content["options"]["epochs"] == 100 and content["options"]["threads"] == 1
    assert content["hash"] == CONFIG.hash == RunConfig(device="cpu", threads=1).hash
    assert {"python", "torch", "skal"} <= content["versions"].keys()
    assert str(tmp_path) not in json.dumps(content)


@pytest.mark.parametrize(
    "change", [{"epochs": 5}, {"lr": 0.1}, {"threads": 2}, {"pool_size": 50}]
)
def test_other_configuration_is_refused_and_untouched(tmp_path, change):
    interrupted(tmp_path, record(0))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = RunConfig(**{"device": "cpu", "threads": 1, **change})
    assert other.hash != CONFIG.hash
    ((name, value),) = change.items()
    with pytest.raises(UsageError, match=rf"{name} is .* there and {value} now.*--out"):
        RunFolder(tmp_path, other).check()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"options": 3}', "{"])
def test_unreadable_config_is_refused(tmp_path, content):
    folder = started(tmp_path)
    (folder.path / "config.json").write_text(content)
    with pytest.raises(UsageError, match="config.json that cannot be read"):
        RunFolder(tmp_path, CONFIG).check()


def test_foreign_files_are_refused(tmp_path):
    folder = RunFolder(tmp_path, CONFIG)
    folder.path.mkdir(parents=True)
    folder.check()
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="files but no config.json"):
        folder.check()


def test_stored_rounds_are_compared_and_kept(tmp_path):
    first = interrupted(tmp_path, record(0), record(1))
    before = first.rounds_path.read_bytes()
    queries = (first.path / "queries.npz").read_bytes()
    again = started(tmp_path)
    assert again.stored_rounds == [record(0), record(1)]
    assert again.record(record(0, train_s=9.0), {}) == []
    assert again.record(record(1, accuracy=0.6), {}) == [
        "accuracy 0.5 there and 0.6 now"
    ]
    assert again.rounds_path.read_bytes() == before
    assert (again.path / "queries.npz").read_bytes() == queries
    again.record(record(2), QUERIES)
    assert [r["round"] for r in again.read_rounds()] == [0, 1, 2]


def test_purchases_behind_the_rounds(tmp_path):
    queries = {
        "initial": np.arange(3),
        "round_1": np.arange(3, 5),
        "test": np.arange(9),
    }
    folder = interrupted(tmp_path)
    folder.record({**record(0), "n_queried": 3}, queries)
    (bought,), drawn = started(tmp_path).stored_purchases()
    np.testing.assert_array_equal(bought, [0, 1, 2])
    assert set(drawn) == {"test"}
    assert interrupted(tmp_path / "empty").stored_purchases() == ([], {})


def test_state_is_that_of_the_last_stored_round(tmp_path, monkeypatch):
    folder = interrupted(tmp_path)
    weights = np.zeros(3)
    for number in range(5):
        weights += number > 1  # in place, as training does
        if number == 4:
            monkeypatch.setattr(results, "append_line", lambda *args: None)
        folder.record(record(number), QUERIES, {"w": weights} if number else {})
    again = started(tmp_path)
    assert len(again.stored_rounds) == 4
    np.testing.assert_array_equal(again.stored_state()["w"], [2, 2, 2])
    assert interrupted(tmp_path / "empty").stored_state() == {}


def test_unchanged_state_is_written_once(tmp_path):
    folder = interrupted(tmp_path)
    for number in range(3):
        folder.record(record(number), QUERIES, {"w": np.ones(2)} if number else {})
    again = started(tmp_path)
    np.testing.assert_array_equal(again.stored_state()["w"], [1, 1])
    with np.load(again.path / "strategy.npz") as arrays:
        assert set(arrays) == {"1.w"}


@pytest.mark.parametrize("damage", ["absent", "no zip", "other size", "missing round"])
def test_purchases_that_do_not_fit_are_refused(tmp_path, damage):
    folder = interrupted(tmp_path)
    queries = {"initial": np.arange(2 if damage == "other size" else 3)}
    folder.record({**record(0), "n_queried": 3}, queries)
    if damage == "absent":
        (folder.path / "queries.npz").unlink()
    if damage == "no zip":
        (folder.path / "queries.npz").write_bytes(b"PK no zip")
    if damage == "missing round":
        with folder.rounds_path.open("a") as file:
            file.write(json.dumps({**record(1), "n_queried": 3}) + "\n")
    with pytest.raises(UsageError, match="queries.npz that does not go with rounds"):
        started(tmp_path).stored_purchases()


def test_torn_files_of_a_killed_run_are_removed(tmp_path):
    folder = interrupted(tmp_path, record(0))
    (folder.path / ".queries.npz.x1y2").write_bytes(b"half")
    started(tmp_path)
    assert {path.name for path in folder.path.iterdir()} == {
        "config.json",
        "queries.npz",
        "rounds.jsonl",
    }


def test_options_that_were_unknown_then_have_their_defaults(tmp_path):
    path = started(tmp_path).path / "config.json"
    content = json.loads(path.read_text())
    del content["options"]["epochs"]
    path.write_text(json.dumps(content))
    RunFolder(tmp_path, CONFIG).check()


@pytest.mark.parametrize("torn", ['{"round": 1', '{"round": 1, "accuracy": 0.5}'])
def test_torn_last_line_is_dropped(tmp_path, torn):
    folder = interrupted(tmp_path, record(0))
    with folder.rounds_path.open("a") as file:
        file.write(torn)
    again = interrupted(tmp_path, record(1, accuracy=0.7))
    assert [r["accuracy"] for r in again.read_rounds()] == [0.5, 0.7]
    assert again.rounds_path.read_text().count("\n") == 2


@pytest.mark.parametrize("line", ["not json", '{"round": 5}', "[]", "{}"])
def test_damaged_line_is_refused_and_untouched(tmp_path, line):
    folder = interrupted(tmp_path, record(0))
    content = f"{line}\n" + folder.rounds_path.read_text()
    folder.rounds_path.write_text(content)
    with pytest.raises(UsageError, match="damaged rounds.jsonl, line 1"):
        started(tmp_path)
    assert folder.rounds_path.read_text() == content


def test_done_is_written_last(tmp_path):
    folder = interrupted(tmp_path, record(0))
    assert not folder.done

    def save(file, format):
        assert not folder.done
        file.write(format.encode())

    folder.finish(SimpleNamespace(save=save))
    assert folder.done
    assert (folder.path / "learning_curve.png").read_text() == "PNG"


@pytest.mark.parametrize("lines", [None, "", "whole", "torn"])
def test_done_without_its_rounds_is_refused(tmp_path, lines):
    folder = interrupted(tmp_path, record(0), record(1))
    folder.finish(SimpleNamespace(save=lambda *args, **kwargs: None))
    assert read_run(folder.path).records == [record(0), record(1)]
    text = folder.rounds_path.read_text()
    folder.rounds_path.unlink()
    if lines is not None:
        kept = {"": "", "whole": text[: text.index("\n") + 1], "torn": text[:-1]}
        folder.rounds_path.write_text(kept[lines])
    n_kept = 1 if lines in ("whole", "torn") else 0
    for read in (folder.read_stored, lambda: read_run(folder.path)):
        with pytest.raises(UsageError, match=f"DONE, but {n_kept} of 2 rounds"):
            read()


@pytest.mark.parametrize(
    "file, out", [("save", "save"), ("save", "save/more"), ("save/digits", "save")]
)
def test_a_file_is_no_place_for_results(tmp_path, monkeypatch, file, out):
    monkeypatch.chdir(tmp_path)
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text("mine")
    with pytest.raises(UsageError, match="--out .* cannot hold results, since .* file"):
        RunFolder(out, CONFIG).check()


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="cannot be made .Permission denied"):
        RunFolder(tmp_path, CONFIG).start()
