"""Tables of the user's own: text files, Parquet and OpenML."""

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
    lines = ['size,kind,"the, colour"', " 1 , 10, red", "2, 9,blue", "3,10,red"]
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
        ({"test_path": "."}, "test_path='.' must be of the same kind.*text file"),
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
        (["1:yes", "2:no"], "one column only .'1:yes'.*separator"),
        (['1,"yes', "2,no"], "cannot be read as text separated by ','"),
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
    with pytest.raises(ValueError, match="a.png' cannot be read as text"):
        load_dataset(tmp_path / "a.png")


@pytest.mark.parametrize("options", [{"test_path": "a"}, {"header": True}])
def test_option_that_does_not_apply(options):
    with pytest.raises(ValueError, match="does not apply to the data set 'digits'"):
        load_dataset("digits", **options)


def labelled(path, labels, n=20):
    """A file of one number and the labels in turn."""
    rows = [f"{i / 10},{label}" for i in range(n) for label in labels]
    return write(path, ["x,label", *rows])


@pytest.mark.parametrize(
    "labels, classes",
    [
        (["9007199254740993", "9007199254740992", "5"], None),
        (["-9007199254740993", "18446744073709551615", "0"], None),
        (["1_1", "11", "2_1"], None),
        (["1e2", "1e3", "100"], None),
        (["007", "7", "x"], None),
        (["0x10", "16", "1.6e1"], None),
        (["1.0", "1", "2"], None),
        (["1.10", "1.1", "1.9"], None),
        (["True", "TRUE", "true"], None),
        (["+", "-", "0"], None),
        (["1.0", "10.0", "9.0"], ("1", "9", "10")),
        (["1.000e+00", "0.000e+00"], ("0", "1")),
        (["10", "9", "2.5"], ("2.5", "9", "10")),
    ],
)
def test_names_of_classes_are_kept(tmp_path, labels, classes):
    data = load_dataset(labelled(tmp_path / "a.csv", labels))
    assert set(data.classes) == set(classes or labels)
    if classes:
        assert data.classes == classes
    y = np.empty(20 * len(labels), int)
    y[data.train_indices], y[data.test_indices] = data.y_train, data.y_test
    assert np.unique(y.reshape(20, -1), axis=0).shape[0] == 1
    assert len(np.unique(y[: len(labels)])) == len(labels)


def test_long_numbers_are_sorted_by_value(tmp_path):
    labels = ["9007199254740993", "9007199254740992", "5", "100"]
    data = load_dataset(labelled(tmp_path / "a.csv", labels))
    assert data.classes == ("5", "100", "9007199254740992", "9007199254740993")


def test_numbers_of_classes_in_two_notations(tmp_path):
    path = labelled(tmp_path / "a.csv", ["0", "1"])
    test = labelled(tmp_path / "b.csv", ["1.0", "0.0"], n=1)
    assert load_dataset(path, test_path=test).y_test.tolist() == [1, 0]


@pytest.mark.parametrize(
    "mark",
    ["", "?", "-", ".", "NaN", "NA", "n/a", "null", "<NA>", "#N/A", "None", "NaT"],
)
def test_marks_of_missing_labels(tmp_path, mark):
    path = labelled(tmp_path / "a.csv", ["setosa", mark, "other"])
    with pytest.raises(
        ValueError, match="rows 1, 4, 7.*20 in all.*missing_labels"
    ) as e:
        load_dataset(path)
    assert repr(mark) in str(e.value) and "a.csv" in str(e.value)


def test_a_class_that_is_called_like_a_mark(tmp_path):
    path = labelled(tmp_path / "a.csv", ["NA", "None", "DE"])
    for marks in ("", ["?", "null"], ()):
        data = load_dataset(path, missing_labels=marks)
        assert data.classes == ("DE", "NA", "None")
    with pytest.raises(ValueError, match="has the label 'DE' in rows 2, 5"):
        load_dataset(path, missing_labels="DE")


