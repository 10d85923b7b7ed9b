import json
from pathlib import Path

import numpy as np
import pytest
import torch

from skal.cli.cli import main
from skal.datasets import load_dataset
from skal.experiment.config import GridConfig, RunConfig
from skal.experiment.features import with_features
from skal.experiment.grid import compare
from skal.experiment.networks import build_estimator
from skal.experiment.options import UsageError
from skal.experiment.results import read_run
from skal.experiment.run import run_experiment
from skal.models import FrozenFeatures

NAME = "torchvision:shufflenet_v2_x0_5"
SIZES = {"n_initial": 12, "batch_size": 5, "n_rounds": 1, "epochs": 2}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Random weights where torchvision looks for them; no network."""
    from torchvision import models

    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    url = models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    torch.manual_seed(0)
    torch.save(models.shufflenet_v2_x0_5().state_dict(), folder / Path(url).name)
    return folder / Path(url).name


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = rng.integers(0, 200, (40, 8, 8, 3)) + 50 * labels[:, None, None, None]
    path = tmp_path / "images.npz"
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return str(path)


@pytest.fixture
def passed(monkeypatch):
    """Numbers of rows that a backbone has seen."""
    seen, compute = [], FrozenFeatures._compute

    def counted(self, backbone, items, rows, *args, **kwargs):
        seen.append(len(rows))
        return compute(self, backbone, items, rows, *args, **kwargs)

    monkeypatch.setattr(FrozenFeatures, "_compute", counted)
    return seen


def test_a_run_with_a_backbone(weights, images, tmp_path, passed):
    config = RunConfig(data=images, backbone=NAME, pool_size=20, **SIZES)
    assert config.model == "linear"
    places = {"out": tmp_path / "save", "backbone_cache": tmp_path / "cache"}
    calls = []
    result = run_experiment(config, on_features=lambda *c: calls.append(c), **places)
    assert passed == [20, 8] and calls == [(20, 20), (8, 8)]
    stored = json.loads((result.path / "config.json").read_text())["options"]
    assert stored["backbone"] == NAME and stored["model"] == "linear"
    assert result.records[0]["model"] == f"{NAME}+linear"
    assert read_run(result.path).records == result.records
    # Another run reads the features of the pool and of the test rows.
    places["out"] = tmp_path / "other"
    again = run_experiment(config, **places)
    assert passed == [20, 8]
    for key in ("accuracy", "nll"):
        assert [r[key] for r in again.records] == [r[key] for r in result.records]
    other = RunConfig(data=images, pool_size=20, model="linear", **SIZES)
    assert other.run_id != config.run_id


def test_features_have_one_length(weights, images):
    data = load_dataset(images)
    config = RunConfig(data=images, backbone=NAME, device="cpu")
    found = with_features(config, data, np.array([7, 3]), cache="")
    features = FrozenFeatures(NAME).transform(data.X_train[[7, 3]])
    assert found.X_train.dtype == np.float32 and found.image_shape == (1024,)
    np.testing.assert_allclose((found.X_train**2).mean(1), 1, rtol=1e-5)
    cosines = (features * found.X_train).sum(1) / np.linalg.norm(features, axis=1)
    np.testing.assert_allclose(cosines, 32, rtol=1e-5)


def test_a_grid_with_a_backbone(weights, images, tmp_path, passed):
    options = {"out": tmp_path / "save", "backbone_cache": tmp_path / "cache"}
    comparison = compare(["margin"], 1, data=images, backbone=NAME, **options, **SIZES)
    assert not comparison.failures and len(comparison.results) == 2
    assert sorted(passed) == [2, 2, 8, 32]


def test_command_line(weights, images, tmp_path, capsys, passed):
    words = ["run", "--data", images, "--backbone", NAME, "--n-rounds", "0"]
    words += ["--n-initial", "12", "--epochs", "1", "--out", str(tmp_path / "save")]
    words += ["--backbone-cache", str(tmp_path / "cache")]
    assert main(words) == 0
    assert f"{NAME}+linear" in capsys.readouterr().out.replace("\n", "")
    assert main([*words, "--model", "mlp"]) == 0
    assert passed == [32, 8]


def test_bad_requests_are_named(weights, images, tmp_path):
    with pytest.raises(UsageError, match="--backbone must be torchvision:NAME"):
        RunConfig(backbone="resnet18")
    table = tmp_path / "table.csv"
    table.write_text("".join(f"{i},{i % 7},{i % 2}\n" for i in range(40)))
    for data, match in (
        (str(table), "takes images.*of a table"),
        (images, "are damaged.*Remove"),
    ):
        if data == images:
            weights.write_bytes(b"damaged")
        config = RunConfig(data=data, backbone=NAME, **SIZES)
        with pytest.raises(UsageError, match=match):
            run_experiment(config, out=tmp_path / "save")
        with pytest.raises(UsageError, match=match):
            compare(["margin"], 1, data=data, backbone=NAME, out=tmp_path / "save")
    assert not (tmp_path / "save").exists()


def test_linear_is_one_layer_on_standardised_rows():
    from sklearn.utils import Bunch

    X = np.random.default_rng(0).normal(3, 2, (20, 5)).astype(np.float32)
    data = Bunch(X_train=X, classes=tuple("abc"), image_shape=(5,), augmentation=None)
    data.update(mean=X.mean(0), std=X.std(0))
    config = RunConfig(model="linear", device="cpu")
    module = build_estimator(config, data).initialize().module_
    shapes = [tuple(p.shape) for p in module.parameters()]
    assert shapes == [(3, 5), (3,)]
    with pytest.raises(UsageError, match="--dropout 0.5 is nothing for --model 'lin"):
        build_estimator(RunConfig(model="linear", dropout=0.5, device="cpu"), data)
    assert GridConfig(backbone=NAME, model="mlp").model == "mlp"
