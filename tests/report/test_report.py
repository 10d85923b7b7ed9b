"""The report of a folder of runs: its numbers, and what is missing."""

import csv
import json
import re
import sys
import tomllib
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from skal.__main__ import main
from skal.experiment.config import RunConfig
from skal.experiment.options import UsageError
from skal.report import report
from skal.report.report import COLUMNS, write_report


def make_run(
    folder,
    strategy,
    seed,
    accuracies,
    *,
    done=True,
    first=0,
    stored=None,
    n_initial=10,
    n_rounds=2,
    pool=None,
    **options,
):
    """Write the files of a run of two rounds of ten labels after the first ten."""
    config = RunConfig(
        strategy=strategy,
        seed=seed,
        n_initial=n_initial,
        batch_size=10,
        n_rounds=n_rounds,
        **{"threads": 1, "device": "cpu", **options},
    )
    path = folder / config.run_id
    path.mkdir(parents=True)
    content = {"options": vars(config), "versions": {"skal": "0"}, "hash": config.hash}
    content |= {"data_fingerprint": "ab", "device_name": "x86_64", **(stored or {})}
    (path / "config.json").write_text(json.dumps(content))
    with (path / "rounds.jsonl").open("w") as file:
        for number, accuracy in enumerate(accuracies):
            record = {
                "dataset": "digits",
                "model": "mlp",
                "strategy": strategy,
                "seed": seed,
                "round": number,
                "n_labeled": n_initial + 10 * number,
                "n_queried": 10 if number else n_initial,
                "accuracy": accuracy,
                "balanced_accuracy": accuracy,
                "nll": 0.5,
                "ece": 0.1,
                "train_s": 1.0,
                "query_s": 0.5 * (number > 0),
                "acquired_class_counts": [5, 5],
            }
            file.write(json.dumps(record) + "\n")
    rows = np.arange(10) + (100 if strategy == "random" else 5)
    bought = {"initial": first + np.arange(n_initial)}
    bought |= {f"round_{k}": rows + 10 * k - 10 for k in range(1, len(accuracies))}
    if pool is not None:
        bought["pool"] = pool
    np.savez(path / "queries.npz", **bought)
    if done:
        (path / "DONE").write_text(f"{config.hash}\n{len(accuracies)} rounds\n")
    return path


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "random", seed, [0.5, 0.6 + seed / 100, 0.7])
        make_run(tmp_path, "margin", seed, [0.5, 0.7 + seed / 100, 0.8])
    return tmp_path


