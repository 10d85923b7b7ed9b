import json
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from PIL import Image

from skal.annotate import LabelProject
from skal.annotate.sources import find_source
from skal.annotate.writing import write_batch, write_frame, write_sheet
from skal.datasets import load_dataset
from skal.experiment.options import UsageError

PETS = ["cat", "dog"]


def answer_tasks(path, form, labels):
    """Do in a file what a person does in a tool, and export it as the tool does."""
    if form == "csv":
        frame = pd.read_csv(path, dtype=object)
        frame["label"] = labels
        frame.to_csv(path, index=False)
        return path
    if form == "label-studio":
        tasks = json.loads(path.read_text())
        for task, label in zip(tasks, labels, strict=True):
            value = {"type": "choices", "value": {"choices": [label]}}
            task["annotations"] = [{"result": [value], "was_cancelled": False}]
        path.write_text(json.dumps(tasks))
        return path
    tasks = [json.loads(line) for line in path.read_text().splitlines()]
    for task, label in zip(tasks, labels, strict=True):
        if form == "argilla":
            task["responses"] = {"label": [{"value": label, "status": "submitted"}]}
        else:
            assert [option["id"] for option in task["options"]] == PETS
            task |= {"accept": [label], "answer": "accept"}
    path.write_text("\n".join(map(json.dumps, tasks)))
    return path


@pytest.mark.parametrize(
    "form, name",
    [
        ("csv", "a.csv"),
        ("label-studio", "a.json"),
        ("argilla", "a.jsonl"),
        ("prodigy", "a.jsonl"),
    ],
)
@pytest.mark.parametrize("kind", ["images", "texts", "table"])
def test_a_batch_goes_out_and_comes_back(photos, reviews, tmp_path, kind, form, name):
    source = photos if kind == "images" else reviews
    column = "text" if kind == "texts" else None
    project = LabelProject.init(
        source, classes=PETS, project=tmp_path / "p", text_column=column, batch_size=4
    )
    batch, path = project.next(), tmp_path / name
    assert write_batch(project, batch, path, form)[0] == path
    assert write_batch(project, batch, path, form)[0] == path  # nothing is in it yet
    labels = ["cat", "dog", "dog", "cat"]
    path = answer_tasks(path, form, labels)
    with pytest.raises(UsageError, match="holds what was not added"):
        write_batch(project, batch, path, form)
    assert project.add(path).n_recorded == 4
    write_batch(project, batch, path, form)  # it is in the store
    y = pd.Series(project.store.labels(), index=project.store.items()["item"])
    assert y[batch["item"]].tolist() == labels and y.count() == 4


def test_label_studio_gets_its_interface(project, photos, tmp_path):
    project.add_classes(['a "b" <i>&'])
    (photos / "0.png").rename(photos / "ä b&c.png")
    project.refresh()
    batch = project.describe(["ä b&c.png"])
    paths = write_batch(project, batch, tmp_path / "t.json", "label-studio")
    assert [path.name for path in paths] == ["t.json", "t.xml"]
    (task,) = json.loads(paths[0].read_text())
    assert task["data"] == {
        "image": "/data/local-files/?d=%C3%A4%20b%26c.png",
        "item": "ä b&c.png",
        "skal_id": f"{project.store.project_id}:0",
    }
    view = ElementTree.parse(paths[1]).getroot()
    values = [choice.get("value") for choice in view.iter("Choice")]
    assert values == ["cat", "dog", 'a "b" <i>&']
    (choices,) = view.iter("Choices")
    assert choices.get("name") == "label" and choices.get("toName") == "image"
    assert view.find("Image").attrib == {"name": "image", "value": "$image"}


def test_files_of_others_are_not_overwritten(project, tmp_path):
    path = tmp_path / "batch.csv"
    for text in ("name,price\nx,1\n", "", "item,label\n0.png,cat\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match="is there already"):
            write_batch(project, project.next(), path)
        assert path.read_text() == text
    with pytest.raises(UsageError, match="--format cannot be 'cvs'; did you mean"):
        write_batch(project, project.next(), path, "cvs")


def test_sheet(project, photos, tmp_path):
    batch = project.next()
    write_sheet(project, batch, tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (4 * 160, 178)
    with pytest.raises(UsageError, match="whose name has no such end"):
        project.export(tmp_path / "out.xlsx")
    with pytest.raises(UsageError, match="would be among them"):
        write_sheet(project, batch, photos / "more/s.png")
    with pytest.raises(UsageError, match="--sheet must end in"):
        write_sheet(project, batch, tmp_path / "s.pdf")


def test_export_as_a_table(project, tmp_path):
    project.answer(["1.png", "more/10.png", "0.png"], ["dog", "cat", None])
    assert project.export(tmp_path / "out.csv") == 2
    frame = pd.read_csv(tmp_path / "out.csv")
    assert frame[["item", "label"]].to_numpy().tolist() == [
        ["1.png", "dog"],
        ["more/10.png", "cat"],
    ]
    pytest.importorskip("pyarrow")
    project.export(tmp_path / "out.parquet")
    assert pd.read_parquet(tmp_path / "out.parquet").equals(frame)


def test_exported_texts_are_a_training_set(reviews, tmp_path):
    project = LabelProject.init(reviews, classes=PETS, text_column="text")
    project.answer(["3", "4"], PETS)
    project.export(tmp_path / "out.csv")
    frame = pd.read_csv(tmp_path / "out.csv")
    assert frame.columns.tolist() == ["item", "label", "text"]
    assert frame["text"].tolist() == ["a dull film no 3", "a fine, warm film no 4"]
    with pytest.raises(UsageError, match="images alone make a folder"):
        project.export(tmp_path / "out")


def test_export_by_class_is_a_data_set(photos, tmp_path):
    (photos / "more/11.jpg").unlink()
    project = LabelProject.init(photos, classes=PETS)
    items = project.store.items()["item"]
    project.answer(items, ["cat", "dog"] * 5 + ["cat"])
    out = tmp_path / "sets/out"
    assert project.export(out) == 11
    assert (out / "cat/more/10.png").read_bytes() == (
        photos / "more/10.png"
    ).read_bytes()
    data = load_dataset(str(out))
    assert data.classes == ("cat", "dog")
    assert len(data.y_train) + len(data.y_test) == 11
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["out"]
    with pytest.raises(UsageError, match="is there already"):
        project.export(out)
    with pytest.raises(UsageError, match="would be among them"):
        project.export(photos / "out")


def test_classes_that_are_no_names_of_folders(project, tmp_path):
    project.add_classes(["../dog"])
    project.answer("0.png", "../dog")
    with pytest.raises(UsageError, match="'../dog' cannot be the name of a folder"):
        project.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_need_a_known_ending(tmp_path):
    with pytest.raises(UsageError, match="must end in .csv or .parquet"):
        write_frame(pd.DataFrame(), tmp_path / "a.xls")


def test_what_parquet_needs_is_named(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise ImportError("no engine")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.raises(UsageError, match=r"a\.parquet needs .*: pip install pyarrow"):
        write_frame(pd.DataFrame({"a": [1]}), tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(pd, "read_parquet", fail)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(UsageError, match=r"a\.parquet needs .*: pip install pyarrow"):
        find_source(tmp_path / "a.parquet")
