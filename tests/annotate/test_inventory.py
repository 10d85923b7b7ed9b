import pandas as pd

from skal.annotate.inventory import reconcile
from skal.annotate.sources import Listing


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
    assert compare(known(a="1"), {"a": "2"}) == ({0: (None, None)}, [])
    assert compare(known(a="1"), {"a": "2"}, rows=True) == ({0: (None, "gone")}, ["a"])


def test_a_row_that_is_put_before_the_others_moves_them():
    changes, new = compare(
        known(**{"0": "a", "1": "b"}), {"0": "new", "1": "a", "2": "b"}, rows=True
    )
    assert changes == {0: ("1", None), 1: ("2", None)} and new == ["0"]


def test_what_was_broken_is_looked_at_again_where_it_moved_or_changed():
    broken = [(("a", "1"), "broken")]
    assert compare(broken, {"b": "1"}) == ({0: ("b", "")}, [])
    assert compare(broken, {"a": "2"}) == ({0: (None, "")}, [])
    assert compare(broken, {"a": "1"}) == ({}, [])
