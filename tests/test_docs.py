"""The documentation: every public room has its page, the citation its version."""

import re
from pathlib import Path

import pytest

import skal

API = Path(__file__).parents[1] / "examples/api.rst"


def test_every_room_has_its_page():
    if not API.exists():
        pytest.skip("no examples beside the tests")
    rooms = re.findall(r"^   skal\.(\w+)$", API.read_text(encoding="utf-8"), re.M)
    assert sorted(rooms) == sorted(skal._MODULES)


def test_citation_names_the_version():
    citation = API.parents[1] / "CITATION.cff"
    if not citation.exists():
        pytest.skip("no citation beside the tests")
    assert f"\nversion: {skal.__version__}\n" in citation.read_text(encoding="utf-8")