def table_text(separator, decimal=".", header=True, label_first=False):
    """Sixty rows of three numbers, up to three digits before the mark, and a kind."""
    rows = [["long", "wide", "deep", "kind"]] * header
    for i in range(60):
        cells = [f"{i * 7 % 500 + 0.5:.1f}", f"{-i / 4:.2f}", f"{i % 10}e-1"]
        cells = [cell.replace(".", decimal) for cell in cells]
        rows.append([*cells, ("low", "high")[i % 2]])
    if label_first:
        rows = [row[::-1] for row in rows]
    return [separator.join(row) for row in rows]


def whole(data):
    """All rows in their order in the file."""
    X = np.empty((len(data.y_train) + len(data.y_test), *data.image_shape), np.float32)
    X[data.train_indices], X[data.test_indices] = data.X_train, data.X_test
    return X


@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "  \t "])
@pytest.mark.parametrize("label_first", [False, True])
@pytest.mark.parametrize("header", [False, True])
def test_separator_and_decimal_are_found(
    tmp_path, separator, decimal, label_first, header
):
    if separator == decimal:
        pytest.skip("one mark for both")
    lines = table_text(separator, decimal, header, label_first)
    data = load_dataset(
        write(tmp_path / "a.txt", lines), label_column=0 if label_first else -1
    )
    expected = np.array([[i * 7 % 500 + 0.5, -i / 4, i % 10 / 10] for i in range(60)])
    expected = expected[:, ::-1] if label_first else expected
    np.testing.assert_array_equal(whole(data), expected.astype(np.float32))
    assert data.classes == ("high", "low")
    named = ["deep", "wide", "long"] if label_first else ["long", "wide", "deep"]
    if header:
        assert data.feature_names == named


@pytest.mark.parametrize(
    "lines, options, values",
    [
        (["1.234,5;{}", "2.000.000,25;{}"], {}, [1234.5, 2000000.25]),
        (['"1,234.5",{}', '"2,000,000.25",{}'], {}, [1234.5, 2000000.25]),
        (["1 234,5;{}", "2 000 000,25;{}"], {}, [1234.5, 2000000.25]),
        (["1,234;{}", "2,345;{}"], {"decimal": ","}, [1.234, 2.345]),
        (["1,234;{}", "2,345;{}"], {"decimal": "."}, [1234, 2345]),
        (["0,234;{}", "2,345;{}"], {}, [0.234, 2.345]),
        (["1.234,{}", "2.345,{}"], {}, [1.234, 2.345]),
        (["1,5;{}", "2,5;{}"], {}, [1.5, 2.5]),
        (['"1,5",{}', '"2,5",{}'], {}, [1.5, 2.5]),
        (["1:{}", "2:{}"], {"separator": ":"}, [1, 2]),
        (["1\t{}", "2\t{}"], {"separator": "tab"}, [1, 2]),
        (["1  {}", "2 {}"], {"separator": "whitespace"}, [1, 2]),
    ],
)
def test_thousands_and_given_marks(tmp_path, lines, options, values):
    rows = [line.format("no yes".split()[i]) for i, line in enumerate(lines)] * 10
    data = load_dataset(write(tmp_path / "a.csv", rows), header=False, **options)
    np.testing.assert_array_equal(whole(data)[:2, 0], np.float32(values))
    assert data.classes == ("no", "yes") and data.X_train.shape[1] == 1


@pytest.mark.parametrize(
    "lines",
    [
        ["room 1,{}", "room 2,{}"],
        ["a;3x,{}", "b;4x,{}"],
        ["2024-01-01 10:30,{}", "2024-01-02 10:30,{}"],
        ["'Smith; Jo',{}", "'Doe; Al',{}"],
    ],
)
def test_marks_inside_of_text_do_not_separate(tmp_path, lines):
    rows = [line.replace("'", '"').format(i) for i, line in enumerate(lines)] * 10
    data = load_dataset(write(tmp_path / "a.csv", rows), header=False)
    texts = sorted(line.split(",")[0].strip("'") for line in lines)
    assert data.feature_names == [f"0={text}" for text in texts]
    assert data.classes == ("0", "1")


