import pytest

from skal.annotate.records import read_records
from skal.experiment.options import UsageError

A, B = '{"item": "a", "label": "x\\ny"}', '{"item":"b","label":"z"}'


def records(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_records(path)


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.csv", 'item,label\na,"x\ny"\n\nb,z\n'),
        ("a.csv", '\ufeffitem;label\r\na;"x\r\ny"\r\n;\r\nb;z'),
        ("a.tsv", 'item\tlabel\na\t"x\ny"\n\nb\tz'),
        ("a.jsonl", '\n{"item": "a", "label": "x\\ny"}\n\n\n{"item":"b","label":"z"}'),
        (
            "a.json",
            '[\n{"item": "a",\n "label": "x\\ny"}\n,\n{"item":"b","label":"z"}]',
        ),
    ],
)
def test_records_and_their_lines(tmp_path, name, text):
    (line, first), (after, second) = records(tmp_path, name, text)
    assert (line, after) == (2, 5)
    first["label"] = first["label"].replace("\r", "")
    assert first == {"item": "a", "label": "x\ny"}
    assert second == {"item": "b", "label": "z"}


def test_one_column_may_hold_separators(tmp_path):
    found = records(tmp_path, "a.csv", "text\na, b; c\nd\n")
    assert found == [(2, {"text": "a, b; c"}), (3, {"text": "d"})]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "item,label\na,b\nc,d,e\n", "line 3: 3 cells.*2 columns; put quotes"),
        ("a.csv", "item,item\na,b\n", "line 1: two columns have one name"),
        ("a.csv", b"item,label\na,\xe9\n", "line 2: .*UTF-8; save"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2: this is no JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2: expected an object.*list"),
        ("a.json", '{"a": 1}', "line 1: expected a list"),
        ("a.json", '[{"a": 1},\n{"a" 2}]', "line 2: this is no JSON.*export"),
        ("a.json", '[{"a": 1}\n{"a": 2}]', "line 2: this is no JSON.*expecting ','"),
        ("a.json", '[{"a": 1},\n', "line 2: this is no JSON"),
        ("a.json", '[{"a": 1},\n3]', "line 2: expected an object.*int"),
    ],
)
def test_errors_name_file_line_and_remedy(tmp_path, name, text, message):
    with pytest.raises(UsageError, match=rf"{name}, {message}"):
        records(tmp_path, name, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_records(tmp_path / "a.csv")
