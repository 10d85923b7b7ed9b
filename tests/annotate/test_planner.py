import json
import subprocess
import sys

import numpy as np
import pytest

from skal.annotate.planner import Planner
from skal.annotate.project import SKIP


def answer(project, truth, n_items):
    """Answer what is handed out, one by one; return the numbers."""
    numbers = []
    for _ in range(n_items):
        (name,) = project.store.hand_out(1)
        numbers += project.store.numbers([name])
        project.answer(name, truth(name))
    return numbers


def test_twice_a_batch_waits_and_is_chosen_anew_after_half_a_batch(project, truth):
    planner = Planner(project)
    report = planner.step()
    assert len(project.store.queue()) == 8  # batch_size is 4
    assert (report["n_items"], report["guesses"], report["estimate"]) == (12, {}, None)
    assert not report["exhausted"] and "no model yet" in report["advice"]
    assert planner.step() is None
    answer(project, truth, 1)
    assert planner.step() is None
    answer(project, truth, 1)
    project.store.hand_out(1)
    shown = project.store.queue(handed_out=True).tolist()
    report = planner.step()
    waiting = project.store.queue().tolist()
    assert len(waiting) == 9  # what is shown to somebody stays
    assert waiting[0] == shown[0] and len(set(waiting)) == 9
    assert set(report["guesses"]) == set(waiting) or not report["guesses"]


def test_a_whole_project(project, truth, photos, draw):
    planner, told = Planner(project), []
    while len(project.store.answers()) < 12:
        report = planner.step()
        told += [report] if report else []
        assert len(project.store.queue()) > 0
        answer(project, truth, 1)
    assert len(project.store.answers()) == 12  # none was asked twice
    last = planner.step()
    assert last["exhausted"] and last["advice"] == "All items have an answer."
    assert planner.step() is None
    known = [report for report in told if report["guesses"]]
    assert known
    for report in known:
        names, shares = zip(*report["guesses"].values(), strict=True)
        assert set(names) <= {"cat", "dog"}
        assert all(0.5 <= share <= 1 for share in shares)
    estimate = [report["estimate"] for report in told if report["estimate"]][-1]
    assert estimate["low"] <= estimate["accuracy"] <= estimate["high"]
    project.undo()
    assert len(project.store.queue()) == 1
    assert planner.step()["exhausted"]
    assert planner.step() is None
    draw(photos / "new.png", 12)  # as one adds photos next week, while the page is open
    assert planner.step()["n_items"] == 13
    assert len(project.store.queue()) == 2


def test_one_item_a_batch(photos, truth):
    from skal.annotate import LabelProject

    project = LabelProject.init(photos, classes=["cat", "dog"], batch_size=1)
    planner = Planner(project)
    for _ in range(5):
        planner.step()
        assert len(project.store.queue()) == 2
        answer(project, truth, 1)


def test_models_are_compared_a_batch_of_labels_apart(project):
    planner, numbers, y = Planner(project), np.arange(12), np.full(12, None)
    a, b = np.tile(["cat", "dog"], 6), np.tile(["cat", "dog", "dog", "dog"], 3)
    y[:4] = ["cat", "dog", "cat", SKIP]
    planner._compare(numbers, a, y)
    y[4:6] = "cat"
    planner._compare(numbers, b, y)  # too early
    assert planner.rule.rounds_ == [0]
    y[6:8] = "dog"
    planner._compare(numbers, b, y)
    # Of items 3 and 8 to 11, which have no label, 4 of 5 agree; by chance 14 of 25.
    assert planner.rule.values_[1] == pytest.approx((4 / 5 - 14 / 25) / (11 / 25))


def test_advice_is_that_of_the_rule(project):
    planner = Planner(project)
    assert planner.advice(5).startswith("Go on: there is no model yet")
    y, numbers = np.full(40, None), np.arange(40)
    for n_labels in range(4, 20, 4):
        y[:n_labels] = "cat"
        assert planner.advice(5).startswith("Go on")
        planner._compare(numbers, np.tile(["cat", "dog"], 20), y)
    advice = planner.advice(5)
    assert advice.startswith("You may stop") and "1.000 on average over 3" in advice
    assert "StabilizingPredictions" in advice
    assert planner.advice(0) == "All items have an answer."


def test_patience_is_a_setting(photos):
    from skal.annotate import LabelProject

    project = LabelProject.init(photos, classes=["cat", "dog"], patience=5)
    assert Planner(LabelProject.open(project.folder)).rule.patience == 5


def test_a_failed_choice_is_tried_again(project, monkeypatch):
    planner = Planner(project)

    def fail(*args, **options):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(project.learner, "choose", fail)
        with pytest.raises(OSError):
            planner.step()
    planner.step()
    assert len(project.store.queue()) == 8


def test_it_listens_before_it_loads_what_takes_long():
    """Else what outlives a killed page goes on for as long as that takes."""
    code = "import sys, skal.annotate.planner; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert found.stdout.split() == [b"False"]


def test_as_a_process_it_reports_and_ends_with_its_parent(project):
    command = [sys.executable, "-m", "skal.annotate.planner", str(project.folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        report = json.loads(process.stdout.readline())
        assert report["n_items"] == 12
        np.testing.assert_equal(len(project.store.queue()), 8)
        process.stdin.close()
        assert process.wait(300) == 0
