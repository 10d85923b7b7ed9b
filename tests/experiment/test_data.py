import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.utils import Bunch
from torch.utils.data import Dataset

from skal.cli.cli import main
from skal.datasets._images import ImageFiles
from skal.experiment import run
from skal.experiment.config import RunConfig
from skal.experiment.data import fingerprint, load_data
from skal.experiment.options import UsageError
from skal.experiment.run import run_experiment

QUICK = {"n_rounds": 1, "epochs": 2, "device": "cpu", "threads": 1}


@pytest.fixture
def table(tmp_path):
    """A text file of three classes and three columns, one of them constant."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    columns = rng.normal(labels[:, None] * 3, 1, size=(120, 2))
    lines = [f"{'abc'[k]},{x},7,{z}" for k, (x, z) in zip(labels, columns, strict=True)]
    path = tmp_path / "table.data"
    path.write_text("\n".join(lines))
    return path


def test_a_table(table, tmp_path):
    config = RunConfig(
        data=str(table), label_column=0, header=False, test_size=30, **QUICK
    )
    result = run_experiment(config, out=tmp_path / "save")
    assert result.path == tmp_path / "save/table.data/mlp/20+1x20/u-herding/seed=0"
    assert result.records[0]["dataset"] == "table.data"
    assert len(result.records[0]["acquired_class_counts"]) == 3
    with np.load(result.path / "queries.npz") as queries:
        assert len(queries["test"]) == 30


def test_a_test_file_of_its_own(table, tmp_path):
    config = RunConfig(data=str(table), test_data=str(table), label_column=0, **QUICK)
    data = load_data(config)
    assert data.X_train.shape == data.X_test.shape == (120, 3)
    result = run_experiment(config, out=tmp_path / "save")
    with np.load(result.path / "queries.npz") as queries:
        assert set(queries) == {"initial", "round_1"}


def test_options_of_a_text_file(table):
    text = table.read_text().replace(",", ";").replace(".", ",").replace("a;", "NA;")
    table.write_text(text)
    options = {"separator": ";", "decimal": ",", "missing_labels": ""}
    config = RunConfig(data=str(table), label_column=0, **options)
    assert load_data(config).classes == ("NA", "b", "c")
    assert config.hash != RunConfig(data=str(table), label_column=0).hash
    message = "'NA' in rows 0.*say with --missing-labels"
    with pytest.raises(UsageError, match=message):
        load_data(RunConfig(data=str(table), label_column=0))


@pytest.mark.parametrize(
    "options, match",
    [
        ({"separator": ";;"}, "^--separator ';;' must be one character"),
        ({"separator": "|"}, "one column only.*as in --separator ':'"),
        ({"separator": ",", "decimal": ","}, "^--decimal ',' must be .* not the sep"),
        ({"decimal": "x"}, "^--decimal cannot be 'x'"),
        ({"background": "no"}, "^--background 'no' must be a colour"),
        ({"background": "red"}, "^--background 'red' does not apply"),
        ({"model": "cnn"}, r"--model cnn needs images.*\(3,\)"),
        ({"n_initial": 97}, "--n-initial 97 is larger than the pool of 96 rows"),
        ({"batch_size": "120%"}, "--batch-size must be a percentage.*120%"),
        ({"label_column": 9}, "--label-column 9 must be a name"),
        (
            {"header": False, "label_column": "x"},
            "--label-column 'x' is a.*--no-header",
        ),
        ({"test_data": "nothing.data"}, "--test-data 'nothing.data' does not exist"),
        ({"data": "nothing.data"}, "^--data 'nothing.data' does not exist"),
        ({"data": "digits", "header": True}, "^--header does not apply"),
        ({"test_size": 120}, "^--test-size 120 must leave.*or --test-data"),
        ({"model": "no_such_module:Net"}, "cannot be imported"),
        ({"strategy_options": {"x": 1}}, "no option x"),
    ],
)
def test_bad_input_leaves_no_folder(table, tmp_path, options, match):
    options = {"data": str(table), "label_column": 0, **QUICK, **options}
    out = tmp_path / "save"
    with pytest.raises(UsageError, match=match):
        run_experiment(RunConfig(**options), out=out)
    assert not out.exists()


HEADLESS = """
from torch import nn


class Headless(nn.Module):
    def __init__(self, n_classes, n_inputs):
        super().__init__()
        self.fc = nn.Linear(n_inputs, n_classes)

    def forward(self, x):
        return self.fc(x.flatten(1)) * 2
