"""What the page is told, over a live server; `test_browser` looks at it."""

import json

import numpy as np
from PIL import Image

from skal.annotate import LabelProject

NASTY = "<script>alert(1)</script>\"'&amp;"


def test_answers_come_back_with_the_next_item(live):
    assert live.ask("/next") == {"item": None, "done": False}
    live.store.choose([3, 1])
    first = live.ask("/next")["item"]
    assert (first["number"], first["kind"], first["answered"]) == (3, "images", False)
    second = live.ask("/answer", item=3, label="dog", seconds=1.5)
    assert second["item"]["number"] == 1
    event = live.store.events().loc[second["saved"]]
    assert (event["label"], event["seconds"]) == ("dog", 1.5)
    assert live.ask("/answer", item=1, label=None)["item"] is None
    assert live.ask("/undo")["item"]["number"] == 1
    state = json.loads(live.get("/state")[1])
    assert state["classes"] == [["cat", 0], ["dog", 1]]
    history = json.loads(live.get("/history")[1])
    assert [each["label"] for each in history] == ["dog"]
    item = json.loads(live.get("/items/3")[1])
    assert (item["answered"], item["label"]) == (True, "dog")


WRONG = [
    ({"item": 0, "label": "cow"}, "no class"),
    ({"item": 99, "label": "cat"}, "no item 99"),
    ({"item": "0", "label": "cat"}, "item"),
    ({"item": 0}, "label"),
    ({"item": 0, "label": "cat", "path": "x"}, "path"),
    ({"item": 0, "label": "cat", "seconds": -1}, "seconds"),
    ({"item": 0, "label": ["cat"]}, "label"),
    ({"item": 2**70, "label": "cat"}, "item"),
    ({"item": 0, "label": "cat", "annotator": "x" * 101}, "annotator"),
    ({"item": 0, "label": "cat", "annotator": "a\nb"}, "annotator"),
    ("[1, 2", "JSON"),
    ("", "JSON"),
    ('{"item": 0, "label": "\\ud800"}', "JSON"),
]


def test_wrong_answers_are_named_and_change_nothing(live):
    before = live.store.version
    for message, word in WRONG:
        status, text, _ = live.post("/answer", message)
        assert status in (400, 404), message
        assert word in json.loads(text)["error"]
    assert live.post("/classes", {"name": " "})[0] == 400
    assert live.store.version == before


def test_names_are_data_never_markup(tmp_path, serve_app):
    folder = tmp_path / NASTY.replace("/", "")
    folder.mkdir()
    name = "<img src=x onerror=alert(1)>.png"
    for file in (name, "b.png"):
        Image.new("RGB", (4, 4)).save(folder / file)
    project = LabelProject.init(folder, classes=[NASTY, "b"])
    project.store.choose([0, 1])
    live = serve_app(project)
    home = live.get("/")[1].decode()
    assert "<script>alert" not in home and "&lt;script&gt;alert" in home
    assert name not in home
    found, text, headers = live.post("/next", {})
    assert headers["content-type"] == "application/json"
    number = project.store.numbers([name])[0]
    assert live.get(f"/items/{number}/image")[0] == 200
    live.ask("/answer", item=number, label=NASTY)
    assert project.store.labels()[number] == NASTY


def test_images_are_sent_as_they_are_or_as_browsers_show_them(tmp_path, serve_app):
    values = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    for file in ("a.png", "b.tif"):
        Image.fromarray(values).save(tmp_path / file)
    (tmp_path / "c.ppm").write_bytes(b"P6 9 9 255 too short")
    project = LabelProject.init(tmp_path, classes=["a", "b"])
    live = serve_app(project)
    status, text, headers = live.get("/items/0/image")
    assert headers["content-type"] == "image/png"
    assert text == (tmp_path / "a.png").read_bytes()
    status, text, headers = live.get("/items/1/image")
    assert headers["content-type"] == "image/png"
    (tmp_path / "read.png").write_bytes(text)
    with Image.open(tmp_path / "read.png") as image:
        np.testing.assert_array_equal(np.asarray(image), values)
    status, text, _ = live.get("/items/2/image")
    assert status == 404 and "cannot be read" in json.loads(text)["error"]
    (tmp_path / "a.png").unlink()
    status, text, _ = live.get("/items/0/image")
    assert status == 404 and "deleted" in json.loads(text)["error"]


def test_what_the_worker_reports_is_passed_on(serve_app):
    woken = []
    guesses = {"3": ["dog", 0.9]}
    report = {"guesses": guesses, "advice": "Go on", "n_items": 11}
    live = serve_app(report=report, on_wake=lambda: woken.append(1))
    live.store.choose([3, 1])
    assert live.ask("/next")["item"]["guess"] == ["dog", 0.9]
    n_woken = len(woken)
    assert live.ask("/answer", item=3, label="dog")["item"]["guess"] is None
    assert len(woken) > n_woken > 0
    state = json.loads(live.get("/state")[1])
    assert (state["advice"], state["estimate"], state["n_items"]) == ("Go on", None, 11)
    live.worker.report = {"exhausted": True}
    found = live.ask("/answer", item=1, label="dog")
    assert (found["item"], found["done"]) == (None, True)
