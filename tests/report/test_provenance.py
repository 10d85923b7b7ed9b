"""The commands of a report: pasted, they give the same runs."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from skal.cli import display
from skal.cli.cli import main
from skal.experiment import grid, run
from skal.experiment.config import RunConfig
from skal.report.provenance import Cell, commands, name_cells, unpaired

BASE = {"device": "cpu", "threads": 1, "n_initial": 10, "n_rounds": 3}


def cells_of(runs, out=".", **options):
    """Make cells of (strategy, seeds, strategy_options)."""
    configs = [
        RunConfig(strategy=name, seed=seed, strategy_options=own, **BASE | options)
        for name, seeds, own in runs
        for seed in seeds
    ]
    return [
        Cell(config, Path("save", out, config.run_id), [], {}, {}, True)
        for config in configs
    ]


def configs_of(line, tmp_path, monkeypatch):
    """Give a command to the command line; the configurations of its runs."""
    found = []
    words = shlex.split(line)
    assert words.pop(0) == "skal"
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_experiment", lambda config, **_: found.append(config))
        patch.setattr(display, "print_run", lambda result: None)
        patch.setattr(
            grid, "_run_cell", lambda _, config, *places: found.append(config)
        )
        main([*words, "--out", str(tmp_path)])
    return found


@pytest.mark.parametrize(
    "runs, options, n_commands",
    [
        ([("random", [0, 1], {}), ("margin", [0, 1], {})], {}, 1),
        # Only badge has the option.
        ([("random", [3], {}), ("badge", [3], {"first": "uniform"})], {}, 1),
        ([("random", [0, 1, 2], {}), ("margin", [0, 2], {})], {}, 2),
        # With random, `skal compare` would run more.
        ([("margin", [0, 1], {}), ("entropy", [0, 1], {})], {}, 4),
        (
            [
                ("random", [0], {}),
                ("badge", [0], {"first": "uniform"}),
                ("k-means", [0], {"random_state": 3}),
                # Random would have this option, too.
                ("margin", [0], {"random_state": None}),
            ],
            {},
            4,
        ),
        (
            [("random", [0], {})],
            {
                "data": "my data/it's.csv",
                "label_column": -2,
                "header": False,
                "lr": 0.01,
                "weight_decay": 0.0,
                "threads": 3,
                "dropout": 0.25,
                "pool_size": 500,
            },
            1,
        ),
    ],
)
def test_commands_give_the_same_runs(runs, options, n_commands, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "data" in options:
        file = Path(options["data"])
        file.parent.mkdir()
        file.write_text("".join(f"{n},{'ab'[n % 2]},{-n}\n" for n in range(700)))
    cells = cells_of(runs, **options)
    lines = commands(cells, Path("save"))
    assert len(lines) == n_commands
    found = [
        config for line in lines for config in configs_of(line, tmp_path, monkeypatch)
    ]
    wanted = [cell.config for cell in cells]
    assert all(config in found for config in wanted)
    assert all(config in wanted for config in found)


def test_places_and_folders_have_their_own_commands():
    cells = cells_of([("random", [0], {})])
    cells += cells_of([("random", [1], {})], out="more", device="cuda:0")
    lines = commands(cells, Path("save"))
    assert len(lines) == 2
    assert "--device cpu" in lines[0] and "--out" not in lines[0]
    assert lines[1].endswith("--device cuda:0 --threads 1 --out save/more")
    below = cells[0].path.parent
    assert "--out" not in commands(cells[:1], below)[0]


def test_the_pair_of_random_is_the_right_one():
    cells = cells_of([(name, [0], {}) for name in ("badge", "margin", "random")])
    rows = {"badge": [1, 2], "margin": [1, 2], "random": [3, 4]}
    cells = [
        cell._replace(purchases={"initial": np.array(rows[cell.config.strategy])})
        for cell in cells
    ]
    assert [what for _, what in unpaired(cells)] == ["first labels"] * 2
    assert name_cells(c for c, _ in unpaired(cells)) == (
        "badge (seed 0), margin (seed 0)"
    )
    assert unpaired(cells[:2]) == []
    more = cells_of([("k-means", [0], {})])[0]
    changed = more._replace(stored={"data_fingerprint": "ab"})
    # Without random, most decide.
    ((other, what),) = unpaired([*cells[:2], changed])
    assert other is changed and what == "data and first labels"
