"""Labels of any type: the missing ones, the classes, the codes."""

import numpy as np
import pandas as pd
import pytest
import torch

from skal.utils.labels import (
    check_labels,
    encode,
    known_labels,
    missing_mask,
    read_labels,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("y", "mark", "expected"),
    [
        ([0, -1, 2], -1, [0, 1, 0]),
        ([0.0, -1.0, 2.0], -1, [0, 1, 0]),
        ([0.0, NAN, 2.0], NAN, [0, 1, 0]),
        ([0.0, NAN, 2.0], np.float32("nan"), [0, 1, 0]),
        ([0.0, NAN, 2.0], 2, [0, 0, 1]),
        ([0, 1, 2], NAN, [0, 0, 0]),
        ([0, 1, 2], None, [0, 0, 0]),
        ([0, 1, 2], "?", [0, 0, 0]),
        ([True, False], -1, [0, 0]),
        (["a", "?", "b"], "?", [0, 1, 0]),
        (["a", "b", "-1"], -1, [0, 0, 0]),
    ],
)
def test_missing_mask_of_plain_arrays(y, mark, expected):
    mask = missing_mask(np.array(y), mark)
    assert mask.dtype == bool
    assert mask.tolist() == [bool(m) for m in expected]


@pytest.mark.parametrize(
    ("y", "mark", "expected"),
    [
        (["a", None, "b"], None, [0, 1, 0]),
        (["a", NAN, "b"], NAN, [0, 1, 0]),
        (["a", NAN, "b"], None, [0, 0, 0]),
        (["a", None, "b"], NAN, [0, 0, 0]),
        (["a", -1, "b"], -1, [0, 1, 0]),
        ([0, None, 2], None, [0, 1, 0]),
        ([0, "?", 2], "?", [0, 1, 0]),
        (["0", "?", 0], 0, [0, 0, 1]),
    ],
)
def test_missing_mask_of_objects(y, mark, expected):
    mask = missing_mask(np.array(y, dtype=object), mark)
    assert mask.tolist() == [bool(m) for m in expected]


def test_no_rows():
    assert missing_mask(np.array([], dtype=object), None).shape == (0,)
    y, missing = check_labels(np.array([], dtype=int), -1)
    assert len(y) == len(missing) == 0


@pytest.mark.parametrize(
    ("y", "mark", "classes", "n_missing"),
    [
        ([0, -1, 5], -1, [0, 5], 1),
        ([1.0, 0.0, NAN], NAN, [0.0, 1.0], 1),
        (["b", "a", "b"], -1, ["a", "b"], 0),
        (["b", None, "a"], None, ["a", "b"], 1),
        (("b", None, "a"), None, ["a", "b"], 1),
        (["b", "?", "a"], "?", ["a", "b"], 1),
        ([3, None, 1], None, [1, 3], 1),
        ([True, False], -1, [False, True], 0),
        (np.array([[0], [1]]), -1, [0, 1], 0),
        (pd.Series([2, 0, -1]), -1, [0, 2], 1),
        (pd.Series(["x", "y", "x"]), -1, ["x", "y"], 0),
        (pd.Series(["x", "y", None], dtype=object), None, ["x", "y"], 1),
        (pd.Series(["x", "y", "?"], dtype="string"), "?", ["x", "y"], 1),
        (pd.Series(["x", "y", "?"], dtype="category"), "?", ["x", "y"], 1),
        (pd.Series([4, 7, -1], dtype="Int64"), -1, [4, 7], 1),
        (pd.Series([True, False], dtype="boolean"), -1, [False, True], 0),
        (torch.tensor([2, 0, -1]), -1, [0, 2], 1),
    ],
)
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_check_labels(y, mark, classes, n_missing):
    labels, missing = check_labels(y, mark)
    assert labels.shape == missing.shape == (len(y),)
    assert missing.sum() == n_missing
    known = known_labels(labels, ~missing)
    assert np.unique(known).tolist() == classes
    codes = encode(known, np.array(classes))
    assert np.array(classes)[codes].tolist() == known.tolist()


