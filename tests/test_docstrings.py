"""Docstrings: the numpydoc sections, every parameter, a reference, an example."""

import inspect
import re

import pytest

import skal
import skal.analysis
import skal.annotate
import skal.callbacks
import skal.models
import skal.plotting
import skal.query
import skal.selection
import skal.testing
from skal.utils import all_strategies

ORDER = [
    "Parameters",
    "Attributes",
    "Returns",
    "Yields",
    "Raises",
    "Warns",
    "See Also",
    "Notes",
    "References",
    "Examples",
]
# No paper is behind these: a permutation, and sorting.
WITHOUT_REFERENCE = {"RandomQuery", "top_k"}

MODULES = (
    *(skal, skal.query, skal.selection, skal.models, skal.plotting),
    *(skal.testing, skal.analysis, skal.annotate, skal.callbacks),
)
PUBLIC = {name: getattr(module, name) for module in MODULES for name in module.__all__}
STRATEGIES = dict(all_strategies())
KERNELS = {name: PUBLIC[name] for name in skal.selection.__all__}
RULES = {
    name: cls
    for name, cls in vars(skal.callbacks).items()
    if inspect.isclass(cls) and issubclass(cls, skal.callbacks.StoppingRule)
}
RULES.pop("StoppingRule")
METHODS = {
    f"{name}.{attribute}": member
    for name, cls in PUBLIC.items()
    if inspect.isclass(cls)
    for attribute, member in vars(cls).items()
    if inspect.isfunction(member) and not attribute.startswith("_")
}


def sections(documented):
    """Split the docstring at its underlined titles; the summary is under ""."""
    parts = re.split(
        r"^(\w[\w ]*)\n-{3,}\n", inspect.getdoc(documented) or "", flags=re.MULTILINE
    )
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def documented_names(section):
    entries = re.findall(r"^(\S.*?)(?: : .*)?$", section, flags=re.MULTILINE)
    return [name.strip(" *") for entry in entries for name in entry.split(",")]


def parameters(documented):
    names = list(inspect.signature(documented).parameters)
    return [name for name in names if name != "self"]


@pytest.mark.parametrize("name", PUBLIC)
def test_summary_is_one_line_that_ends_in_a_full_stop(name):
    first, *rest = sections(PUBLIC[name])[""].strip().split("\n\n")
    assert first.endswith((".", ":")) and "\n" not in first, first


@pytest.mark.parametrize("name", PUBLIC)
def test_sections_are_in_order(name):
    found = [title for title in sections(PUBLIC[name]) if title]
    assert found == sorted(found, key=ORDER.index)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_is_documented(name):
    expected = parameters(PUBLIC[name])
    found = documented_names(sections(PUBLIC[name]).get("Parameters", ""))
    assert found == expected


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_documented(name):
    found = sections(METHODS[name])
    assert found[""].strip()
    if "Parameters" in found:
        documented = documented_names(found["Parameters"])
        assert sorted(documented) == sorted(parameters(METHODS[name]))


@pytest.mark.parametrize(
    "name", sorted({*STRATEGIES, *KERNELS, *RULES} - WITHOUT_REFERENCE)
)
def test_reference_is_given(name):
    documented = PUBLIC[name]
    assert re.search(r"\.\. \[\w+\] .*", sections(documented)["References"])


@pytest.mark.parametrize("name", [*STRATEGIES, *KERNELS])
def test_example_runs_as_a_doctest(name):
    documented = STRATEGIES.get(name) or KERNELS[name]
    assert re.search(
        r"^>>> .*" + name, sections(documented)["Examples"], flags=re.MULTILINE
    )
