"""The command line: options, files of options, messages, and what they leave alone."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from skal.cli.cli import main
from skal.experiment import grid as grid_module
from skal.experiment.config import RunConfig
from skal.experiment.names import STRATEGIES
from skal.experiment.options import UsageError


@pytest.mark.slow
def test_run_alone_is_a_whole_experiment_on_digits(tmp_path):
    """The defaults, with fewer epochs."""
    command = [sys.executable, "-m", "skal", "run", "--epochs", "1"]
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "u-herding on digits, mlp, seed 0" in done.stdout
    (folder,) = (tmp_path / "save/digits/mlp/20+10x20/u-herding").iterdir()
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
        "heavy = {'torch', 'sklearn', 'numpy', 'scipy', 'pandas', 'skorch'}\n"
        "heavy.add('jinja2')\n"
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
        (["--optimizer", "adams"], "adam, sgd", "adam"),
        (["--initial", "balance"], "uniform, balanced", "balanced"),
    ],
)
def test_unknown_names(arguments, allowed, suggestion, capsys):
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"skal: {arguments[0]} cannot be {arguments[1]!r}")
    assert allowed in error and f"did you mean {suggestion!r}?" in error
    assert error.count("\n") == 1


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
        ["--batch-size", "101%"],
        ["--n-initial", "0%"],
        ["--n-initial", "five%"],
        ["--patience", "-1"],
        ["--momentum", "1"],
        ["--weight-decay", "-0.1"],
        ["--test-size", "1.5"],
        ["--test-size", "0"],
        ["--strategy-option", "first"],
        ["--strategy-option", "first={1}"],
    ],
)
def test_numbers_out_of_range(arguments, capsys):
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"skal: {arguments[0]} must ")
    assert repr(arguments[1]) in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("rnu", "Did you mean run?"),
        ("run extra", "unexpected arguments: extra;"),
        ("run --seed 3 --header yes", "unexpected arguments: yes;"),
        ("run --header=no", "--header takes no value, got 'no'"),
        ("list --debug=1", "--debug takes no value, got '1'"),
        ("run --n_rounds 3", "Unknown option: --n_rounds. Did you mean --n-rounds?"),
        ("run --epohcs 3", "Did you mean --epochs?"),
        ("run --epoch 3", "Did you mean --epochs?"),
        ("run --strategy-option.first uniform", "Did you mean --strategy-option?"),
        ("run --lr", "--lr requires an argument"),
        ("show", "FOLDER requires an argument"),
        ("show nothing", "'nothing' is not the folder of a run."),
        ("compare --strategies", "--strategies"),
        (
            "compare --strategies badge --strategies margin",
            "given more than once; list",
        ),
        ("compare --seed-list=1 --seed-list 2", "--seed-list is given more than once"),
    ],
)
def test_words_in_the_wrong_place(arguments, message, capsys):
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("skal: ") and error.count("\n") == 1
    assert message in error.replace('"', "")


def test_the_last_of_an_option_counts(configs):
    main("run --seed 1 --strategy margin --seed 2 --label-column -1 --lr=1e-1".split())
    assert configs[0][0] == RunConfig(seed=2, strategy="margin", lr=0.1)


def test_no_command_is_a_usage_error(capsys):
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("debug", [True, False])
def test_tracebacks_only_on_request(monkeypatch, capsys, debug):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("out of\n\nluck")

    monkeypatch.setattr("skal.experiment.run.run_experiment", broken)
    assert main(["run", *["--debug"] * debug]) == 1
    error = capsys.readouterr().err
    if debug:
        assert "Traceback" in error
    else:
        assert error == "skal: out of luck\n"


@pytest.fixture
def configs(monkeypatch):
    """The configurations that runs would have had."""
    found = []

    def note(config, **where):
        found.append((config, where["out"]))
        raise ZeroDivisionError

    monkeypatch.setattr("skal.experiment.run.run_experiment", note)
    return found


def test_options_of_a_file_and_of_the_command_line(tmp_path, configs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.toml"
    file.write_text(
        'n-rounds = 3\nbatch_size = "5%"\nlr = 1e-2\nheader = false\nout = "there"\n'
        'seed = 4\nmodel = "nets:Small"\nstrategy = "k-means"\n'
        "[strategy-option]\nn_init = 2\nmax_iter = 9\n"
    )
    more = ["--seed=5", "--strategy-option=n_init=7", "--label-column", "0"]
    assert main(["run", *more, "--config", str(file)]) == 1
    ((config, out),) = configs
    assert out == "there"
    assert config == RunConfig(
        n_rounds=3,
        batch_size="5%",
        lr=0.01,
        header=False,
        seed=5,
        model="nets:Small",
        strategy="k-means",
        strategy_options={"n_init": 7, "max_iter": 9},
        label_column=0,
    )


def test_strategy_options_are_literals_or_text(configs):
    options = ["a=1", "b__c=uniform", "d=(1, 2)", "e=None", "f='1'", "g=x=y", "a=2"]
    assert main(["run", *(f"--strategy-option={each}" for each in options)]) == 1
    assert main(["run"]) == 1
    assert configs[0][0].strategy_options == {
        "a": 2,
        "b__c": "uniform",
        "d": (1, 2),
        "e": None,
        "f": "1",
        "g": "x=y",
    }
    assert configs[1][0] == RunConfig()


@pytest.mark.parametrize(
    "content, match",
    [
        ("n_round = 3", "unknown key 'n_round'; did you mean 'n-rounds'? Allowed are "),
        ("debug = true", "unknown key 'debug'"),
        ("n-rounds = -1", "n-rounds must be a whole number of at least 0, got -1"),
        ("n-rounds = true", "n-rounds must be a whole number of at least 0, got True"),
        ("n-rounds = [1]", "n-rounds must be a whole number of at least 0, got [1]"),
        ('header = "yes"', "header must be true or false, got 'yes'"),
        ("strategy-option = 1", "strategy-option must be a table, got 1"),
        ('strategy-option = ["a=1"]', "strategy-option must be a table, got ['a=1']"),
        ("strategy-option.a = 1979-05-27", "strategy-option must be a number"),
        ('strategy = "bagde"', "strategy cannot be 'bagde'; did you mean 'badge'?"),
        ("n-rounds 3", "is not TOML: "),
        (b"\xff = 1", "is not TOML: "),
        (None, "No such file"),
    ],
)
def test_bad_files(tmp_path, configs, capsys, content, match):
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["run", "--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"skal: --config {file}") and error.count("\n") == 1
    assert match in error
    assert configs == []


def test_list_names_every_strategy(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in STRATEGIES)
    assert "2020" in printed and "embeddings" in printed


def test_list_says_more_of_one_strategy(capsys):
    assert main(["list", "bald-ensemble"]) == 0
    printed = capsys.readouterr().out
    assert "Houlsby" in printed and "Reads: sample_proba" in printed
    assert "--strategy-option posterior__n_members=5" in printed
    assert main(["list", "blad"]) == 2
    assert "NAME cannot be 'blad'; did you mean 'bald'?" in capsys.readouterr().err


@pytest.mark.slow
def test_a_module_of_the_present_folder(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def small(n_classes, n_inputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, n_classes))\n"
    )
    script = "import sys; sys.path.remove(''); from skal.__main__ import main; "
    options = "run --model nets:small --epochs 1 --n-rounds 1 --batch-size 2%".split()
    done = subprocess.run(
        [sys.executable, "-c", f"{script}sys.exit(main({options}))"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "save/digits/nets-small/20+1x28/u-herding/seed=0/DONE").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--backend dask", "one run need --n-parts"),
        ("--scheduler a:1", "one run need --n-parts"),
        ("--n-parts 4 --scheduler a:1", "needs --backend dask"),
        ("--n-parts 4 --backend dask --scheduler a", "must be HOST:PORT"),
        ("--n-parts 4 --backend dusk", "did you mean 'dask'?"),
        ("--n-parts 0", "--n-parts must be a whole number of at least 1"),
        ("--max-rows 3", "--max-rows 3 is less than --batch-size 20"),
        ("--memory-limit 2X", "--memory-limit must be a positive number of bytes"),
    ],
)
def test_parts_that_cannot_be_met(arguments, message, capsys, tmp_path):
    assert main(["run", *arguments.split(), "--out", str(tmp_path / "o")]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_where_parts_of_a_run_are_worked_at_changes_no_round(tmp_path, capsys):
    command = "run --strategy badge --n-parts 4 --n-rounds 2 --epochs 2 --out"
    rounds = []
    for name, more in (("here", ""), ("there", "--backend loky --n-jobs 2")):
        assert main([*command.split(), str(tmp_path / name), *more.split()]) == 0
        (path,) = (tmp_path / name).glob("**/rounds.jsonl")
        records = [json.loads(line) for line in path.read_text().splitlines()]
        rounds.append(
            [{k: v for k, v in r.items() if not k.endswith("_s")} for r in records]
        )
        capsys.readouterr()
    assert len(rounds[0]) == 3
    assert rounds[0] == rounds[1]


def test_a_run_that_fails_stops_no_other(tmp_path, capsys):
    command = "compare --strategies bald --seeds 1 --dropout 0 --n-rounds 1 --epochs 1"
    assert main([*command.split(), "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "failed: bald, seed 0: --model 'mlp'" in printed.err
    assert "no active dropout" in printed.err
    assert "random" in printed.out and "runs what failed again" in printed.out


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_from_a_file(ending, tmp_path, capsys):
    path = tmp_path / f"grid.{ending}"
    text = {
        "toml": 'strategies = ["margin"]\nseed-list = [4]\nn-rounds = 1\nepochs = 1\n',
        "yaml": "strategies: [margin]\nseed-list: [4]\nn-rounds: 1\nepochs: 1\n",
    }
    path.write_text(text[ending])
    assert main(["compare", "--config", str(path), "--out", str(tmp_path / "o")]) == 0
    runs = sorted(p.parent.relative_to(tmp_path) for p in tmp_path.glob("o/**/DONE"))
    assert [str(p) for p in runs] == [
        f"o/digits/mlp/20+1x20/{name}/seed=4" for name in ("margin", "random")
    ]
    options = json.loads((tmp_path / runs[0] / "config.json").read_text())["options"]
    assert options["epochs"] == 1 and options["threads"] == 1


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "strategies: margin\n",
            "strategies must be a list of at least one",
        ),
        ("strategies: [margin\n", "is not YAML"),
        ("3: margin\n", "unknown key '3'"),
        ("seeds: 2\nseed-list: [4]\n", "seed-list is not allowed with --seeds"),
        ("n-jobs: 2\nn_jobs: 2\n", "'n_jobs' gives 'n_jobs' a second time"),
        ("- margin\n", "must be a table of options"),
        ("seed: 3\n", "unknown key 'seed'"),
        ("backend: spark\n", "backend cannot be 'spark'. Allowed are loky, dask, ray"),
    ],
)
def test_files_that_cannot_be_used(text, message, tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(text)
    assert main(["compare", "--config", str(tmp_path / "grid.yaml")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            "--seeds 2 --seed-list 3",
            "--seed-list is not allowed with --seeds; give one",
        ),
        ("--strategy margin", "Did you mean --strategies?"),
        ("--seed 3", "Did you mean --seeds?"),
        ("--n-jobs 0", "at least 1, got '0'; or -1 for one a core"),
    ],
)
def test_command_lines_that_cannot_be_met(arguments, message, capsys):
    assert main(["compare", *arguments.split()]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("skal: ") and printed.count("\n") == 1
    assert message in printed.replace('"', "")


def test_seeds_of_the_command_line_win(tmp_path, monkeypatch):
    path = tmp_path / "grid.toml"
    path.write_text("seed-list = [4, 5]\n")
    seen = []

    def stop(strategies, seeds, **options):
        seen.append(seeds)
        raise UsageError("enough")

    monkeypatch.setattr(grid_module, "compare", stop)
    for arguments in ([], ["--seeds", "2"], ["--seed-list", "9"]):
        assert main(["compare", "--config", str(path), *arguments]) == 2
    assert seen == [[4, 5], 2, [9]]


@pytest.fixture
def example_package(tmp_path):
    """Environment in which the example package is installed."""
    example = Path(__file__).parents[1] / "example_package"
    content = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    points = content["entry-points"]["skal.strategies"]
    folder = tmp_path / "site/skal_example-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Name: skal-example\nVersion: 1.0\n")
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (folder / "entry_points.txt").write_text("[skal.strategies]\n" + "".join(lines))
    paths = [os.getcwd(), str(folder.parent), str(example)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.slow
def test_strategies_of_another_package(tmp_path, example_package):
    def skal(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "skal", *arguments],
            cwd=tmp_path,
            env=example_package,
            capture_output=True,
            text=True,
            check=False,
        )

    left_out = "skal: warning: the strategy 'broken', skal_example.broken:BrokenQuery"
    listed = skal("list")
    assert "variation-ratio" in listed.stdout and "1965" in listed.stdout
    assert "broken" not in listed.stdout and left_out in listed.stderr
    quick = "--epochs 1 --n-rounds 1 --seeds 1".split()
    done = skal("compare", "--strategies", "variation-ratio", *quick)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "save/digits/mlp/20+1x20/variation-ratio/seed=0/DONE").exists()
    wrong = skal("run", "--strategy", "variation-ration")
    assert wrong.returncode == 2
    assert "did you mean 'variation-ratio'?" in wrong.stderr
    for name in ("broken", "variation-ratio-dropout"):
        wrong = skal("run", "--strategy", name)
        assert wrong.returncode == 2
        assert f"--strategy cannot be '{name}'" in wrong.stderr


def test_strategies_of_another_package_are_not_imported_for_the_help(example_package):
    code = (
        "import sys\n"
        "from skal.cli.cli import main\n"
        "main(['run', '--help'])\n"
        "main(['run', '--strategy', 'nothing'])\n"
        "from skal.experiment.config import RunConfig\n"
        "RunConfig(strategy='variation-ratio')\n"
        "print([name for name in sys.modules if name.startswith('skal_example')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=example_package,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "variation-ratio" in done.stderr and done.stdout.endswith("\n[]\n")