@pytest.mark.parametrize(
    "lines, options, message",
    [
        (["1,234;a", "2,345;b"], {}, "numbers like '2,345': pass decimal=','"),
        (["1,5;2.5;a", "2,5;3.5;b"], {}, "like '2,5' and like '3.5': pass decimal"),
        (
            ["1;a", "2;b", "3;a;4"],
            {},
            "by ';', has 3 columns in line 3 and 2 in line 1",
        ),
        (['"1,5",2.5,a', '"2,5",3.5,b'], {}, "like '2,5' and like '3.5': pass decimal"),
        (
            ["1|2|z,0", "1|2|y,1"],
            {},
            r"separated by ',' or by '\|'; say which .* separator=','",
        ),
        (["1;a", "2;b"], {"separator": ","}, "one column only .'1;a'.*separator"),
        (
            ["1;a", "2;b"],
            {"separator": ";;"},
            "separator=';;' must be one character, 'tab'",
        ),
        (["1;a", "2;b"], {"decimal": "x"}, "decimal='x' must be '.' or ','"),
        (
            ["1,a"],
            {"separator": ",", "decimal": ","},
            "decimal=',' must .* not the sep",
        ),
    ],
)
def test_marks_that_cannot_be_known(tmp_path, lines, options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(write(tmp_path / "a.csv", lines), header=False, **options)


@pytest.mark.parametrize(
    "header, row",
    [
        ("0,1,2,3", "{i}.5,{k},{i},{k}"),
        (",0,1,2", "{i},{i}.5,{k},{k}"),
        ("1,2,3,4", "{i},{k},{i},{k}"),
        ("0,1,2", "{i}.5,{i}.25,{k}.5"),
        ("400,402,407,kind", "{i}.5,{i}.25,{i}.75,k{k}"),
        ("2019;2020;class", "{i},5;{i},25;k{k}"),
        ("0.0,1.0,2.0,3.0", "{i}.5,{i}.25,{i}.75,k{k}"),
        ("0.0,1.0,2.0,kind", "{i}.5,{i}.25,{i}.75,k{k}"),
    ],
)
def test_header_of_numbers(tmp_path, header, row):
    rows = [row.format(i=i, k=i % 2) for i in range(20)]
    data = load_dataset(write(tmp_path / "a.csv", [header, *rows]))
    assert len(data.y_train) + len(data.y_test) == 20 and len(data.classes) == 2
    names = header.replace(";", ",").split(",")[:-1]
    assert data.feature_names == names
    data = load_dataset(write(tmp_path / "b.csv", rows))
    assert len(data.y_train) + len(data.y_test) == 20


@pytest.mark.parametrize(
    "header, row",
    [
        ("0,1", "{i},{k}"),
        ("5,6", "{i}.5,{m}"),
        ("0,1,2", "{i},{i},{k}"),
        ("0,1,2", "{i}.5,{i}.25,{k}"),
    ],
)
def test_header_that_may_be_data_is_warned_of(tmp_path, header, row):
    rows = [row.format(i=i + 3, k=i % 2 + 1, m=i % 2 + 5) for i in range(20)]
    path = write(tmp_path / "a.csv", [header, *rows])
    with pytest.warns(UserWarning, match="a.csv.* is read as data .*header=True"):
        data = load_dataset(path)
    assert len(data.y_train) + len(data.y_test) == 21
    data = load_dataset(path, header=True)
    assert len(data.y_train) + len(data.y_test) == 20


def test_spreadsheet_marks(tmp_path):
    """BOM, CRLF, quoted newlines, quotes and separators, text below many numbers."""
    rows = [f'"{i},5";"two\nlines, ""x""";"größer {i % 2}"' for i in range(40)]
    path = tmp_path / "a.csv"
    text = "\r\n".join(["größe;note;Klasse, neu", "", *rows, ""])
    path.write_bytes(text.encode("utf-8-sig"))
    data = load_dataset(path, label_column="Klasse, neu")
    assert data.feature_names == ["größe", 'note=two\nlines, "x"']
    np.testing.assert_array_equal(whole(data)[:, 0], np.arange(40) + 0.5)
    assert data.classes == ("größer 0", "größer 1")


def test_text_below_the_rows_looked_at(tmp_path):
    rows = [f"{i % 3 if i < 1500 else 'x'},{i / 8},{i % 2}" for i in range(3000)]
    data = load_dataset(write(tmp_path / "a.csv", rows))
    assert data.feature_names == ["0=0", "0=1", "0=2", "0=x", "1"]
    np.testing.assert_array_equal(whole(data)[:, 4], np.arange(3000) / 8)
    np.testing.assert_array_equal(whole(data)[:, 3], np.arange(3000) >= 1500)


@pytest.mark.parametrize("last", ["1,x", "1,x,a,b", '1,"x"y,a', "1,2,a,"])
def test_faults_below_the_rows_looked_at(tmp_path, last):
    path = write(tmp_path / "a.csv", ["1,x,a", "2,y,b"] * 600 + [last])
    with pytest.raises(
        ValueError, match="a.csv'.*(columns in line 1201|expected after)"
    ):
        load_dataset(path)


def test_texts_are_those_of_the_training_rows(tmp_path):
    path = write(tmp_path / "a.csv", [f"t{i},{i % 2}" for i in range(20)])
    data = load_dataset(path)
    names = sorted(f"0=t{row}" for row in data.train_indices)
    assert data.feature_names == names and not data.X_test.any()
    np.testing.assert_array_equal(data.X_train.sum(1), 1)


def test_arrays_are_in_row_order(tmp_path):
    for name, lines in (("a", table_text(",")), ("b", NUMBERS)):
        data = load_dataset(write(tmp_path / name, lines))
        assert data.X_train.flags.c_contiguous and data.X_test.flags.c_contiguous


@pytest.mark.parametrize(
    "option", [{"separator": ";"}, {"decimal": ","}, {"missing_labels": ""}]
)
def test_option_of_text_files_only(option):
    with pytest.raises(ValueError, match="does not apply to the data set 'digits'"):
        load_dataset("digits", **option)


@pytest.fixture
def parquet(tmp_path):
    pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "size": np.arange(20) / 4,
            "colour": pd.Series(["red", "blue", None, "red"] * 5),
            "count": pd.Series(range(20), dtype="Int64"),
            "id": np.array([2**60 + 1, 2**60] * 10),
        }
    )

    def save(**columns):
        path = tmp_path / "a.parquet"
        frame.assign(**columns).to_parquet(path)
        return path

    return save


