import csv
import json

import numpy as np
import pandas as pd
import pytest

from skal.annotate.sources import find_source, show_json
from skal.experiment.options import UsageError

TEXTS = ["a fine film", "so, dull", "fine; acting", "dull"]


@pytest.fixture(params=["csv", "tsv", "json", "jsonl", "parquet", "txt"])
def file(request, tmp_path):
    kind = request.param
    path = tmp_path / f"texts.{kind}"
    frame = pd.DataFrame({"text": TEXTS, "n": range(4)})
    if kind == "txt":
        path.write_text("\n".join(TEXTS) + "\n")
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    elif kind == "json":
        path.write_text(json.dumps(frame.to_dict("records")))
    elif kind == "jsonl":
        path.write_text(frame.to_json(orient="records", lines=True))
    else:
        frame.to_csv(path, sep={"csv": ",", "tsv": "\t"}[kind], index=False)
    return path


def test_texts_of_any_file(file):
    source = find_source(file, None if file.suffix == ".txt" else "text")
    assert source.kind == "texts"
    listing = source.listing({})
    assert listing.names == ["0", "1", "2", "3"]
    assert len(set(listing.contents)) == 4
    assert source.raw(["2", "0"]) == ["fine; acting", "a fine film"]
    assert source.describe(["2"])["text"].tolist() == ["fine; acting"]


def test_a_table_with_decimal_commas(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("size;kind\n1,5;a\n2,5;b\n3,5;a\n")
    source = find_source(path)
    assert source.kind == "table"
    rows = source.raw(["0", "2"])
    assert rows["size"].tolist() == [1.5, 3.5] and rows["kind"].tolist() == ["a", "a"]


def test_empty_texts_are_faults(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\n  \ntwo\n")
    source = find_source(path)
    assert set(source.faults(["0", "1", "2", "3"])) == {"1", "2"}


def test_numbers_no_model_takes_are_faults(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("size,more,kind\n1,2,a\n,3,b\n3,inf,a\n-1e308,4,b\n")
    found = find_source(path).faults(["0", "1", "2", "3"])
    assert found == {
        "2": "the number inf in column 'more' is too large for a model",
        "3": "the number -1e+308 in column 'size' is too large for a model",
    }


def test_numbers_of_any_type_are_looked_at(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"size": [1.0, np.inf], "time": pd.to_timedelta([1, 2], "s")})
    frame["n"] = pd.array([1, None], dtype="Int64")
    frame.to_parquet(tmp_path / "a.parquet")
    assert set(find_source(tmp_path / "a.parquet").faults(["0", "1"])) == {"1"}
    frame[["time"]].to_parquet(tmp_path / "b.parquet")
    assert find_source(tmp_path / "b.parquet").faults(["0", "1"]) == {}


@pytest.mark.parametrize(
    "name, content, column, message",
    [
        ("a.doc", "x", None, "neither a folder"),
        ("a.csv", "text,n\na,1\n", "txt", "'txt'; did you mean 'text'"),
        ("a.csv", "text,n\n", "text", "has no rows"),
        ("a.csv", "text,n\na\n", "text", "line 2: 1 cells"),
        ("a.txt", "", None, "has no rows"),
        ("a.parquet", "x", None, "cannot be read|install pyarrow"),
        ("a.json", "[{]", "text", "line 1: this is no JSON"),
        (None, None, None, "there is no .*nothing"),
        ("folder/x", "x", "text", "leave out --text-column"),
    ],
)
def test_wrong_sources(tmp_path, name, content, column, message):
    path = tmp_path / (name or "nothing")
    if name:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        path = path.parent if "/" in name else path
    with pytest.raises(UsageError, match=message):
        find_source(path, column)


def test_rows_are_counted_whatever_the_index_of_the_file(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"text": TEXTS}, index=[7, 7, 3, 1]).to_parquet(tmp_path / "a.parquet")
    source = find_source(tmp_path / "a.parquet", "text")
    assert source.raw(source.listing({}).names) == TEXTS


def test_links_to_nothing_are_faults(photos):
    (photos / "a.png").symlink_to(photos / "nothing.png")
    source = find_source(photos)
    assert "a.png" in source.listing({}).names
    assert "No such file" in source.faults(["a.png", "0.png"])["a.png"]


def test_names_that_no_store_can_hold(photos):
    try:
        (photos / "\udcff.png").write_bytes(b"x")
    except OSError:
        pytest.skip("no such names here")
    with pytest.raises(UsageError, match="no UTF-8; rename it"):
        find_source(photos).listing({})


def test_only_the_end_of_a_line_ends_a_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\u2028text\r\n\r\ntwo\x0c\r\n".encode())
    assert find_source(path).frame["text"].tolist() == ["one\u2028text", "", "two\x0c"]
    path.write_bytes("text\none\u2028text\n".encode())
    path = path.rename(tmp_path / "a.csv")
    assert find_source(path, "text").frame["text"].tolist() == ["one\u2028text"]
    path.write_text("text,n\n" + "x" * 200_000 + ",1\n")  # the csv module has a limit
    limit = csv.field_size_limit()
    assert find_source(path, "text").frame["text"].str.len().tolist() == [200_000]
    assert csv.field_size_limit() == limit


def test_sentences_in_a_table_are_found(tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"{i},a fine film no {i},once upon a time,{'ab'[i % 2]}" for i in range(9)]
    path.write_text("n,review,motto,kind\n" + "\n".join(rows))
    assert find_source(path).sentences() == ["review"]


def test_values_that_json_can_hold():
    shown = [
        show_json(x) for x in (np.int64(3), np.nan, pd.NaT, np.arange(2), {"a": 1})
    ]
    assert shown == [3, None, None, "[0 1]", {"a": 1}]
