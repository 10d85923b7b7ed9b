import numpy as np
import pytest

from skal.annotate import LabelProject
from skal.annotate.session import NoItemError, Session


@pytest.fixture
def session(project):
    project.store.choose([3, 1, 2, 0])
    return Session(project)


def test_one_item_at_a_time_until_it_is_answered(session):
    assert session.next("ann")["number"] == session.next("ann")["number"] == 3
    assert session.next("bob")["number"] == 1  # never what another has
    session.answer(3, "dog", "ann", seconds=2)
    assert session.next("ann")["number"] == 2
    session.answer(2, None, "ann")
    assert session.next("ann")["number"] == 0
    session.answer(0, "cat", "ann")
    assert session.next("ann") is None
    assert session.next("bob")["number"] == 1


def test_where_the_choice_takes_long_some_are_drawn(project, monkeypatch):
    from skal.annotate import session as room

    session = Session(project)
    monkeypatch.setattr(room, "PATIENCE", 0)
    assert session.next() is session.next() is None  # the first are a good choice
    project.store.choose([3])
    session.answer(session.next()["number"], "dog")
    monkeypatch.setattr(room, "PATIENCE", 3600)
    assert session.next() is session.next() is None  # the choice may be on its way
    monkeypatch.setattr(room, "PATIENCE", 0)
    drawn = []
    while (item := session.next() or session.next()) is not None:
        session.answer(item["number"], "cat")
        drawn.append(item["number"])
    assert sorted(drawn) == [n for n in range(12) if n != 3]
    events = project.store.events()
    assert set(events.loc[events.label == "cat", "strategy"].dropna()) == {"random"}


def test_an_undone_answer_is_shown_again(session):
    assert session.undo() is None
    for label in ("dog", "cat"):
        session.answer(session.next()["number"], label)
    taken = session.undo()
    assert (taken["number"], taken["answered"], taken["label"]) == (1, False, None)
    assert session.next()["number"] == 1


def test_earlier_answers_are_corrected_and_kept(session):
    session.answer(3, "dog")
    session.answer(1, None)
    session.answer(3, "cat")
    found = [(each["number"], each["label"]) for each in session.history()]
    assert found == [(3, "cat"), (1, None)]
    shown = session.item(1)
    assert shown["answered"] and shown["label"] is None
    assert session.item(3, "bob")["answered"] is False
    events = session.project.store.events()
    assert events.loc[events.kind == "label", "label"].tolist() == ["dog", "cat"]


def test_counts_and_the_time_left(session):
    before = session.counts()
    assert before["seconds_left"] is None
    assert (before["n_items"], before["goal"]) == (12, 12)
    for number, label, seconds in [(3, "dog", 1), (1, "dog", 9), (2, None, 2)]:
        session.answer(number, label, seconds=seconds)
    found = session.counts()
    assert found["classes"] == [["cat", 0], ["dog", 2]]
    assert (found["n_labeled"], found["n_skipped"]) == (2, 1)
    assert found["seconds_left"] == 2 * (12 - 3)  # the median, and what is open
    assert Session(session.project, goal=5).counts()["seconds_left"] == 2 * 2
    session.answer(3, "cat", "bob", seconds=7)  # a tie: no label
    assert session.counts()["classes"] == [["cat", 0], ["dog", 1]]
    assert session.counts("bob")["seconds_left"] == 7 * 9


def test_items_are_known_by_number_whatever_they_are_called_now(session, photos):
    assert session.path(3).endswith("3.png")
    names = [session.item(number)["name"] for number in (0, 1)]
    (photos / names[0]).rename(photos / "other.png")
    (photos / names[1]).rename(photos / names[0])
    LabelProject.open(photos)  # another process finds them
    assert session.path(0).endswith("other.png")
    session.answer(1, "dog")
    assert session.project.store.labels()[1] == "dog"
    assert session.item(1)["name"] == names[0]
    (photos / "other.png").unlink()
    LabelProject.open(photos)
    for ask in (session.path, session.item, lambda n: session.answer(n, "cat")):
        for number in (0, 99, -1):
            with pytest.raises(NoItemError, match=f"no item {number}"):
                ask(number)


def test_texts_and_rows_are_shown(reviews):
    session = Session(
        LabelProject.init(reviews, classes=["a", "b"], text_column="text")
    )
    assert session.item(1)["text"] == "a dull film no 1"
    with pytest.raises(NoItemError, match="no images"):
        session.path(1)
    table = reviews.with_name("table.csv")
    table.write_text("x,<i>y</i>\n1,a\n2.5,\n3,b\n")
    session = Session(
        LabelProject.init(table, classes=["a", "b"], project=table.parent / "p")
    )
    assert session.item(0)["row"] == [("x", 1.0), ("<i>y</i>", "a")]
    assert session.item(1)["row"] == [("x", 2.5), ("<i>y</i>", None)]
    assert np.isfinite(session.counts()["n_items"])


def test_a_class_is_added(session):
    session.add_class("  emu ")
    session.answer(0, "emu")
    assert session.counts()["classes"][-1] == ["emu", 1]
    with pytest.raises(ValueError, match="printable"):
        session.add_class(" ")