def test_parquet(parquet):
    data = load_dataset(parquet())
    assert data.classes == (str(2**60), str(2**60 + 1))
    names = ["size", "colour=", "colour=blue", "colour=red", "count"]
    assert data.feature_names == names
    expected = [[0, 0, 0, 1, 0], [0.25, 0, 1, 0, 1], [0.5, 1, 0, 0, 2]]
    np.testing.assert_array_equal(whole(data)[:3], expected)
    path = parquet()
    data = load_dataset(path, test_path=path, label_column="colour", missing_labels=())
    assert len(data.y_test) == 20 and "blue" in data.classes
    with pytest.raises(ValueError, match=r"label 'None'|label 'nan'"):
        load_dataset(path, label_column="colour")


def test_numbers_under_a_column_of_text(parquet, tmp_path):
    path = parquet(colour=["1", "x"] * 10).rename(tmp_path / "b.parquet")
    data = load_dataset(path, test_path=parquet(colour=np.arange(20) % 2))
    assert data.feature_names[1:3] == ["colour=1", "colour=x"]
    np.testing.assert_array_equal(data.X_test[:, 1], np.arange(20) % 2)
    assert not data.X_test[:, 2].any()


def test_unfit_parquet(parquet, tmp_path):
    path = parquet(size=np.r_[np.nan, np.arange(19)])
    with pytest.raises(ValueError, match=r"column 0 \('size'\) .* in row 0"):
        load_dataset(path)
    with pytest.raises(ValueError, match="header=True does not apply"):
        load_dataset(path, header=True)
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="a.parquet' is damaged"):
        load_dataset(path)


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
    openml[0].data[3] = 3, np.nan
    data = load_dataset("openml:6")
    assert not whole(data)[3, 1:].any() and whole(data)[4, 1:].tolist() == [0, 1, 0]
    openml[0].target[5] = None
    with pytest.raises(ValueError, match="openml:6 has the label 'nan' in row 5"):
        load_dataset("openml:6")

    def offline(**options):
        raise OSError("no network here")

    monkeypatch.setattr("skal.datasets._openml.fetch_openml", offline)
    with pytest.raises(OSError, match="openml:6 could not be fetched .no network here"):
        load_dataset("openml:6")