@pytest.mark.parametrize(
    ("y", "mark"),
    [
        (pd.Series(["x", None, "y"], dtype="string"), NAN),
        (pd.Series(["x", np.nan, "y"], dtype="str"), NAN),
        (pd.Series(["x", None, "y"], dtype="string"), None),
        (pd.Series([1, None, 2], dtype="Int64"), None),
        (["x", None, "y"], None),
        (["x", NAN, "y"], NAN),
        (["x", -1, "y"], -1),
        (("x", -1, "y"), -1.0),
        ([2**53, NAN, 2**53 + 1], NAN),
        (pd.Series([2**53, None, 2**53 + 1], dtype="Int64"), pd.NA),
        (pd.Series([1, None, 2], dtype="Int64"), NAN),
        (pd.Series([1, None, 2], dtype="Int64"), pd.NA),
        (pd.Series(["x", None, "y"], dtype="string"), pd.NA),
        (pd.Series(["x", None, "y"], dtype="object"), None),
        (pd.Series([True, None, False], dtype="boolean"), NAN),
        (pd.Series(["x", None, "y"], dtype="category"), NAN),
    ],
)
def test_holes_of_pandas_are_missing(y, mark):
    labels, missing = check_labels(y, mark)
    assert missing.tolist() == [False, True, False]
    known = known_labels(labels, ~missing)
    assert len(np.unique(known)) == 2


@pytest.mark.parametrize(
    ("y", "mark", "match"),
    [
        ([0.0, NAN, 1.0], -1, "NaN"),
        ([0.0, NAN, -1.0], -1, "NaN"),
        (["a", None, "b"], -1, "None"),
        (np.array(["a", NAN, "b"], dtype=object), -1, "NaN"),
        (np.array(["a", NAN, "b"], dtype=object), None, "missing_label=None"),
        (pd.Series(["x", None], dtype="string"), -1, "NaN"),
        (pd.Series([1, None], dtype="Int64"), -1, "NaN"),
        (np.array(["a", 1], dtype=object), -1, "mixes labels"),
        ([0.5, 1.5, 2.5], -1, "continuous"),
        ([[0, 1], [1, 0]], -1, "1d array"),
    ],
)
def test_bad_labels(y, mark, match):
    with pytest.raises(ValueError, match=match):
        check_labels(y, mark)


# -- marks that NumPy turned into text ----------------------------------------------


@pytest.mark.parametrize(
    ("y", "mark"),
    [
        (np.array(["a", -1, "b"]), -1),
        (np.array(["a", -1, "b"]), -1.0),
        (np.array(["a", -1.0, "b"]), -1),
        (np.array(["a", 99, "b"]), 99),
        (np.array(["a", NAN, "b"]), NAN),
        (np.array(["a", NAN, "b"]), -1),
        (np.array(["a", NAN, "b"]), None),
        (np.array(["a", None, "b"]).astype(str), None),
        (np.array(["a", None, "b"]).astype(str), -1),
        (["a", "nan", "b"], pd.NA),
        (pd.Series(["a", "<NA>", "b"]), NAN),
        (pd.Series(["a", "-1", "b"], dtype="category"), -1),
    ],
)
def test_the_text_of_a_mark_is_no_class(y, mark):
    with pytest.raises(ValueError, match="text.*missing_label=.*dtype=object") as info:
        check_labels(y, mark)
    text = list(y)[1]
    assert f"pass missing_label={str(text)!r}" in str(info.value)
    _, missing = check_labels(y, str(text))
    assert missing.tolist() == [False, True, False]
    _, missing = check_labels(y, mark, classes=["a", "b", str(text)])
    assert not missing.any()


@pytest.mark.parametrize("y", [["a", "-1"], ["none", "NAN"], ["a", "-10"], ["1", "0"]])
def test_text_that_is_no_mark(y):
    _, missing = check_labels(np.array(y), None if "-1" in y else -1)
    assert not missing.any()


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (pd.Series([4, 7], dtype="Int64"), "i"),
        (pd.Series([True, False], dtype="boolean"), "b"),
        (pd.Series(["x", "y"], dtype="category"), "U"),
        (pd.Series([2**53, 2**53 + 1], dtype="category"), "i"),
        (pd.Series([4.0, 7.0], dtype="Float64"), "f"),
        ([True, False], "b"),
        ([np.int8(3), np.int8(4)], "i"),
        ([torch.tensor(3), torch.tensor(4)], "i"),
        ([2**63, 2**63 + 1], "u"),
        ([2**64, 2**64 + 1], "O"),
        (pd.array([2**53, 2**53 + 1], dtype="Int64"), "i"),
        (pd.array([True, False], dtype="boolean"), "b"),
        (pd.Categorical([2**53, 2**53 + 1]), "i"),
    ],
)
def test_containers_change_no_label(y, kind):
    labels = read_labels(y)
    assert labels.dtype.kind == kind and labels.tolist() == list(y)
    assert encode(labels, np.unique(labels)).tolist() == np.argsort(list(y)).tolist()


