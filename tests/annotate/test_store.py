import multiprocessing
import os
import signal
import sqlite3
import time

import numpy as np
import pandas as pd
import pytest

from skal.annotate import Answer, LabelStore

PETS = ["cat", "dog"]


@pytest.fixture
def store(tmp_path):
    store = LabelStore(tmp_path / "labels.sqlite")
    store.add_classes(PETS)
    store.add_items(list("abcdef"))
    return store


def given(store, **options):
    return dict(enumerate(store.labels(**options)))


def known(store, **options):
    return {n: y for n, y in given(store, **options).items() if y is not None}


def test_answers_skips_and_corrections(store):
    store.answer("b", "dog")
    store.answer("c", None)
    store.answer("e", "cat", seconds=2.5)
    store.answer("b", "cat")
    assert known(store) == {1: "cat", 4: "cat"}
    assert known(store, skip_label="?") == {1: "cat", 2: "?", 4: "cat"}
    assert store.labels().dtype == object


def test_undo_gives_back_what_was_said_before(store):
    store.answer("b", "dog")
    store.answer("b", "cat")
    store.answer("c", None)
    assert store.undo() == Answer("c", None)
    assert store.undo() == Answer("b", "cat")
    assert known(store) == {1: "dog"}
    assert store.undo() == Answer("b", "dog")
    assert store.undo() is None
    assert known(store) == {}
    store.answer("b", "cat")
    assert known(store) == {1: "cat"}


def test_undo_of_one_annotator_leaves_the_others(store):
    store.answer("a", "cat", "ann")
    store.answer("b", "dog", "bob")
    assert store.undo("ann") == Answer("a", "cat", "ann")
    assert store.undo("ann") is None
    assert known(store) == {1: "dog"}


def test_every_state_can_be_had_again(store):
    """Against a plain replay of the list of what was done."""
    rng = np.random.default_rng(0)
    states = {store.version: known(store)}
    done, now = [], {}
    for _ in range(80):
        if done and rng.random() < 0.3:
            store.undo()
            done.pop()
        else:
            item = str(rng.choice(list("abcdef")))
            done.append((item, [*PETS, None][rng.integers(3)]))
            store.answer(*done[-1])
        now = {}
        for item, label in done:
            now["abcdef".index(item)] = label
        now = {number: label for number, label in now.items() if label}
        states[store.version] = now
    assert len(states) == 81
    for version, state in states.items():
        assert known(store, upto=version) == state


