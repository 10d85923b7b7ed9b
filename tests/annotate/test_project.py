import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from torch import nn

from skal.annotate import LabelProject
from skal.annotate.project import SKIP
from skal.experiment.config import RunConfig
from skal.experiment.options import UsageError
from skal.models import FrozenFeatures
from skal.selection import herding

PETS = ["cat", "dog"]


def label_all(project, truth, n_batches):
    """Let a person who knows answer; the items in their order."""
    asked = []
    for _ in range(n_batches):
        batch = project.next()
        project.answer(batch["item"], [truth(item) for item in batch["item"]])
        asked += batch["item"].tolist()
    return asked


def test_from_a_folder_to_a_model(project, photos, truth, draw):
    asked = label_all(project, truth, 2)
    assert len(set(asked)) == 8
    status = project.status()
    assert (status["n_items"], status["n_labeled"], status["n_open"]) == (12, 8, 0)
    assert sum(status["counts"].values()) == 8 and set(status["counts"]) == set(PETS)
    predictions = project.predict()
    assert predictions["label"].tolist() == [truth(i) for i in predictions["item"]]
    assert predictions["confidence"].between(0.5, 1).all()
    given = predictions.set_index("item")["given"].dropna()
    assert set(given.index) == set(asked)
    new = photos.parent / "new.png"
    draw(new, 20)
    assert project.model_.predict([str(new)]).tolist() == ["cat"]
    assert {p.name for p in (photos / ".skal").iterdir()} >= {"project.toml"}


def test_the_first_batch_is_the_herding_set(project):
    _, X, _ = project.learner.rows()
    picks = herding(X, 4, random_state=0)
    items = project.store.items()["item"]
    assert project.next()["item"].tolist() == items.loc[picks].tolist()
    assert project.store.events()["strategy"].dropna().unique().tolist() == ["herding"]


def test_the_default_strategy_is_that_of_runs(project, truth):
    label_all(project, truth, 2)
    project.next()
    strategies = project.store.events()["strategy"].dropna().unique().tolist()
    assert strategies == ["herding", RunConfig().strategy]


def test_later_batches_are_the_strategys(photos, truth):
    """Least margin of the model that the labels so far make."""
    project = LabelProject.init(photos, classes=PETS, batch_size=4, strategy="margin")
    label_all(project, truth, 1)
    while len(set(project.store.labels()) - {None}) < 2:
        label_all(project, truth, 1)
    proba = project.model_.predict_proba(project.source.raw(project.predict()["item"]))
    margin = pd.Series(np.ptp(proba, axis=1), index=project.predict()["item"])
    y = pd.Series(project.store.labels(), index=project.store.items()["item"])
    expected = margin[y.isna()].nsmallest(1).index.tolist()
    assert project.next(batch_size=1)["item"].tolist() == expected
    assert project.store.events()["strategy"].iloc[-2] == "margin"


def test_the_same_batch_again_also_after_a_restart(project, photos, truth):
    batch = project.next()
    assert project.next().equals(batch)
    again = LabelProject.open(photos)
    assert again.next().equals(batch)
    first = batch["item"][0]
    again.answer(first, truth(first))
    assert project.next()["item"].tolist() == batch["item"].tolist()[1:]
    project.undo()
    assert LabelProject.open(photos / ".skal").next().equals(batch)


def test_seeds_make_batches(photos, tmp_path, truth):
    runs = []
    for name in "ab":
        project = LabelProject.init(
            photos, classes=PETS, project=tmp_path / name, batch_size=3, seed=4
        )
        runs.append(label_all(project, truth, 3))
    assert runs[0] == runs[1]


def test_everything_is_asked_once(project, truth):
    asked = label_all(project, truth, 3)
    assert sorted(asked) == sorted(project.store.items()["item"])
    assert len(project.next()) == 0


def test_skipped_items_are_not_asked_again(project):
    batch = project.next()
    project.answer(batch["item"], [None, "cat", np.nan, "dog"])
    later = [item for _ in range(2) for item in _answered(project)]
    assert not set(later) & set(batch["item"])
    assert project.status()["n_skipped"] == 2
    assert (project.store.labels(skip_label=SKIP) == SKIP).sum() == 2