def test_the_one_column_of_a_frame():
    y = pd.DataFrame({"t": pd.array([2**53, None, 2**53 + 1], dtype="Int64")})
    labels, missing = check_labels(y, NAN)
    assert labels[~missing].tolist() == [2**53, 2**53 + 1]


def test_truth_values_beside_marks_stay_what_they_are():
    labels, missing = check_labels([True, -1, False], -1)
    assert missing.tolist() == [False, True, False]
    assert known_labels(labels, ~missing).dtype == bool


def test_holes_of_masked_arrays_are_no_labels():
    y = np.ma.masked_array([4, 7, 4], [False, True, False])
    _, missing = check_labels(y, None)
    assert missing.tolist() == [False, True, False]
    with pytest.raises(ValueError, match="None beside missing_label=-1"):
        check_labels(y, -1)


def test_polars_labels():
    polars = pytest.importorskip("polars")
    y = polars.Series([2**53, None, 2**53 + 1])
    labels, missing = check_labels(y, None)
    assert labels[~missing].tolist() == [2**53, 2**53 + 1]
    labels, missing = check_labels(polars.Series(["a", None, "b"]), None)
    assert missing.tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32, np.int64])
def test_labels_keep_their_type(dtype):
    y, missing = check_labels(np.array([0, 1, 2], dtype=dtype), -1)
    assert y.dtype == dtype
    assert not missing.any()


def test_non_contiguous_labels():
    y, missing = check_labels(np.arange(6)[::-2], 1)
    assert missing.tolist() == [False, False, True]
    assert encode(y[:2], np.array([3, 5])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("y", "dtype"),
    [
        ([1, 2], np.int64),
        ([1.0, 2.0], np.float64),
        (["a", "bcd"], np.dtype("<U3")),
        ([True, False], np.dtype(bool)),
        (["a", 1], np.dtype(object)),
        ([], np.dtype(object)),
    ],
)
def test_known_labels_have_their_natural_type(y, dtype):
    values = np.array(y, dtype=object)
    known = known_labels(values, np.ones(len(y), dtype=bool))
    assert known.dtype == dtype
    assert known.tolist() == y


# -- codes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([5, -2, 5, 9], [-2, 5, 9]),
        ([5.0, -2.0], [-2, 5, 9]),
        (["b", "ab", "b"], ["a", "ab", "b"]),
        ([True, False], [False, True]),
        (np.array([9, 5], dtype=object), [-2, 5, 9]),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_codes_are_positions_in_the_classes(y, classes, strict):
    codes = encode(y, np.array(classes), strict=strict)
    assert codes.dtype == np.int64
    assert codes.tolist() == [classes.index(label) for label in y]


@pytest.mark.parametrize(
    ("y", "classes", "strangers", "codes"),
    [
        ([0, 3, 1], [0, 1], "[3]", [0, 2, 1]),
        ([0, -7, 7, -7], [0, 1], "[-7, 7]", [0, 2, 2, 2]),
        ([0, 0.5], [0, 1], "[0.5]", [0, 2]),
        (["a", "c"], ["a", "b"], "['c']", [0, 2]),
        (["a", "b"], [0, 1], "['a', 'b']", [2, 2]),
        ([2**53 + 1], [2**53, 2**53 + 2], "[9007199254740993]", [2]),
        ([0, 1], ["a", "b"], "[0, 1]", [2, 2]),
        ([0.0, NAN], [0, 1], "[nan]", [0, 2]),
    ],
)
def test_labels_outside_the_classes(y, classes, strangers, codes):
    classes = np.array(classes)
    with pytest.raises(ValueError, match="y_test holds labels outside") as info:
        encode(y, classes, name="y_test")
    assert strangers in str(info.value)
    assert encode(y, classes, strict=False).tolist() == codes


def test_an_error_lists_few_strangers():
    with pytest.raises(ValueError, match=r"\[2, 3, 4, 5, 6\]"):
        encode(np.arange(1000), np.arange(2))


def test_encode_no_labels():
    assert encode(np.array([], dtype=int), np.arange(2)).shape == (0,)
    assert encode([], np.array(["a", "b"])).shape == (0,)


def test_extension_arrays_keep_their_type():
    large = [2**60, 2**60 + 1]
    assert read_labels(pd.array([1, 2], dtype="Int8")).dtype.kind == "i"
    assert read_labels(pd.array([*large, None])).tolist()[:2] == large
