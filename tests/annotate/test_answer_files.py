import json

import pytest

from skal.annotate import LabelProject
from skal.annotate.answers import read_answers
from skal.experiment.options import UsageError


def key(project, item):
    (number,) = project.store.numbers([item])
    return {"item": item, "skal_id": f"{project.store.project_id}:{number}"}


def labels(project):
    y = project.store.labels(skip_label="?")
    items = project.store.items()["item"]
    return {item: label for item, label in zip(items, y, strict=True) if label}


def choice(label, **more):
    result = {"from_name": "label", "to_name": "image", "type": "choices"}
    result["value"] = {"choices": [label] if isinstance(label, str) else label}
    return {"result": [result], "was_cancelled": False, "completed_by": 1, **more}


def save(tmp_path, name, content):
    path = tmp_path / name
    if name.endswith(".json"):
        content = json.dumps(content, indent=1)
    elif name.endswith(".jsonl"):
        content = "\n".join(map(json.dumps, content))
    path.write_text(content)
    return path


def as_csv(project):
    zero, two = key(project, "0.png")["skal_id"], key(project, "2.png")["skal_id"]
    rows = f"0.png,cat,{zero}", "1.png,dog,", f",?,{two}", "3.png,,"
    return "item,label,skal_id\n" + "\n".join(rows)


def as_label_studio(project):
    tasks = [key(project, f"{i}.png") for i in range(4)]
    skip = {"result": [], "was_cancelled": True, "completed_by": 1}
    empty = {"result": [], "was_cancelled": False, "completed_by": 1}
    said = [[choice("cat", lead_time=2.5)], [empty, choice("dog")], [skip], []]
    return [
        {"id": 5 + i, "data": data, "annotations": each, "predictions": []}
        for i, (data, each) in enumerate(zip(tasks, said, strict=True))
    ]


def as_json_min(project):
    keys = [key(project, f"{i}.png") for i in range(3)]
    common = {"id": 11, "annotator": 1, "annotation_id": 7, "lead_time": 4.2}
    answers = ["cat", "dog", "?"]
    return [{**k, **common, "label": a} for k, a in zip(keys, answers, strict=True)]


def as_label_studio_csv(project):
    columns = "annotation_id,annotator,created_at,id,image,item,label,lead_time,skal_id"
    rows = [columns]
    for i, label in enumerate(["cat", "dog", "?"]):
        skal_id = key(project, f"{i}.png")["skal_id"]
        rows.append(f"7,1,now,11,/data/x.png,{i}.png,{label},4.2,{skal_id}")
    return "\n".join(rows)


def as_argilla(project):
    said = [("cat", "submitted"), ("dog", "submitted"), (None, "discarded")]
    said.append(("dog", "draft"))
    return [
        {
            "id": key(project, f"{i}.png")["skal_id"],
            "fields": {"image": "x"},
            "metadata": {"item": f"{i}.png"},
            "responses": {"label": [{"value": v, "user_id": "u", "status": status}]},
        }
        for i, (v, status) in enumerate(said)
    ]


def as_flat_argilla(project):
    said = [("cat", "submitted"), ("dog", "submitted"), (None, "discarded")]
    records = [
        {
            "id": key(project, f"{i}.png")["skal_id"],
            "label.responses": [v],
            "label.responses.users": ["u"],
            "label.responses.status": [status],
        }
        for i, (v, status) in enumerate(said)
    ]
    open_one = {"id": key(project, "3.png")["skal_id"], "label.responses": None}
    return [*records, open_one]


def as_prodigy(project):
    said = [(["cat"], "accept"), (["dog"], "accept"), ([], "ignore")]
    return [
        {"image": "x", "accept": a, "answer": b, "meta": key(project, f"{i}.png")}
        for i, (a, b) in enumerate(said)
    ]


@pytest.mark.parametrize(
    "name, make",
    [
        ("a.csv", as_csv),
        ("a.json", as_label_studio),
        ("a.json", as_json_min),
        ("a.csv", as_label_studio_csv),
        ("a.jsonl", as_argilla),
        ("a.jsonl", as_flat_argilla),
        ("a.jsonl", as_prodigy),
    ],
)
def test_every_format_says_the_same(project, tmp_path, name, make):
    path = save(tmp_path, name, make(project))
    assert project.add(path)[:2] == (3, 0)
    assert labels(project) == {"0.png": "cat", "1.png": "dog", "2.png": "?"}
    version = project.store.version
    assert project.add(path)[:2] == (0, 3)  # read twice, nothing is said twice
    assert project.store.version == version


def test_seconds_and_annotators_are_kept(project, tmp_path):
    project.add(save(tmp_path, "a.json", as_label_studio(project)))
    answers = project.store.answers()
    assert answers["seconds"].tolist()[0] == 2.5
    assert set(answers["annotator"]) == {"1"}


def test_several_annotators_vote(project, tmp_path):
    task = {"data": key(project, "0.png"), "annotations": []}
    who = [{"email": "ann@x.org", "id": 1}, {"id": 2}, 3]
    for annotator, label in zip(who, ["cat", "dog", "dog"], strict=True):
        task["annotations"].append(choice(label, completed_by=annotator))
    assert project.add(save(tmp_path, "a.json", [task])).n_recorded == 3
    assert set(project.store.answers()["annotator"]) == {"ann@x.org", "2", "3"}
    assert labels(project) == {"0.png": "dog"}


