import numpy as np
import pytest

from skal.annotate.learning import build_features, estimate_accuracy
from skal.annotate.settings import Settings
from skal.annotate.sources import find_source


def test_accuracy_is_estimated_on_what_was_held_out():
    rng = np.random.default_rng(0)
    y = np.repeat(["cat", "dog"], 30)
    noise = rng.normal(size=(60, 200))  # of which a model learns all by heart
    found = estimate_accuracy(Settings(source="x"), noise, y)
    assert 0.25 < found.accuracy < 0.75 and found.n_labels == 60
    assert found.low < found.accuracy < found.high
    apart = noise[:, :2] + 10 * (y == "dog")[:, None]
    found = estimate_accuracy(Settings(source="x"), apart, y)
    assert found.accuracy == 1.0
    # Wilson's interval of 60 out of 60: z = 1.96, 60 / (60 + z^2).
    assert found.low == pytest.approx(60 / (60 + 1.959964**2), abs=1e-6)


def test_classes_of_one_label_are_left_out():
    X, settings = np.array([[0.0], [0.1], [9.0], [9.1], [5.0]]), Settings(source="x")
    y = np.array(["cat", "cat", "dog", "dog", "cow"])
    assert estimate_accuracy(settings, X, y)[::3] == (1.0, 4)
    assert estimate_accuracy(settings, X[1:], y[1:]) is None


def test_features_of_rows_with_lists_and_mixed_cells(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"a": {"b": 1}, "c": [1], "d": "x"}\n{"a": {"b": 1}, "c": [2], "d": 3}\n'
        '{"c": null, "d": true}\n'
    )
    X = build_features(find_source(path), Settings(source="x"), 3)
    X = X.fit_transform(find_source(path).frame)
    assert X.shape == (3, 2 + 3 + 3)
    assert X.sum(axis=1).tolist() == [3, 3, 3]


def test_features_of_few_texts_and_rows(tmp_path):
    for name, text in [
        ("a.txt", "x\ny\n"),
        ("b.txt", "a b\na c\nb c\n"),
        ("a.csv", "a,b\n1,x\n2,y\n,\n"),
    ]:
        (tmp_path / name).write_text(text)
        source = find_source(tmp_path / name)
        raw = source.raw(source.listing({}).names)
        X = build_features(source, Settings(source="x"), len(raw)).fit_transform(raw)
        assert np.isfinite(X).all() and len(np.unique(X, axis=0)) == len(raw)
