"""Comma-separated files and OpenML."""

import numpy as np
import pytest
from sklearn.utils import Bunch

from skal.datasets import load_dataset

NUMBERS = [f"{i},{i % 7 / 2},{'yes' if i % 3 else 'no'}" for i in range(40)]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def numbers(tmp_path):
    return write(tmp_path / "rows.data", NUMBERS)


@pytest.mark.parametrize(
    "file, column, shape, n_classes",
    [
        ("letter-recognition.data", 0, (16000, 16), 26),
        ("krkopt.data", -1, (22444, 23), 18),
        ("pendigits.tra", -1, (5995, 16), 10),
    ],
)
def test_real_tables(data_root, file, column, shape, n_classes):
    data = load_dataset(f"tabular/{file}", data_root, label_column=column)
    assert data.X_train.shape == shape and data.X_train.dtype == np.float32
    assert data.image_shape == shape[1:] == data.mean.shape == data.std.shape
    assert len(data.classes) == n_classes and data.augmentation is None
    np.testing.assert_allclose(data.mean, data.X_train.mean(0, np.float64), atol=1e-6)
    share = np.bincount(data.y_test) / np.bincount(np.r_[data.y_train, data.y_test])
    np.testing.assert_allclose(share, 0.2, atol=0.03)


def test_chess_columns_are_encoded(data_root):
    path = data_root / "tabular" / "krkopt.data"
    data = load_dataset(path)
    rows = [line.split(",") for line in path.read_text().split()]
    assert data.feature_names[:5] == ["0=a", "0=b", "0=c", "0=d", "1"]
    for row, number in zip(data.X_test[:50], data.test_indices, strict=False):
        named = dict(zip(data.feature_names, row, strict=True))
        column, rank = rows[number][:2]
        assert named[f"0={column}"] == 1 and named["1"] == int(rank)
        assert data.classes[data.y_test[0]] == rows[data.test_indices[0]][-1]


def test_real_table_with_its_test_file(data_root):
    folder = data_root / "tabular"
    data = load_dataset(folder / "pendigits.tra", test_path=folder / "pendigits.tes")
    assert data.X_train.shape == (7494, 16) and data.X_test.shape == (3498, 16)
    assert data.classes == tuple("0123456789") and data.test_indices is None
    assert data.X_test[0].tolist()[:4] == [88, 92, 2, 99] and data.y_test[0] == 8


def test_split_follows_the_seed(numbers):
    data, again = load_dataset(numbers), load_dataset(numbers, random_state=0)
    np.testing.assert_array_equal(data.X_train, again.X_train)
    np.testing.assert_array_equal(data.X_train[:, 0], data.train_indices)
    np.testing.assert_array_equal(data.X_test[:, 0], data.test_indices)
    other = load_dataset(numbers, random_state=1)
    assert not np.array_equal(data.test_indices, other.test_indices)
    assert len(load_dataset(numbers, test_size=13).y_test) == 13
    assert data.classes == ("no", "yes")


@pytest.mark.parametrize("column", ["kind", 1, -2])
def test_label_column_and_header(tmp_path, column):
    lines = ['size,kind,"the, colour"', " 1 , 10, red", "2, 9,blue", "3,10.0,red"]
    path = write(tmp_path / "a.csv", lines + ["4,9,blue", "", "5,9,red", "6,10,red"])
    data = load_dataset(path, label_column=column, test_size=0.4)
    assert data.classes == ("9", "10")
    assert data.feature_names == ["size", "the, colour=blue", "the, colour=red"]
    whole = np.empty((6, 3))
    whole[data.train_indices], whole[data.test_indices] = data.X_train, data.X_test
    expected = [[1, 0, 1], [2, 1, 0], [3, 0, 1], [4, 1, 0], [5, 0, 1], [6, 0, 1]]
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize(
    "lines, n_rows",
    [
        (["a,b", "1,x", "2,y", "3,x", "4,y"], 4),
        (["5,b", "1,x", "2,b", "3,x", "4,x"], 5),
        (["f1,f2", "u,x", "u,y", "v,x", "v,y"], 4),
        (["u,x", "u,y", "v,x", "v,y"], 4),
        (["1,2", "1,2", "3,4", "3,4"], 4),
    ],
)
def test_header_is_found(tmp_path, lines, n_rows):
    data = load_dataset(write(tmp_path / "a.txt", lines), test_size=0.5)
    assert len(data.y_train) + len(data.y_test) == n_rows