def _answered(project):
    items = project.next()["item"].tolist()
    project.answer(items, ["cat"] * len(items))
    return items


def test_two_people_get_different_items(project):
    first, second = (set(project.next(annotator=who)["item"]) for who in ("ann", "bob"))
    assert len(first) == len(second) == 4 and not first & second


def test_both_are_asked_where_that_is_wanted(photos):
    project = LabelProject.init(photos, classes=PETS, batch_size=3, copies=2)
    first = project.next(annotator="ann")["item"].tolist()
    assert project.next(annotator="bob")["item"].tolist() == first
    project.answer(first, ["cat", "cat", "dog"], "ann")
    project.answer(first, ["cat", "dog", "dog"], "bob")
    status = project.status()
    assert status["conflicts"] == [first[1]] and status["n_labeled"] == 2
    assert status["agreement"]["agreement"].tolist() == [2 / 3]
    assert project.predict().set_index("item").at[first[1], "look"] == "conflict"


def test_a_worker_chooses_while_a_person_answers(project, photos, truth):
    person, worker = project, LabelProject.open(photos)
    first = person.next()["item"].tolist()
    waiting = worker.choose(2)
    assert not set(worker.store.items().loc[waiting, "item"]) & set(first)
    person.answer(first[:2], ["cat", "dog"])
    fresh = worker.choose(3, replace=True)
    assert worker.store.queue().tolist() == [
        *worker.store.numbers(first[2:]),
        *fresh.tolist(),
    ]
    person.answer(first[2:], ["cat", "dog"])
    assert person.next()["item"].tolist() == (
        person.store.items().loc[fresh, "item"].tolist()
    )


def test_items_come_move_vanish_and_break(project, photos, truth, draw):
    whole = (photos / "more/11.jpg").read_bytes()
    asked = label_all(project, truth, 1)
    kept, lost = asked[0], asked[1]
    (photos / "other").mkdir()
    (photos / kept).rename(photos / "other/kept.png")
    (photos / lost).unlink()
    draw(photos / "20.png", 20)
    (photos / "21.png").write_text("no image")
    (photos / "22.jpg").write_bytes(whole[:-20])
    project = LabelProject.open(photos)
    assert project.found["new"] == ["20.png", "21.png", "22.jpg"]
    assert project.found["moved"] == [f"{kept} -> other/kept.png"]
    assert project.found["gone"] == [lost]
    assert project.found["broken"][0].startswith("21.png: cannot identify")
    y = pd.Series(project.store.labels(), index=project.store.items()["item"])
    assert y["other/kept.png"] == truth(kept)
    rest = label_all(project, lambda item: "dog", 3)
    assert not set(rest) & {"21.png", "22.jpg", lost, "other/kept.png"}
    status = project.status()
    assert status["broken"] == ["21.png", "22.jpg"] and status["gone"] == [lost]
    draw(photos / "21.png", 23)  # a whole copy
    assert LabelProject.open(photos).next()["item"].tolist() == ["21.png"]


def test_a_disk_that_is_not_there_loses_nothing(project, photos, truth):
    label_all(project, truth, 1)
    version = project.store.version
    (photos / "more").rename(photos.parent / "more")
    for path in photos.glob("*.png"):
        path.rename(photos.parent / path.name)
    with pytest.raises(UsageError, match="none of the 12 items any more: is the disk"):
        LabelProject.open(photos)
    assert project.store.version == version