def text_of(report):
    """Words of the page, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", report.page.read_text()))


def test_numbers_of_the_page(folder):
    report = write_report(folder)
    text = text_of(report)
    assert report.notes == []
    # Area of (0.5, 0.71, 0.8) is 0.68, of (0.5, 0.61, 0.7) 0.605: 0.075 more.
    assert "margin 0.680 ± 0.012 +0.075 to +0.075 ▲ ahead 0.800 ± 0.000" in text
    # Seconds of a query are means over the rounds that have one.
    assert "margin 3 0.500 ± 0.000 0.100 ± 0.000 1.000 1.00 0.50" in text
    # Areas of random: 0.6, 0.605 and 0.61.
    assert "random's area has a standard deviation of 0.005" in text
    # Random's 0.7 is reached with 20 labels, by seed 0 exactly; random needs 30.
    assert "labels to 0.700" in text and "20 / 20 / 20" in text
    assert "30 / 30 / 30" in text
    # Margin wins at 20 and 30 labels, of three checkpoints; nothing is lost.
    assert re.search(r"better margin random margin 0\.67 random 0\.00", text)
    assert "is beaten 0.00 0.33" in text
    assert "margin 1.00" in text and "random 2.00" in text


def test_page_stands_alone(folder):
    page = write_report(folder).page.read_text()
    # Accuracy, its paired difference, NLL, ECE and class balance.
    assert page.count("<figure>") == 5
    for link in re.findall(r"""(?:src|href)=["']([^"']*)""", page):
        assert link[0] == "#" and f'id="{link[1:]}"' in page
    assert "<script" not in page and "url(" not in page


def test_numbers_stand_with_their_strategies(tmp_path):
    """Also where the strategies do not come in the order of the alphabet."""
    for seed in range(2):
        make_run(tmp_path / "1", "random", seed, [0.5, 0.6, 0.7])
        make_run(tmp_path / "2", "margin", seed, [0.5, 0.8, 0.9])
        make_run(tmp_path / "3", "badge", seed, [0.3, 0.4, 0.5])
    text = text_of(write_report(tmp_path))
    zero = "± 0.000"
    assert (
        f"margin 0.750 {zero} +0.150 to +0.150 ▲ ahead 0.900 {zero} 20 / 20 / 20 44% "
        f"random 0.600 {zero} 0.700 {zero} 30 / 30 / 30 "
        f"badge 0.400 {zero} -0.200 to -0.200 ▼ behind 0.500 {zero} "
        "never / never / never never there"
    ) in text
    rows = "random 0.00 1.00 margin 0.67 1.00 badge 0.00 0.00"
    assert f"better random margin badge {rows}" in text


def test_texts_are_escaped(folder, monkeypatch):
    name, read = "<b title='x'>\"&amp;<br>", report.read_cell

    def rename(path):
        cell = read(path)
        mine = cell.config.strategy.replace("margin", name)
        config = cell.config.model_copy(update={"strategy": mine, "data": name})
        records = [{**record, "strategy": mine} for record in cell.records]
        stored = {"training": name, "device_name": name}
        return cell._replace(config=config, records=records, stored=stored)

    monkeypatch.setattr(report, "read_cell", rename)
    written = write_report(folder)
    page = written.page.read_text()
    assert "<b " not in page and "<br>" not in page and "&amp;amp;" in page
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))
    # Title, header and rows of all five tables, note and command.
    assert f"Active learning on {name}" in text
    assert f"better {name} random" in text and f"overlap {name} random" in text
    assert f"{name} 0.680 ± 0.012" in text and f"{name} 3 0.500" in text
    assert f"{name} is trained unlike the others: {name}" in text
    assert f"cpu ({name}), 1 thread" in text
    with written.csv.open() as file:
        assert {row["strategy"] for row in csv.DictReader(file)} == {"random", name}


def test_without_matplotlib(folder, monkeypatch):
    make_run(folder, "random", 0, [0.9], n_initial=50, n_rounds=0)
    for module in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    text = text_of(write_report(folder))
    assert "is beaten 0.00 0.33" in text
    assert "Trained on all 50 labels: 0.900." in text


def test_runs_that_have_no_round_yet(tmp_path):
    make_run(tmp_path, "margin", 0, [], done=False)
    written = write_report(tmp_path)
    assert written.csv.read_text() == ",".join(COLUMNS) + "\n"
    text = text_of(written)
    assert "margin, seed 0, has 0 of 3 rounds and is left out" in text
    assert "No run has ended yet." in text


def test_templates_are_installed():
    root = Path(report.__file__).parents[2]
    if not (root / "pyproject.toml").exists():
        pytest.skip("not in a checkout")
    project = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["skal.report"]
    for path in Path(report.__file__).parent.iterdir():
        assert path.suffix in (".py", "") or any(map(path.match, patterns)), path


def test_csv_has_a_row_a_round(folder):
    with write_report(folder).csv.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS and len(rows) == 18
    assert rows[0]["n_initial"] == "10" and rows[0]["batch_size"] == "10"


def test_reports_are_the_same_again(folder):
    first = [path.read_bytes() for path in write_report(folder)[:2]]
    assert first == [path.read_bytes() for path in write_report(folder)[:2]]


def test_what_is_missing_is_said(folder):
    make_run(folder, "badge", 0, [0.5, 0.9], done=False)
    make_run(folder, "entropy", 1, [0.5, 0.6, 0.7])
    report = write_report(folder)
    text = text_of(report)
    for missing in (
        "badge, seed 0, has 2 of 3 rounds and is left out",
        "entropy has no seed 0, 2",
    ):
        assert missing in text
        assert any(missing in note for note in report.notes)
    assert "not paired" in text


