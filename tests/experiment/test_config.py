from pathlib import Path

import numpy as np
import pytest

from skal.experiment.config import RunConfig
from skal.experiment.options import UsageError


@pytest.mark.parametrize(
    "percent, n_samples, size",
    [("5%", 50_000, 2500), ("100%", 7, 7), ("0.1%", 10, 1), ("29%", 100, 29)],
)
def test_percent_of_the_pool(percent, n_samples, size):
    config = RunConfig(n_initial=1, batch_size=percent)
    assert not config.sizes_known
    resolved = config.resolve_sizes(n_samples)
    assert resolved.sizes_known and resolved.batch_size == size
    assert resolved.hash == RunConfig(n_initial=1, batch_size=size).hash


@pytest.mark.parametrize(
    "percent", ["0%", "101%", "100.5%", "-3%", "five", "5%%", "nan%"]
)
def test_bad_percentages(percent):
    with pytest.raises(UsageError, match=f"--n-initial must be a .*got '{percent}'"):
        RunConfig(n_initial=percent)


def test_fewer_rows_than_the_first_set():
    with pytest.raises(
        UsageError, match="--n-initial 20 is larger than the pool of 19"
    ):
        RunConfig().resolve_sizes(19)


@pytest.mark.parametrize(
    "data, model, folders",
    [
        ("digits", "mlp", "digits/mlp"),
        ("some/where/letters.data", "mlp", "letters.data/mlp"),
        ("./images/", "mlp", "images/mlp"),
        ("openml:61", "nets:Small", "openml-61/nets-Small"),
    ],
)
def test_folder_of_a_run(data, model, folders):
    config = RunConfig(data=data, model=model)
    assert config.run_id == f"{folders}/20+10x20/u-herding/seed=0"


def test_the_hash_tells_strategy_options_apart():
    one, other = (RunConfig(strategy_options=o) for o in ({}, {"width": 1.0}))
    assert one.hash != other.hash
    assert one.hash == RunConfig().hash


@pytest.mark.parametrize(
    "options, message",
    [
        ({"missing_labels": 3}, "--missing-labels must be a text, got 3."),
        ({"epohcs": 3}, "There is no option 'epohcs'; did you mean 'epochs'? Allowed"),
        ({"header": "yes"}, "--header must be true or false, got 'yes'."),
        ({"lr": True}, "--lr must be a number above 0, got True."),
        ({"epochs": 3.0}, "--epochs must be a whole number of at least 1, got 3.0."),
        ({"device": ["cpu"]}, "--device must be a text, got ['cpu']."),
        ({"strategy": 3}, "--strategy cannot be '3'. Allowed are asal, "),
    ],
)
def test_python_is_told_what_the_command_line_is_told(options, message):
    with pytest.raises(UsageError) as found:
        RunConfig(**options)
    assert str(found.value).startswith(message)


def test_numbers_of_numpy_and_paths_are_taken():
    given = {"epochs": np.int64(3), "lr": np.float32(0.5), "data": Path("some/a.csv")}
    config = RunConfig(**given)
    assert (config.epochs, config.lr, config.data) == (3, 0.5, "some/a.csv")
    assert type(config.epochs) is int and type(config.lr) is float