def test_rows_are_known_whatever_else_comes_into_their_columns(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b,c\n" + "".join(f"{i},{i}.5,x\n" for i in range(6)))
    project = LabelProject.init(path, classes=PETS, batch_size=6)
    items = project.next()["item"]
    project.answer(items, ["cat", "dog"] * 3)
    before = pd.Series(project.store.labels()).tolist()
    path.write_text(f"a,b,c\n,word,2\n{path.read_text().partition(chr(10))[2]}")
    project = LabelProject.open(path.parent)
    assert project.found["new"] == ["0"] and not project.found["gone"]
    assert project.store.labels().tolist() == [*before, None]
    assert project.store.items()["item"].tolist() == list("1234560")


def test_texts_without_a_backbone(reviews):
    project = LabelProject.init(
        reviews, classes=["good", "bad"], text_column="text", batch_size=4
    )
    for _ in range(2):
        batch = project.next()
        labels = ["good" if "fine" in text else "bad" for text in batch["text"]]
        project.answer(batch["item"], labels)
    found = project.predict()
    expected = ["bad" if int(item) % 2 else "good" for item in found["item"]]
    assert found["label"].tolist() == expected
    assert project.model_.predict(["such a fine one"]).tolist() == ["good"]


def test_tables_with_holes_and_words(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [f"{i % 2 + i / 100:.2f},{'ab'[i % 2]},{i}" for i in range(20)]
    path.write_text("x,kind,item\n" + "\n".join(rows) + "\n,b,20\n")
    project = LabelProject.init(path, classes=["0", "1"], batch_size=5)
    batch = project.next()
    assert batch.columns.tolist() == ["item", "label", "x", "kind", "skal_id"]
    for _ in range(2):
        batch = project.next()
        project.answer(batch["item"], ["01"["ab".index(k)] for k in batch["kind"]])
    found = project.predict()
    assert found["label"].tolist() == ["01"[i % 2] for i in range(20)] + ["1"]
    frame = pd.DataFrame({"x": [0.1], "kind": ["new"], "item": [3]})
    assert project.model_.predict(frame).tolist() == ["0"]


def test_a_network_sees_the_images(photos, truth):
    project = LabelProject.init(photos, classes=PETS, model="cnn", batch_size=6)
    label_all(project, truth, 1)
    assert len(project.next()) == 6
    assert project.model_.steps[-1][1].estimator_.module_.network is not None
    assert set(project.predict()["label"]) <= set(PETS)


def test_predictions_name_what_a_person_should_look_at(project, truth):
    asked = label_all(project, truth, 2)
    wrong = asked[0]
    project.answer(wrong, "dog" if truth(wrong) == "cat" else "cat", "eve")
    project.answer(asked[1], "cat" if truth(asked[1]) == "dog" else "dog")
    found = project.predict().set_index("item")
    assert found.at[wrong, "look"] == "conflict"
    unsure = found["given"].isna() & (found["confidence"] < 0.8)
    expected = unsure & (found.index != wrong)
    assert (found["look"] == "unsure").equals(expected)
    disagrees = found["given"].notna() & (found["given"] != found["label"])
    assert (found["look"] == "disagrees").equals(disagrees)


def test_a_project_moves_with_its_folder(project, photos, truth):
    label_all(project, truth, 1)
    project.store.close()
    moved = photos.rename(photos.parent / "elsewhere")
    assert LabelProject.open(moved).status()["n_labeled"] == 4


def test_new_classes(project, truth):
    label_all(project, truth, 2)
    with pytest.raises(ValueError, match="'cow' is no class"):
        project.answer("0.png", "cow")
    assert project.add_classes(["cow"]) == ["cow"]
    project.answer("0.png", "cow")
    assert set(project.model_.classes_) == {"cat", "dog", "cow"}


def test_thumbnails_are_kept_and_a_damaged_file_of_them_is_not_read(project, photos):
    first = project.learner.rows()[1]
    path = photos / ".skal/thumbnails.npz"
    before = path.stat().st_mtime_ns
    assert np.array_equal(LabelProject.open(photos).learner.rows()[1], first)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(LabelProject.open(photos).learner.rows()[1], first)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": ["cat"]}, "--classes must name two different"),
        ({"classes": ["cat", "cat"]}, "--classes must name two different"),
        ({"classes": ["cat", " dog"]}, "--classes: .*blanks around"),
        ({"strategy": "margn"}, "--strategy cannot be 'margn'; did you mean"),
        ({"model": "linaer"}, "--model cannot be 'linaer'; did you mean"),
        ({"batch_size": 0}, "--batch-size must be a whole number"),
        ({"text_column": "text"}, "leave out --text-column"),
        ({"speed": 3}, "no option 'speed'"),
        ({"backbone": "timm:x", "model": "cnn"}, "--model cnn needs the images"),
    ],
)
def test_wrong_settings_leave_nothing_behind(photos, options, message):
    with pytest.raises(UsageError, match=message):
        LabelProject.init(photos, **{"classes": PETS, **options})
    assert not (photos / ".skal/project.toml").exists()