def test_header_option_wins(tmp_path):
    path = write(tmp_path / "a", ["1,2"] * 3 + ["3,4"] * 3)
    assert len(load_dataset(path, header=True, test_size=2).y_train) == 3
    assert len(load_dataset(path, header=False, test_size=2).y_train) == 4


def test_constant_column_and_unseen_text(tmp_path):
    path = write(tmp_path / "a.csv", ["0.1,p,A", "0.1,q,B"] * 5)
    test = write(tmp_path / "b.csv", ["0.3,q,A", "0.1,r,B"])
    data = load_dataset(path, test_path="b.csv", root=tmp_path)
    assert data.std[0] == 1
    np.testing.assert_allclose(data.X_test, [[0.3, 0, 1], [0.1, 0, 0]], rtol=1e-6)
    assert load_dataset(path, test_path=test).X_test.shape == (2, 3)


def test_numbers_among_categories(tmp_path):
    lines = [f"{door},{i % 2}" for i in range(5) for door in ("2", "3", "5more")]
    data = load_dataset(write(tmp_path / "a.csv", lines))
    assert data.feature_names == ["0=2", "0=3", "0=5more"]


def test_class_of_one_row_goes_to_training(tmp_path):
    path = write(tmp_path / "a.csv", [*NUMBERS, "1,2,rare"])
    with pytest.warns(UserWarning, match=r"\['rare'\] have one row each"):
        data = load_dataset(path)
    assert data.classes == ("no", "rare", "yes") and 1 not in data.y_test
    np.testing.assert_array_equal(np.flatnonzero(data.y_train == 1), [32])


