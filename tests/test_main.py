import os
import subprocess
import sys

import pytest

from skal.experiment.cli import main, strategy_names
from skal.utils import all_strategies, command_line_name


def test_names_read_from_the_source_are_those_discovered():
    discovered = [command_line_name(cls) for _, cls in all_strategies()]
    assert strategy_names() == sorted(discovered)


def test_run_alone_is_a_whole_experiment_on_digits(tmp_path):
    """The defaults, with fewer epochs."""
    command = [sys.executable, "-m", "skal", "run", "--epochs", "1"]
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "badge on digits, mlp, seed 0" in done.stdout
    (folder,) = (tmp_path / "save/digits/mlp/20+10x20/badge").iterdir()
    assert (folder / "DONE").exists()
    assert (folder / "rounds.jsonl").read_text().count("\n") == 11


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["--version"], ["run", "--strategy", "x"]],
)
def test_help_and_bad_names_load_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from skal.__main__ import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'sklearn', 'numpy', 'scipy', 'rich', 'skorch'}\n"
        "print('loaded:', heavy & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("loaded: set()\n")


@pytest.mark.parametrize(
    "arguments, allowed, suggestion",
    [
        (["--strategy", "bagde"], "margin", "badge"),
        (["--strategy", "BadgeQuery"], "margin", "badge"),
        (["--model", "resnet18"], "mlp, cnn, resnet", "resnet"),
        (["--data", "cifar10"], "digits, MNIST", "CIFAR10"),
    ],
)
def test_unknown_names(arguments, allowed, suggestion, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["run", *arguments])
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert allowed in error and f"did you mean {suggestion!r}?" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["--n-initial", "0"],
        ["--batch-size", "-5"],
        ["--n-rounds", "2.5"],
        ["--epochs", "many"],
        ["--lr", "0"],
        ["--lr", "nan"],
        ["--seed", "-1"],
        ["--threads", "0"],
        ["--pool-size", "0"],
    ],
)
def test_numbers_out_of_range(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["run", *arguments])
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert f"argument {arguments[0]}" in error and repr(arguments[1]) in error


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exit:
        main([])
    assert exit.value.code == 2 and "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("debug", [True, False])
def test_tracebacks_only_on_request(monkeypatch, capsys, debug):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("out of luck")

    monkeypatch.setattr("skal.experiment.run.run_experiment", broken)
    assert main(["run", *["--debug"] * debug]) == 1
    error = capsys.readouterr().err
    assert ("Traceback" in error) is debug and "out of luck" in error
