import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from skal.annotate.planner import Planner


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
    assert not report["exhausted"] and "too few" in report["advice"]
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


def test_a_whole_project(project, truth):
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


def test_one_item_a_batch(photos, truth):
    from skal.annotate import LabelProject

    project = LabelProject.init(photos, classes=["cat", "dog"], batch_size=1)
    planner = Planner(project)
    for _ in range(5):
        planner.step()
        assert len(project.store.queue()) == 2
        answer(project, truth, 1)


def test_models_are_compared_a_batch_of_labels_apart(project):
    planner = Planner(project)
    a = pd.Series(["cat", "dog", "cat", "dog"], index=[0, 1, 2, 3])
    b = pd.Series(["cat", "dog", "dog", "dog"], index=[0, 1, 2, 3])
    planner._compare(a, 4)
    planner._compare(b, 7)  # too early
    assert planner.kappas == []
    planner._compare(b, 8)
    # Three of four agree, and half would by chance.
    assert planner.kappas == [pytest.approx(0.5)]
    planner._compare(b[1:], 12)  # all that is left is called dog: no evidence
    assert planner.kappas[1:] == [0.0]


def test_advice_follows_the_agreement(project):
    planner = Planner(project)
    planner.kappas = [0.2, 0.99, 1.0]
    assert "still changes (kappa 1.00" in planner.advice(5)
    planner.kappas += [0.995]
    assert "You may stop" in planner.advice(5)
    assert planner.advice(0) == "All items have an answer."


def test_a_failed_choice_is_tried_again(project, monkeypatch):
    planner = Planner(project)

    def fail(*args, **options):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(project, "choose", fail)
        with pytest.raises(OSError):
            planner.step()
    planner.step()
    assert len(project.store.queue()) == 8


def test_as_a_process_it_reports_and_ends_with_its_parent(project):
    command = [sys.executable, "-m", "skal.annotate.planner", str(project.folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        report = json.loads(process.stdout.readline())
        assert report["n_items"] == 12
        np.testing.assert_equal(len(project.store.queue()), 8)
        process.stdin.close()
        assert process.wait(60) == 0