def test_other_training_is_said(folder):
    for seed in range(3):
        stored = {"training": "semi-supervised: it sees the pool"}
        make_run(folder, "waal", seed, [0.5, 0.6, 0.7], stored=stored)
    said = "waal is trained unlike the others: semi-supervised: it sees the pool"
    report = write_report(folder)
    assert text_of(report).count(said) == 1
    (note,) = [note for note in report.notes if "unlike" in note]
    assert note.endswith(said)


def test_without_random(tmp_path):
    make_run(tmp_path, "margin", 0, [0.5, 0.7, 0.8])
    report = write_report(tmp_path)
    assert "there is no random to compare with" in report.notes[0]


def test_one_seed_says_nothing_of_who_is_beaten(tmp_path):
    for name in ("margin", "random"):
        make_run(tmp_path, name, 0, [0.5, 0.7, 0.8])
    assert "is beaten - -" in text_of(write_report(tmp_path))


def test_other_sizes_are_not_compared(folder):
    make_run(folder, "badge", 0, [0.5, 0.9], n_rounds=1)
    text = text_of(write_report(folder))
    assert "10 + 1 x 10 labels" in text
    assert "10 + 2 x 10 labels" in text


def test_the_verdict_is_the_first_thing_said(folder):
    report = write_report(folder)
    text = text_of(report)
    # Of 10 to 20 labels margin goes from 0.5 to 0.71, random needs 30 for its 0.7.
    said = "margin needs 35 % fewer labels than random to reach 0.700 (3 seeds, few)."
    assert text.index(said) < text.index("10 + 2 x 10 labels")
    make_run(folder, "badge", 0, [0.5, 0.6, 0.7], data="MNIST")
    text = text_of(write_report(folder))
    assert f"digits, mlp, 10 + 2 x 10 labels {said}" in text
    assert "MNIST, mlp, 10 + 2 x 10 labels There is nothing to compare with" in text


def test_formats(folder, capsys):
    make_run(folder, "badge", 0, [0.5, 0.9], done=False)
    (folder / "results.csv").unlink(missing_ok=True)
    assert main(["report", str(folder), "--format", "csv"]) == 0
    assert [path.name for path in folder.glob("re*")] == ["results.csv"]
    assert f"report: {folder / 'results.csv'}" in capsys.readouterr().out
    assert main(["report", str(folder), "--format", "md"]) == 0
    assert not (folder / "report.html").exists()
    text = (folder / "report.md").read_text()
    assert "**margin needs 35 % fewer labels than random to reach 0.700" in text
    assert "| margin | 0.680 ± 0.012 | +0.075 to +0.075 | ▲ ahead |" in text
    assert "* badge, seed 0, has 2 of 3 rounds and is left out" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for row, below in zip(rows, rows[1:], strict=False):
        if below.startswith("|---"):
            width = row.count("|")
        elif not row.startswith("|---") and below.count("|") != width:
            assert below.startswith(("| strategy", "| better", "| overlap"))
    assert "    skal compare --strategies margin random --seeds 3" in text
    assert main(["report", str(folder), "--format", "pdf"]) == 2
    with pytest.raises(UsageError, match="format must be html, md or csv, got 'pdf'"):
        write_report(folder, format="pdf")


def test_markdown_takes_texts_as_text(folder, monkeypatch):
    read = report.read_cell

    def rename(path):
        cell = read(path)
        return cell._replace(stored={"training": "a|b <i>*x*\n# c"})

    monkeypatch.setattr(report, "read_cell", rename)
    text = write_report(folder, format="md").page.read_text()
    assert r"unlike the others: a\|b \<i\>\*x\* \# c" in text


def test_what_is_no_run_is_named(folder):
    for name, content in {
        "other": '{"options": {"lr": 1}}',
        "model": '{"architecture": "resnet18"}',
        "list": "[1, 2]",
        "binary": "\x80",
        "kinds": '{"options": {"strategy": 3, "seed": []}}',
        "empty": "",
    }.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(content, encoding="latin-1")
    (folder / "folder" / "config.json").mkdir(parents=True)
    written = write_report(folder)
    assert len(written.notes) == 7
    text = unescape(text_of(written))
    for name in ("other", "model", "list", "binary", "kinds", "empty", "folder"):
        (note,) = [n for n in written.notes if f"'{name}'" in n or f"'{name}/" in n]
        assert note.startswith("left out: ") and note in text
    assert str(folder) not in text  # whoever reads the page has another disk
    assert "margin needs 35 %" in text  # the others are there