def test_new_classes_and_corrections_are_asked_for(project, tmp_path):
    project.answer("0.png", "cat")
    path = save(tmp_path, "a.csv", "item,label\n1.png,cow\n0.png,dog\n")
    with pytest.raises(UsageError, match="line 2: no class 'cow'.*--new-classes"):
        project.add(path)
    with pytest.raises(UsageError, match="line 3: '0.png' is dog here and was cat"):
        project.add(path, new_classes=True)
    assert project.store.classes == ["cat", "dog"]
    assert labels(project) == {"0.png": "cat"}
    assert project.add(path, new_classes=True, correct=True).n_recorded == 2
    assert labels(project) == {"0.png": "dog", "1.png": "cow"}


@pytest.mark.parametrize(
    "rows, message",
    [
        ("item,label\n0.png,cat\n1.png,Cat", "line 3: no class 'Cat'; did you mean"),
        ("item,label\n0.png,cat\nO.png,cat", "line 3: there is no item 'O.png'; did"),
        ("item,label\n0.png,cat\n0.png,cat", "line 3: '0.png' was answered in line 2"),
        ("item,label\n0.png,cat\n,dog", "line 3: which item"),
        ("item,name\n0.png,cat", "line 1: the columns item and label"),
        ("item,label", "no rows"),
        ("item,label,annotator\n0.png,cat,ann\n1.png,cat,", "line 3: .*mixed, of ann"),
        ("item,label,seconds\n0.png,cat,1\n1.png,dog,-3", "line 3: .*no seconds"),
        ("item,label,seconds\n0.png,cat,1\n1.png,dog,x", "line 3: .*float.*correct"),
        ("item,label,skal_id\n0.png,cat,\n1.png,cat,beef:1", "line 3: .*another proj"),
        ("item,label,skal_id\n0.png,cat,\n1.png,cat,ID:99", "line 3: there is no item"),
        ("item,label,skal_id\n0.png,cat,\n1.png,cat,ID:2", "line 3: .*sorted alone"),
        ("item,label\n0.png,cat\ngone.png,cat", "line 3: 'gone.png' was deleted"),
    ],
)
def test_wrong_csv_changes_nothing(project, photos, tmp_path, rows, message):
    (photos / "0.png").rename(photos / "gone.png")
    project.refresh()
    (photos / "gone.png").unlink()
    (photos / "0.png").write_bytes((photos / "2.png").read_bytes())
    project.refresh()
    version = project.store.version
    rows = rows.replace("ID", project.store.project_id)
    with pytest.raises(UsageError, match=message):
        project.add(save(tmp_path, "a.csv", rows))
    assert project.store.version == version


@pytest.mark.parametrize(
    "annotation, message",
    [
        (choice(["cat", "dog"]), "line 2: an item has one class, got"),
        ({"result": [{"type": "rectangle"}]}, "line 2: an item has one choice"),
        (choice("cow"), "line 2: no class 'cow'"),
        ({"result": [{"type": "choices"}]}, "line 2: unexpected structure"),
        (3, "line 2: unexpected structure"),
    ],
)
def test_wrong_label_studio_changes_nothing(project, tmp_path, annotation, message):
    task = {"data": key(project, "0.png"), "annotations": [annotation]}
    with pytest.raises(UsageError, match=message):
        project.add(save(tmp_path, "a.json", [task]))
    assert labels(project) == {}


def test_wrong_jsonl_changes_nothing(project, tmp_path):
    good, wrong = as_prodigy(project)[:2]
    wrong = {**wrong, "answer": "reject", "label": "dog"}
    del wrong["accept"]
    with pytest.raises(UsageError, match="line 2: a rejected suggestion"):
        project.add(save(tmp_path, "a.jsonl", [good, wrong]))
    assert labels(project) == {}


def test_one_annotator_for_all(project, tmp_path):
    path = save(tmp_path, "a.csv", "item,label,annotator\n0.png,cat,ann\n1.png,dog,bob")
    with pytest.raises(UsageError, match="line 3: .*of ann, bob; .*--annotator"):
        project.add(path, "eve")
    assert project.add(save(tmp_path, "b.csv", as_csv(project)), "eve").n_recorded == 3
    assert set(project.store.answers()["annotator"]) == {"eve"}


def test_another_projects_file_is_refused(project, photos, tmp_path):
    other = LabelProject.init(photos, classes=["cat", "dog"], project=tmp_path / "o")
    path = save(tmp_path, "a.json", as_json_min(other))
    with pytest.raises(UsageError, match=r"a.json, line 2: .*another project.*--proj"):
        project.add(path)


def test_paths_as_other_programs_write_them(project, photos, tmp_path):
    rows = f"item,label\nmore\\10.png,cat\n{photos / '3.png'},dog\n"
    assert project.add(save(tmp_path, "a.csv", rows)).n_recorded == 2
    assert labels(project) == {"more/10.png": "cat", "3.png": "dog"}


def test_a_moved_photo_is_known_by_its_id(project, photos, tmp_path):
    path = save(tmp_path, "a.csv", as_csv(project))
    (photos / "0.png").rename(photos / "more/zero.png")
    assert project.refresh()["moved"] == ["0.png -> more/zero.png"]
    project.add(path)
    assert labels(project)["more/zero.png"] == "cat"


def test_a_question_mark_may_be_a_class(project, tmp_path):
    project.add_classes(["?"])
    path = save(tmp_path, "a.csv", as_csv(project))
    project.add(path)
    assert project.store.answers()["label"].tolist() == ["cat", "dog", "?"]
    assert [each.label for each in read_answers(path)] == ["cat", "dog", "?", ""]
