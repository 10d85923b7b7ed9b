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
    assert config.run_id == f"{folders}/20+10x20/badge/seed=0"


def test_the_hash_tells_strategy_options_apart():
    one, other = (RunConfig(strategy_options=o) for o in ({}, {"first": "uniform"}))
    assert one.hash != other.hash
    assert one.hash == RunConfig().hash