def test_split_too_small_for_all_classes(numbers):
    with pytest.warns(UserWarning, match="too few for 2 classes.*not stratified"):
        assert len(load_dataset(numbers, test_size=1).y_test) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label_column": 3}, "label_column=3 must be .* from -3 to 2"),
        ({"label_column": True}, "label_column=True must be"),
        ({"label_column": 0}, r"label_column=0 .*40 different labels.*hardly classes"),
        ({"label_column": "a"}, r"label_column='a' must be one of .*\['0', '0.0'"),
        ({"label_column": "a", "header": False}, "label_column='a' is a name, but"),
        ({"test_size": 0.0}, "test_size must be .* got 0.0"),
        ({"test_size": 40}, "test_size=40 must leave rows on both sides"),
        ({"test_path": "."}, "test_path='.' must be of the same kind.*comma"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_wrong_option(numbers, options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(numbers, **options)


@pytest.mark.parametrize(
    "lines, message",
    [
        ([*NUMBERS, "1,2"], "2 columns in line 41 and 3 in line 1"),
        ([*NUMBERS, "1,?,yes"], r"column 1 of .* '\?' in line 41 is not a finite one"),
        ([*NUMBERS, "1,1e99,yes"], "'1e99' in line 41"),
        ([*NUMBERS, "nan,1,yes"], "column 0 .* 'nan' in line 41"),
        ([*NUMBERS, "1,1,"], "label_column=-1 .* has the label '' in row 40"),
        (["1,yes", "2,yes"], "must have two classes at least, got"),
        (["1;yes", "2;no"], "one column only .'1;yes'.*commas"),
        (['1,"yes', "2,no"], "cannot be read as comma-separated text"),
        ([], "is empty"),
        ([f"id{i},{i % 2}" for i in range(1001)], "1001 different texts, 1000 at most"),
    ],
)
def test_unfit_file_is_named(tmp_path, lines, message):
    path = write(tmp_path / "some.csv", lines)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(path)
    assert "some.csv" in str(caught.value)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["1,2,maybe"], r"has the classes \['maybe'\].*lacks; it has \['no', 'yes'\]"),
        (["1,2,3,yes"], "has 4 columns, .*rows.data' has 3"),
        (["1,2,yes", "1,two,no"], "column 1 .* holds numbers, but 'two' in line 2"),
    ],
)
def test_test_file_that_does_not_fit(numbers, tmp_path, lines, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(numbers, test_path=write(tmp_path / "other.tes", lines))
    assert "other.tes" in str(caught.value)


def test_test_file_with_other_names(tmp_path):
    path = write(tmp_path / "a.csv", ["a,b,c", *NUMBERS])
    test = write(tmp_path / "b.csv", ["b,a,c", *NUMBERS])
    with pytest.raises(ValueError, match="column 'b' where .*a.csv' has 'a'"):
        load_dataset(path, test_path=test)


def test_header_of_the_test_file_follows_the_training_file(tmp_path):
    words = ["u,x", "u,y", "v,x", "v,y"]
    test = write(tmp_path / "b", ["u,x", "v,y"])
    data = load_dataset(write(tmp_path / "a", words), test_path=test)
    assert len(data.y_test) == 2
    named = write(tmp_path / "c", ["f1,f2", *words])
    data = load_dataset(named, test_path=named)
    assert len(data.y_train) == len(data.y_test) == 4


@pytest.mark.parametrize("parameter", ["name", "test_path"])
def test_missing_file(numbers, tmp_path, parameter):
    paths = {"name": numbers, parameter: "no.csv"}
    with pytest.raises(FileNotFoundError, match=f"{parameter}='no.csv' .* below root="):
        load_dataset(**paths, root=tmp_path)


def test_bytes_are_no_text(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ValueError, match="a.png' cannot be read as comma-separated"):
        load_dataset(tmp_path / "a.png")


@pytest.mark.parametrize("options", [{"test_path": "a"}, {"header": True}])
def test_option_that_does_not_apply(options):
    with pytest.raises(ValueError, match="does not apply to the data set 'digits'"):
        load_dataset("digits", **options)


@pytest.fixture
def openml(monkeypatch):
    """A data set of 20 rows, as scikit-learn hands it over, and the requests."""
    requests = []
    fetched = Bunch(
        data=np.c_[np.arange(20.0), np.arange(20.0) % 3],
        target=np.array(["2", "10"] * 10, dtype=object),
        feature_names=["size", "colour"],
        categories={"colour": ["red", "green", "blue"]},
    )

    def fetch(**options):
        requests.append(options)
        return fetched

    monkeypatch.setattr("skal.datasets._openml.fetch_openml", fetch)
    return fetched, requests


def test_openml(openml, tmp_path):
    data = load_dataset("openml:6", tmp_path)
    request = openml[1][0]
    assert request["data_id"] == 6 and request["data_home"] == tmp_path
    assert data.classes == ("2", "10") and data.X_train.dtype == np.float32
    assert data.feature_names == [
        "size",
        *(f"colour={c}" for c in "red green blue".split()),
    ]
    np.testing.assert_array_equal(data.X_test[:, 0], data.test_indices)
    np.testing.assert_array_equal(data.X_test[:, 1:].argmax(1), data.test_indices % 3)
    load_dataset("openml:6", label_column="colour")
    assert openml[1][1]["target_column"] == "colour"


def test_openml_faults(openml, monkeypatch):
    for name in ("openml:", "openml:iris"):
        with pytest.raises(ValueError, match="must be openml: and a number"):
            load_dataset(name)
    with pytest.raises(ValueError, match="label_column=2 must be a name"):
        load_dataset("openml:6", label_column=2)
    openml[0].data[3, 0] = np.nan
    with pytest.raises(ValueError, match="no finite number in 1 rows of column 'size'"):
        load_dataset("openml:6")

    def offline(**options):
        raise OSError("no network here")

    monkeypatch.setattr("skal.datasets._openml.fetch_openml", offline)
    with pytest.raises(OSError, match="openml:6 could not be fetched .no network here"):
        load_dataset("openml:6")