"""


def test_a_model_without_an_embedding_layer(tmp_path, monkeypatch):
    (tmp_path / "headless_of_a_user.py").write_text(HEADLESS)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"model": "headless_of_a_user:Headless", **QUICK}
    out = tmp_path / "save"
    with pytest.raises(UsageError, match="--embedding-layer 'fc'; the layers are"):
        run_experiment(RunConfig(**options), out=out)
    assert not out.exists()
    run_experiment(RunConfig(**options, strategy="margin"), out=out)
    options |= {"strategy": "k-center-greedy", "embedding_layer": "fc"}
    assert len(run_experiment(RunConfig(**options), out=out).records) == 2


class Images(Dataset):
    """Images that know their labels, which nobody may look at."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return self.X[row], -1


@pytest.mark.parametrize("pool_size", [None, 60])
def test_a_dataset_gives_the_numbers_of_its_array(tmp_path, monkeypatch, pool_size):
    config = RunConfig(pool_size=pool_size, **QUICK)
    expected = run_experiment(config, out=tmp_path / "array").records
    data = load_data(config)
    data.X_train, data.X_test = Images(data.X_train), Images(data.X_test)
    monkeypatch.setattr(run, "load_data", lambda *args: data)
    found = run_experiment(config, out=tmp_path / "dataset").records
    for one, other in zip(found, expected, strict=True):
        assert one["acquired_class_counts"] == other["acquired_class_counts"]
        assert one["nll"] == pytest.approx(other["nll"])


def test_fingerprint():
    rows = np.arange(6000.0).reshape(3000, 2)
    parts = {"y_train": np.arange(3), "X_test": rows[:2], "y_test": np.arange(2)}
    one = fingerprint(Bunch(X_train=rows, **parts))
    assert one == fingerprint(Bunch(X_train=rows[:, ::-1][:, ::-1], **parts))
    other = rows.copy()
    other[-1, 0] = 0
    assert one != fingerprint(Bunch(X_train=other, **parts))
    assert one != fingerprint(Bunch(X_train=Images(rows), **parts))


def test_fingerprint_of_files(tmp_path):
    def mark(folder="a", sizes=(3, 4), names=("0.png", "1.png")):
        paths = [tmp_path / folder / name for name in names]
        paths[0].parent.mkdir(exist_ok=True)
        for path, size in zip(paths, sizes, strict=True):
            path.write_bytes(bytes(size))
        y = np.arange(2)
        files = ImageFiles(paths, y, (1, 2, 2))
        return fingerprint(Bunch(X_train=files, y_train=y, X_test=files, y_test=y))

    one = mark()
    assert mark("b") == one
    assert len({one, mark(sizes=(3, 5)), mark(names=("0.png", "2.png"))}) == 3


def save_folder(path, n_images=40):
    images = np.random.default_rng(0).integers(0, 256, (n_images, 8, 8), np.uint8)
    for row, image in enumerate(images):
        folder = path / "ab"[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row}.png")


def test_a_changed_folder_of_images_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("skal.datasets._images._IN_MEMORY", 0)
    save_folder(tmp_path / "images")
    options = {"n_initial": 10, "batch_size": 5, "strategy": "margin"}
    config = RunConfig(data=str(tmp_path / "images"), **options, **QUICK)
    out = tmp_path / "save"
    result = run_experiment(config, out=out)
    (result.path / "DONE").unlink()
    run_experiment(config, out=out)
    (result.path / "DONE").unlink()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images/a/0.png")
    with pytest.raises(UsageError, match="rounds of other data: it has changed since"):
        run_experiment(config, out=out)


def test_a_damaged_image_that_is_read_late_ends_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("skal.datasets._images._IN_MEMORY", 0)
    save_folder(tmp_path / "train")
    save_folder(tmp_path / "test", 10)
    damaged = tmp_path / "test/b/3.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:60])  # the head is there
    options = {"--data": "train", "--test-data": "test", "--out": "save"}
    options = [f"{flag}={tmp_path / name}" for flag, name in options.items()]
    options += [f"--{name.replace('_', '-')}={QUICK[name]}" for name in QUICK]
    command = ["run", *options, "--n-initial=10", "--batch-size=5"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "3.png' is a damaged image" in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.rglob("save/**/*.*")] == ["config.json"]
    damaged.write_bytes(whole)
    assert main(command) == 0


def test_warnings_take_one_line(table, tmp_path, capsys):
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:40], lines[-1]]))
    options = [f"--data={table}", "--label-column=0", f"--out={tmp_path / 'save'}"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["run", *options, "--n-initial=500"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("skal: warning: The classes ['c'] have one row each")
    assert second.startswith("skal: --n-initial 500 is larger than")