def test_runs_with_other_numbers_of_labels_than_their_pairs(folder):
    """As where the first labels of a seed lacked a class, and more were bought."""
    for path in folder.glob("**/seed=2/rounds.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [{**line, "n_labeled": line["n_labeled"] + 5} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = text_of(write_report(folder))
    assert "margin 0.680" in text and "+0.075 to +0.075 ▲ ahead" in text
    # The means of 15 to 30 labels, of seeds 0 and 1 with 2.
    assert "margin needs 3" in text and "mean rank" in text
    for name in ("random", "margin"):
        make_run(folder, name, 0, [0.5, 0.6, 0.7], data="MNIST")
    assert "All together" not in text_of(write_report(folder))


def test_random_alone(tmp_path):
    make_run(tmp_path, "random", 0, [0.5, 0.6, 0.7])
    text = text_of(write_report(tmp_path))
    assert "There is nothing to compare" in text and "random 0.600" in text


def test_no_runs(tmp_path, capsys):
    with pytest.raises(UsageError, match="no runs below"):
        write_report(tmp_path)
    assert main(["report", str(tmp_path)]) == 2
    assert "no runs below" in capsys.readouterr().err


def refused(folder, capsys):
    """Give the line on the run that is left out; the report opens without it."""
    assert main(["report", str(folder)]) == 0
    (line, *_) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: left out: ")
    page = unescape((folder / "report.html").read_text())
    assert line.removeprefix("note: ") in page and "margin has no seed 1" in page
    return line


def test_damaged_rounds(folder, capsys):
    path = next(folder.glob("**/margin/seed=1/rounds.jsonl"))
    whole = path.read_text()
    path.write_text("{}\n" + whole)
    assert "a damaged rounds.jsonl, line 1" in refused(folder, capsys)
    path.write_text(whole.replace('"nll": 0.5', '"nll": null'))
    assert "rounds.jsonl' has no right nll in line 1" in refused(folder, capsys)
    path.write_text(whole.replace('"seed": 1', '"seed": 2'))
    assert "rounds.jsonl' has no right seed in line 1" in refused(folder, capsys)


def test_changed_configuration(folder, capsys):
    path = next(folder.glob("**/margin/seed=1/config.json"))
    whole = path.read_text()
    path.write_text(whole.replace('"epochs": 100', '"epochs": 50'))
    assert "config.json' was changed after the run" in refused(folder, capsys)
    path.write_text(whole[:-9])
    assert "a config.json that cannot be read" in refused(folder, capsys)


def test_pairs_are_checked(folder):
    text = text_of(write_report(folder))
    assert "had the same data, test rows and first labels" in text
    assert "Their first models scored the same." in text
    make_run(folder, "badge", 0, [0.5, 0.9, 0.9], first=1)
    other = {"data_fingerprint": "cd"}
    make_run(folder, "badge", 1, [0.5, 0.9, 0.9], stored=other)
    make_run(folder, "badge", 2, [0.5, 0.6, 0.7])
    report = write_report(folder)
    said = [note.split(" labels: ")[1] for note in report.notes]
    no_pair = "than the other strategies: it is no pair with them and is left out"
    assert said == [
        f"badge, seed 0, had other first labels {no_pair}",
        f"badge, seed 1, had other data {no_pair}",
    ]
    # What is left is the run of seed 2: an area of 0.6, as random's 0.61 less 0.01.
    assert "badge 0.600 -0.010 open 0.700" in text_of(report)


def test_first_models_that_differ_are_named(folder):
    path = next(folder.glob("**/margin/seed=1/rounds.jsonl"))
    path.write_text(path.read_text().replace('"nll": 0.5', '"nll": 0.6', 1))
    assert "The first model of margin scored otherwise" in text_of(write_report(folder))


def test_environments_that_differ_are_told_apart(folder):
    assert "cpu (x86_64), 1 thread; skal 0 " in text_of(write_report(folder))
    make_run(folder, "badge", 0, [0.5, 0.6, 0.7], threads=2)
    make_run(folder, "badge", 1, [0.5, 0.6, 0.7], stored={"versions": {"skal": "1"}})
    report = write_report(folder)
    text = text_of(report)
    assert any("the runs are from 3 environments" in note for note in report.notes)
    assert "badge (seed 0): cpu (x86_64), 2 threads; skal 0 " in text
    assert "badge (seed 1): cpu (x86_64), 1 thread; skal 1 " in text
    runs = "margin (seeds 0, 1, 2), random (seeds 0, 1, 2)"
    assert f"{runs}: cpu (x86_64), 1 thread; skal 0 " in text


def test_all_labels_at_once_are_a_line(folder):
    for seed, accuracy in enumerate([0.9, 0.94]):
        options = {"n_initial": 50, "n_rounds": 0}
        make_run(folder, "random", seed, [accuracy], **options)
    text = text_of(write_report(folder))
    assert "Trained on all 50 labels: 0.920 ± 0.254." in text
    assert "50 + 0 x 10 labels" not in text
    assert "--strategies random --seeds 2 --n-initial 50" in text


@pytest.mark.parametrize("n_initial, full", [(50, True), (40, False)])
def test_all_labels_are_those_of_the_pool(tmp_path, n_initial, full):
    options = {"pool": np.arange(100, 150), "first": 100, "pool_size": 50}
    make_run(tmp_path, "random", 0, [0.5, 0.6, 0.7], **options)
    make_run(tmp_path, "random", 0, [0.9], n_initial=n_initial, n_rounds=0, **options)
    text = text_of(write_report(tmp_path))
    assert ("Trained on all 50 labels: 0.900." in text) == full
    assert ("40 + 0 x 10 labels" in text) != full


def test_several_data_sets_are_also_ranked_together(folder):
    for seed in range(3):
        make_run(folder, "random", seed, [0.5, 0.6, 0.7], data="MNIST")
        make_run(folder, "margin", seed, [0.4, 0.5, 0.6], data="MNIST")
        make_run(folder, "badge", seed, [0.4, 0.5, 0.6], data="MNIST")
    text = text_of(write_report(folder)).partition("All together")[2]
    # Two of three checkpoints on digits are won, all three on MNIST are lost.
    assert "margin random margin 0.67 random 1.00 is beaten 0.50 0.33" in text
    assert "over 6 pairs of a comparison and a seed" in text
    assert "margin 1.50" in text and "random 1.50" in text and "badge" not in text


def test_command(folder, capsys):
    make_run(folder, "badge", 0, [0.5, 0.9], done=False)
    assert main(["report", str(folder)]) == 0
    printed = capsys.readouterr()
    assert f"report: {folder / 'report.html'}" in printed.out
    assert "note: digits, mlp" in printed.err and "badge, seed 0, has 2" in printed.err


def test_other_options_are_not_compared(folder):
    make_run(folder / "more", "badge", 0, [0.5, 0.6, 0.7], epochs=3)
    text = text_of(write_report(folder))
    assert "labels, epochs 3 " in text and "labels, epochs 100 " in text
    assert "badge margin random" not in text
    (command,) = re.findall("skal run --strategy badge .*? save/more", text)
    assert "--epochs 3 " in command


def test_a_run_that_is_there_twice(folder):
    make_run(folder / "copy", "margin", 1, [0.5, 0.6, 0.7])
    report = write_report(folder)
    (note,) = report.notes
    assert re.match("left out: 'digits/.*/seed=1' is the same run as 'copy/", note)
    assert note in unescape(report.page.read_text())


def test_damaged_purchases(folder, capsys):
    next(folder.glob("**/margin/seed=1/queries.npz")).write_bytes(b"torn")
    assert "a queries.npz that does not go with rounds" in refused(folder, capsys)
    path = next(folder.glob("**/margin/seed=1/queries.npz"))
    np.savez(path, initial=np.arange(10), round_1=np.arange(10))
    assert "rounds.jsonl (round_2 is absent or another size)" in refused(folder, capsys)