def test_majority_ties_and_agreement(store):
    votes = {
        "a": {"ann": "cat", "bob": "cat", "eve": "dog"},
        "b": {"ann": "cat", "bob": "dog"},
        "c": {"ann": "dog", "bob": "dog"},
        "d": {"ann": None, "bob": "dog"},
        "e": {"ann": None, "bob": None},
    }
    for item, answers in votes.items():
        for annotator, label in answers.items():
            store.answer(item, label, annotator)
    assert known(store) == {0: "cat", 2: "dog", 3: "dog"}
    assert given(store, skip_label="?")[1] == given(store, skip_label="?")[4] == "?"
    assert known(store, annotator="eve") == {0: "dog"}
    assert store.conflicts() == ["b"]
    pairs = store.agreement().set_index(["first", "second"])
    # On a, b and c: cat cat dog against cat dog dog; 5 of 9 pairs agree by chance.
    ann_bob = pairs.loc[("ann", "bob")]
    assert ann_bob["n_items"] == 3 and ann_bob["agreement"] == 2 / 3
    assert ann_bob["kappa"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert pairs.loc[("ann", "eve"), "agreement"] == 0.0
    store.answer("b", "dog", "eve")
    assert store.conflicts() == [] and known(store)[1] == "dog"


def test_wrong_answers_change_nothing(store):
    store.answer("a", "cat")
    for wrong in (Answer("z", "cat"), Answer("c", "cow"), Answer("c", "Cat")):
        version = store.version
        with pytest.raises(ValueError, match="no item 'z'|is no class"):
            store.record([Answer("b", "dog"), wrong])
        assert store.version == version
    assert known(store) == {0: "cat"}


def test_new_classes_and_items_later(store):
    store.answer("a", "cat")
    assert store.add_classes(["dog", "cow"]) == ["cow"]
    assert store.classes == ["cat", "dog", "cow"]
    assert store.add_items(["c", "g", "g", "h"]).tolist() == [6, 7]
    store.answer("g", "cow")
    assert known(store) == {0: "cat", 6: "cow"}
    assert store.items()["item"].tolist() == list("abcdefgh")


@pytest.mark.parametrize("name", ["", " ", " cat", "ca\nt", "ca\x7ft", 3])
def test_class_names_are_printable(store, name):
    with pytest.raises(ValueError, match="class"):
        store.add_classes(["cow", name])
    assert store.classes == PETS


def test_items_move_vanish_and_come_back(store):
    store.answer("a", "cat")
    store.update_items({0: {"item": "b"}, 1: {"item": "a"}})  # they change places
    assert store.items()["item"].tolist() == list("bacdef")
    store.answer("a", "dog")
    assert known(store) == {0: "cat", 1: "dog"}
    store.update_items({2: {"item": "a"}, 1: {"state": "gone", "reason": "lost"}})
    assert store.items()["item"].tolist() == list("baadef")
    with pytest.raises(ValueError, match="no item 'c'"):
        store.answer("c", "dog")
    store.answer("a", "cat")
    assert known(store) == {0: "cat", 1: "dog", 2: "cat"}
    events = store.events()
    assert events["kind"].tolist()[-3:] == ["gone", "move", "label"]


def test_events_are_never_changed(store):
    store.answer("a", "cat")
    connection = sqlite3.connect(store.path)
    for statement in ("DELETE FROM events", "UPDATE events SET label = 'dog'"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            connection.execute(statement)
    connection.close()


def test_events_as_a_frame(store):
    store.choose([3, 1], "margin")
    before = pd.Timestamp.now("UTC")
    store.answer("b", "dog", "ann", seconds=1.5)
    store.undo()
    events = store.events().iloc[-2:]
    assert events["kind"].tolist() == ["label", "undo"]
    assert events["item"].tolist() == ["b", "b"]
    assert events["target"].tolist() == [pd.NA, events.index[0]]
    said = events.iloc[0]
    assert (said["annotator"], said["seconds"]) == ("ann", 1.5)
    assert (said["round"], said["strategy"]) == (0, "margin")
    assert abs(said["time"] - before) < pd.Timedelta("1min")


def test_the_same_batch_until_it_is_answered(store):
    assert store.hand_out(2) == []
    store.choose([4, 2, 0], "herding")
    assert store.hand_out(2) == store.hand_out(2) == ["e", "c"]
    store.answer("e", "cat")
    assert store.hand_out(2) == ["c"]
    store.answer("c", None)
    assert store.hand_out(2) == ["a"]
    store.undo()
    assert store.hand_out(2) == ["c", "a"]
    assert store.queue().tolist() == [2, 0]


def test_two_annotators_get_different_items(store):
    store.choose([0, 1, 2])
    assert store.hand_out(2, "ann") == ["a", "b"]
    assert store.hand_out(2, "bob") == ["c"]
    assert store.hand_out(2, "eve") == []
    # Unless that is asked for, or one went away.
    assert store.hand_out(2, "eve", copies=2) == ["a", "b"]
    assert store.hand_out(2, "dan", copies=2) == ["c"]
    assert store.hand_out(2, "fay", copies=2) == []
    assert store.hand_out(1, "fay", patience=60) == []
    assert store.hand_out(1, "fay", patience=-1) == ["a"]


def test_an_item_is_open_until_enough_people_answered(store):
    store.choose([0])
    assert store.hand_out(1, "ann", copies=2) == ["a"]
    store.answer("a", "cat", "ann")
    assert store.hand_out(1, "ann", copies=2) == []
    assert store.queue(copies=2).tolist() == [0]
    assert store.hand_out(1, "bob", copies=2) == ["a"]
    store.answer("a", "cat", "bob")
    assert store.queue(copies=2).tolist() == []


def test_stale_choices_are_replaced_but_not_what_a_person_has(store):
    assert store.choose([0, 1, 2]) == 0
    assert store.hand_out(1) == ["a"]
    assert store.choose([3, 4], replace=True) == 1
    assert store.queue().tolist() == [0, 3, 4]
    store.choose([1])
    assert store.queue().tolist() == [0, 3, 4, 1]
    store.update_items({3: {"state": "gone"}})
    assert store.queue().tolist() == [0, 4, 1]


def test_only_a_store_is_opened(tmp_path):
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE events (a)")
    connection.commit()
    content = path.read_bytes()
    with pytest.raises(ValueError, match="no store of labels"):
        LabelStore(path)
    connection.close()
    assert path.read_bytes() == content
    path.write_text("item,label\n" * 500)
    with pytest.raises(ValueError, match="no store of labels"):
        LabelStore(path)
    path = tmp_path / "later.sqlite"
    LabelStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ValueError, match="update it"):
        LabelStore(path)


STATE = "SELECT * FROM items", "SELECT * FROM held ORDER BY number"


def test_what_events_come_to_is_kept_up_and_found_in_files_of_version_1(store):
    rng = np.random.default_rng(0)
    for _ in range(150):
        what, who = (
            rng.choice(["choose", "give", "answer", "undo"]),
            rng.choice([*"ab"]),
        )
        if what == "choose":
            store.choose(rng.permutation(6)[:2], replace=rng.random() < 0.5)
        elif what == "give":
            store.hand_out(2, who, copies=2)
        elif what == "answer":
            store.answer(rng.choice([*"abcdef"]), rng.choice([*PETS, None]), who)
        else:
            store.undo(who)
    store.update_items({2: {"state": "broken", "reason": "test"}})
    replayed = store.answers(store.version)
    pd.testing.assert_frame_equal(store.answers(), replayed)
    assert store.n_answers == len(replayed)
    usable = store.labels()[[0, 1, 3, 4, 5]]
    counts, n_answered = store.tally()
    assert counts == pd.Series(usable).value_counts().to_dict()
    assert n_answered == replayed["item"][replayed["item"] != 2].nunique()
    chosen = store.events().query("kind in ('choose', 'withdraw')")
    chosen = chosen.reset_index().groupby("item").last().query("kind == 'choose'")
    answered = {"abcdef"[n] for n in replayed["item"]}
    waiting = chosen.drop(index=[*answered, "c"], errors="ignore").sort_values("number")
    assert ["abcdef"[n] for n in store.queue()] == waiting.index.tolist()

    kept = [list(map(tuple, store._database.read(query))) for query in STATE]
    store.close()
    connection = sqlite3.connect(store.path)
    for name in ("choose", "withdraw", "answer", "undo"):
        connection.execute(f"DROP TRIGGER {name}")
    for name in ("waiting", "majorities"):
        connection.execute(f"DROP INDEX {name}")
    for name in ("chosen", "n_answers", "majority"):
        connection.execute(f"ALTER TABLE items DROP COLUMN {name}")
    connection.execute("DROP TABLE held")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    store = LabelStore(store.path)
    found = [list(map(tuple, store._database.read(query))) for query in STATE]
    assert found == kept
    store.answer("a", "cat", "new")
    assert store.answers(annotator="new", item=0)["label"].tolist() == ["cat"]


def test_the_last_answers_of_somebody(store):
    for item, who in [("a", "ann"), ("b", "bob"), ("c", "ann"), ("d", "ann")]:
        store.answer(item, "cat", who)
    assert store.answers(annotator="ann", last=2)["item"].tolist() == [2, 3]
    assert store.answers(annotator="eve").empty


def test_stores_know_each_other_apart(tmp_path):
    ids = {LabelStore(tmp_path / name).project_id for name in "ab"}
    assert len(ids) == 2
    assert LabelStore(tmp_path / "a").project_id in ids


def _answer_in_turn(path, annotator, start):
    start.wait()
    store = LabelStore(path)
    store.add_classes(PETS)
    store.add_items([str(i) for i in range(40)])
    for i in range(40):
        store.answer(str(i), PETS[i % 2], annotator)


def test_processes_open_and_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    path, start = tmp_path / "labels.sqlite", context.Event()
    people = ["ann", "bob", "eve"]
    workers = [
        context.Process(target=_answer_in_turn, args=(path, name, start))
        for name in people
    ]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    store = LabelStore(path)
    assert store.classes == PETS
    assert store.items()["item"].tolist() == [str(i) for i in range(40)]
    assert len(store.answers()) == 120
    assert known(store) == {i: PETS[i % 2] for i in range(40)}


def _session(path, confirm):
    store = LabelStore(path)
    for i in range(100_000):
        items = store.hand_out(5)
        if not items:
            left = [k for k, y in enumerate(store.labels()) if y is None]
            store.choose(left[:5], "random")
            items = store.hand_out(5)
        confirm.send((store.answer(items[0], PETS[i % 2]), items[0]))


def kill_a_session(path, seconds):
    """Answer until the process is killed; what was confirmed."""
    context = multiprocessing.get_context("fork")
    receive, confirm = context.Pipe(duplex=False)
    session = context.Process(target=_session, args=(path, confirm))
    session.start()
    confirm.close()
    confirmed = [receive.recv()]
    time.sleep(seconds)
    os.kill(session.pid, signal.SIGKILL)
    session.join()
    while True:
        try:
            confirmed.append(receive.recv())
        except (EOFError, OSError):  # the last may be torn
            receive.close()
            return dict(confirmed)


def test_what_was_confirmed_survives_kill(tmp_path):
    path = tmp_path / "labels.sqlite"
    store = LabelStore(path)
    store.add_classes(PETS)
    store.add_items([str(i) for i in range(5000)])
    confirmed = {}
    for seconds in (0.0, 0.02, 0.05):
        answered = set(store.events().query("kind == 'label'")["item"])
        new = kill_a_session(path, seconds)
        assert not answered & set(new.values())  # nothing is asked twice
        confirmed |= new
        events = store.events()
        assert events.loc[list(confirmed), "item"].to_dict() == confirmed
        n_said = (events["kind"] == "label").sum()
        assert n_said == len(set(events.query("kind == 'label'")["item"]))
    assert len(confirmed) >= 3
    assert store._database.read("PRAGMA integrity_check")[0][0] == "ok"
