"""How Sphinx builds the documentation: ``sphinx-build -W examples build/docs``.

The Python blocks of the pages run first, those of a page in one scope; then the gallery
runs. What fails ends the build.
"""

import doctest
import inspect
import os
import re
from importlib import import_module
from pathlib import Path

from sphinx.errors import ExtensionError

import skal

HERE = Path(__file__).parent
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

project = "skal"
author = copyright = "The skal developers"
version = release = skal.__version__
html_title = f"skal {version}"
html_theme = "furo"
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["GALLERY_HEADER.rst", "plot_*", "_templates"]
templates_path = ["_templates"]
default_role = "code"
nitpicky = True
# What other packages document is named, not linked: the build needs no network.
nitpick_ignore_regex = [(r"py:.*", r"(?!skal).*")]
suppress_warnings = ["ref.citation"]  # that a paper is listed, but not cited by number
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = True

sphinx_gallery_conf = {
    "examples_dirs": ".",
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"conf\.py",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,
}


def public_names(room):
    """Names of `__all__`, or what a single file defines."""
    module = import_module(room)
    return getattr(module, "__all__", None) or [
        name
        for name, member in vars(module).items()
        if getattr(member, "__module__", None) == module.__name__ and name[0] != "_"
    ]


def kind(room, name):
    member = getattr(import_module(room), name)
    return "class" if inspect.isclass(member) else "function"


autodoc_typehints = "none"
autosummary_context = {
    "rooms": {
        room: [(name, kind(room, name)) for name in sorted(public_names(room))]
        for room in re.findall(
            r"^   (skal\.\w+)$", (HERE / "api.rst").read_text(), re.M
        )
    }
}
numpydoc_show_class_members = False


TITLES = {
    "budgets": "Strategies that train, 500 labels and more",
    "digits": "Digits, ten seeds",
    "proof_tables": "All tables of the comparison",
    "repeated_images": "Images that are there five times",
}


def copy_measurements():
    """Copy the tables of the benchmarks, which are pages here, where they are new."""
    (HERE / "measured").mkdir(exist_ok=True)
    tables = HERE.parent / "benchmarks"
    for path in (*tables.glob("label_efficiency/*.*"), *tables.glob("peers/*.md")):
        if path.suffix == ".py":
            continue
        content = path.read_bytes()
        if path.suffix == ".md" and not content.startswith(b"# "):
            title = TITLES.get(path.stem, path.stem.replace("_", " ").capitalize())
            content = f"# {title}\n\n".encode() + content
        copy = HERE / "measured" / path.name
        if not copy.exists() or copy.read_bytes() != content:
            copy.write_bytes(content)


copy_measurements()


def run_blocks(app):
    """Run the Python blocks of the pages; doctests must print what they show."""
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    for page in sorted(HERE.glob("*.md")):
        scope = {"__name__": "__main__"}
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
            line = text.count("\n", 0, block.start(1))
            if block[1].startswith(">>>"):
                test = doctest.DocTestParser().get_doctest(
                    block[1], scope, page.name, str(page), line
                )
                if runner.run(test, clear_globs=False).failed:
                    raise ExtensionError(f"{page.name}: a doctest failed, see above")
                scope = test.globs
            else:
                exec(compile("\n" * line + block[1], str(page), "exec"), scope)


def find_short_names(app, env, node, contnode):
    """Link skal.PoolView, as users import it, to skal.pool.PoolView."""
    name = (node.get("reftarget") or "").removeprefix("skal.")
    home = skal._HOMES.get(name.partition(".")[0])
    if home is None or node.get("refdomain") != "py":
        return None
    return env.get_domain("py").resolve_xref(
        *(env, node["refdoc"], app.builder, node["reftype"], f"{home}.{name}"),
        *(node, contnode),
    )


def leave_out(app, what, name, member, skip, options):
    """Skip members that come from other packages, such as set_fit_request."""
    member = getattr(member, "fget", None) or getattr(member, "func", member)
    if inspect.isroutine(member) or hasattr(member, "fn"):
        member = getattr(member, "fn", member)  # scikit-learn's available_if
        if not (getattr(member, "__module__", None) or "").startswith("skal."):
            return True
    return skip


def setup(app):
    app.connect("autodoc-skip-member", leave_out)
    app.connect("builder-inited", run_blocks, priority=100)
    app.connect("missing-reference", find_short_names)
