import json

import pandas as pd
import pytest

from skal.annotate.sources import Listing, find_source, reconcile
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


@pytest.mark.parametrize(
    "name, content, column, message",
    [
        ("a.doc", "x", None, "neither a folder"),
        ("a.csv", "text,n\na,1\n", "txt", "'txt'; did you mean 'text'"),
        ("a.csv", "text,n\n", "text", "has no rows"),
        ("a.csv", "text,n\na\n", "text", "line 2: 1 cells"),
        ("a.txt", "", None, "has no rows"),
        ("a.parquet", "x", None, "cannot be read"),
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


def compare(known, there, rows=False):
    """Compare {name: content} of known items with what is there."""
    items = pd.DataFrame(
        [(*item, "", state) for item, state in known],
        columns=["item", "content", "stamp", "state"],
    )
    names, contents = list(there), list(there.values())
    listing = Listing(names, contents, [""] * len(names))
    changes, new = reconcile(items, listing, rows)
    changes = {n: (c.get("item"), c.get("state")) for n, c in changes.items() if c}
    return changes, [names[place] for place in new]


def known(**contents):
    return [(item, "") for item in contents.items()]


def test_nothing_has_changed():
    assert compare(known(a="1", b="2"), {"a": "1", "b": "2"}) == ({}, [])


def test_moved_new_and_gone():
    there = {"a": "1", "z": "2", "n": "9"}
    changes, new = compare(known(a="1", b="2", c="3"), there)
    assert changes == {1: ("z", None), 2: (None, "gone")}
    assert new == ["n"]


def test_two_that_change_places_are_not_new():
    changes, new = compare(known(a="1", b="2"), {"a": "2", "b": "1"})
    assert changes == {0: ("b", None), 1: ("a", None)} and new == []


def test_a_copy_is_a_new_item():
    assert compare(known(a="1"), {"a": "1", "b": "1"}) == ({}, ["b"])


def test_copies_move_in_order():
    changes, new = compare(known(a="1", b="1"), {"c": "1", "d": "1", "e": "1"})
    assert changes == {0: ("c", None), 1: ("d", None)} and new == ["e"]


def test_what_was_gone_comes_back():
    there = [(("a", "1"), "gone"), (("b", "2"), "")]
    assert compare(there, {"x": "1", "b": "2"}) == ({0: ("x", "")}, [])


def test_a_changed_file_is_the_same_item_a_changed_row_another():
    assert compare(known(a="1"), {"a": "2"}) == ({0: ("a", None)}, [])
    assert compare(known(a="1"), {"a": "2"}, rows=True) == ({0: (None, "gone")}, ["a"])


def test_a_row_that_is_put_before_the_others_moves_them():
    changes, new = compare(
        known(**{"0": "a", "1": "b"}), {"0": "new", "1": "a", "2": "b"}, rows=True
    )
    assert changes == {0: ("1", None), 1: ("2", None)} and new == ["0"]


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
