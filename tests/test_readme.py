"""The README's example, table and commands say what is there."""

import re
from pathlib import Path

import numpy as np
import pytest

from skal.utils import all_strategies, command_line_name

README = Path(__file__).parents[1] / "README.md"


def read():
    if not README.exists():
        pytest.skip("no README beside the tests")
    return README.read_text(encoding="utf-8")


def test_examples_run():
    first, *others = re.findall(r"```python\n(.*?)```", read(), re.S)
    assert len([line for line in first.splitlines() if line]) <= 15
    scope = {}
    exec(first, scope)
    history = scope["loop"].history_
    assert history["n_labeled"].tolist() == [10, 20, 30, 40, 50, 60]
    assert np.all(history["test_score"][-1] > 0.6)
    for code in others:
        exec(code, scope)


# One that wraps others is named with them, or is an option.
WRAPPED = {
    "stochastic": "power-bald",
    "partitioned": "--n-parts 8",
    "subsample": "--max-rows 20000",
}


def test_table_lists_every_strategy():
    for name, cls in all_strategies():
        (row,) = (line for line in read().splitlines() if f"| `{name}` |" in line)
        named = WRAPPED.get(command_line_name(cls), command_line_name(cls))
        assert f"`{named}`" in row.split("|")[2]


def test_links_lead_to_files():
    """Those of the pages are held by the build of the documentation."""
    links = re.findall(r"\]\(([^)]+)\)", read())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (README.parent / link).exists()] == []
    assert len(local) > 10


def test_is_read_in_ten_minutes():
    assert len(read().splitlines()) <= 150