def test_projects_that_are_not_there_or_there_already(project, photos, tmp_path):
    with pytest.raises(UsageError, match="has a project already"):
        LabelProject.init(photos, classes=PETS)
    with pytest.raises(UsageError, match="has no project; make one"):
        LabelProject.open(tmp_path)
    with pytest.raises(UsageError, match="has no images"):
        LabelProject.init(tmp_path / "photos/.skal", classes=PETS, project=tmp_path)
    with pytest.raises(UsageError, match="there is no model yet"):
        project.predict()
    (photos / ".skal/project.toml").write_text("source = 3 4")
    with pytest.raises(UsageError, match="project.toml is not TOML"):
        LabelProject.open(photos)
    (photos / ".skal/project.toml").write_text('source = ".."\nmodel = "x"')
    with pytest.raises(UsageError, match="project.toml: model cannot be 'x'"):
        LabelProject.open(photos)


def test_the_model_can_be_cloned(project, truth):
    label_all(project, truth, 2)
    clone(project.model_)


def test_a_backbone_sees_the_images(photos, truth, monkeypatch):
    """Its features are cached, and a file that turns out broken is passed over."""
    whole = (photos / "more/11.jpg").read_bytes()
    (photos / "12.jpg").write_bytes(whole[:-20])
    seen = []

    class Backbone(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x.mean((2, 3))

    monkeypatch.setattr(
        "skal.models.FrozenFeatures",
        lambda backbone, cache, changed_files: FrozenFeatures(
            Backbone(), preprocess=_small, cache=cache
        ),
    )
    project = LabelProject.init(
        photos, classes=PETS, backbone="torchvision:resnet18", batch_size=4
    )
    label_all(project, truth, 2)
    assert project.learner.rows()[1].shape == (12, 3)
    found = project.predict()
    assert found["label"].tolist() == [truth(item) for item in found["item"]]
    assert project.status()["broken"] == ["12.jpg"]
    seen.clear()
    LabelProject.open(photos).predict()
    assert seen == []


def _small(image):
    return image.float()[:, :7, :7] / 255


def test_two_who_choose_at_once_both_get_items(project, photos, monkeypatch):
    """The second's choice is made before it sees that of the first."""
    other, choose = LabelProject.open(photos), LabelProject.choose
    rows = choose(project)

    def late(self, n_items):
        monkeypatch.setattr(LabelProject, "choose", choose)
        project.store.hand_out(4, "ann")
        self.store.choose(rows)
        return rows

    monkeypatch.setattr(LabelProject, "choose", late)
    monkeypatch.setattr(other.store, "hand_out", _empty_once(other.store.hand_out))
    batch = other.next(annotator="bob")
    names = project.store.items().loc[rows, "item"]
    assert len(batch) == 4 and not set(batch["item"]) & set(names)


def _empty_once(hand_out):
    calls = []

    def first_nothing(*args, **options):
        calls.append(1)
        return [] if len(calls) == 1 else hand_out(*args, **options)

    return first_nothing


def test_items_none_of_which_can_be_read(photos):
    for path in [*photos.glob("*.png"), *photos.glob("more/*")]:
        path.write_text("no image")
    project = LabelProject.init(photos, classes=PETS)
    assert len(project.status()["broken"]) == 12
    with pytest.raises(UsageError, match="two items at least that can be read, got 0"):
        project.next()
