"""The layers: who may import whom, and who may print or write.

This reads the source without running it. The tests of a module sit at the path of its
source: skal/selection/_top_k.py is tested in tests/selection/test_top_k.py.
"""

import ast
from pathlib import Path

import pytest

import skal
import skal.query
from skal.utils import all_strategies

ROOT = Path(skal.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# The floors of the house, top down: imports go down only, and places on one floor never
# import each other.
FLOORS = [
    {"cli"},
    {"report", "annotate"},
    {"experiment"},
    {"loop", "testing", "callbacks"},
    {"query"},
    {"pool", "posterior", "models"},
    {"net", "selection", "datasets", "plotting"},
    {"analysis"},
    {"utils"},
]
MAY_IMPORT = {
    place: set().union(*FLOORS[number + 1 :])
    for number, floor in enumerate(FLOORS)
    for place in floor
}
ANYTHING = {"__init__", "__main__", "_version"}
# Outside of functions only in rooms that nothing but their own commands loads.
ONLY_IN_FUNCTIONS = {
    "matplotlib": set(),
    "torchvision": set(),
    "pandas": {"report", "annotate"},
    "jinja2": {"report", "annotate"},
    "starlette": {"annotate"},
    "uvicorn": set(),
}
MAY_IMPORT_BY_NAME = {"__init__.py", "utils/discovery.py"}
WRITING = {"cli", "annotate", "report", "experiment", "loop", "__main__"}
PRIVATE_SKLEARN = "utils/validation.py"
WRITERS = {
    "open": lambda call: set(_mode(call)) & set("wax+"),
    "fdopen": lambda call: set(_mode(call)) & set("wax+"),
    **dict.fromkeys(
        "print write_text write_bytes savefig save savez savez_compressed savetxt "
        "tofile to_csv to_json to_pickle".split(),
        lambda call: True,
    ),
}


def _mode(call):
    """Mode of a call of open; one that is not written out counts as writing."""
    keywords = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    mode = [*call.args[1:2], *keywords]
    if not mode:
        return "r"
    return mode[0].value if isinstance(mode[0], ast.Constant) else "w"


def imports_of(tree):
    """Yield (node, module, names, whether it waits for a call) of every import."""

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield child, alias.name, [], inside
            elif isinstance(child, ast.ImportFrom):
                names = [alias.name for alias in child.names]
                yield child, child.module or "", names, inside
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child)
            yield from walk(child, inside or function or typing)

    return list(walk(tree, False))


def faults_of(path, source):
    """List what a file, at `path` below skal/, does against the rules."""
    folder, _, file = path.rpartition("/")
    place = folder or file.removesuffix(".py")
    tree = ast.parse(source)
    faults = []
    if folder.count("/"):
        faults.append("more than two folder levels")
    for node, module, names, inside in imports_of(tree):
        if getattr(node, "level", 0):
            faults.append(f"relative import of {module}")
        top, *parts = module.split(".")
        if not inside and place not in ONLY_IN_FUNCTIONS.get(top, {place}):
            faults.append(f"{top} imported outside a function")
        if top == "sklearn" and path != PRIVATE_SKLEARN:
            private = [n for n in [*parts, *names] if n.startswith("_")]
            faults += [
                f"private scikit-learn name {n}" for n in private if n != "__version__"
            ]
        if top == "skal" and place not in ANYTHING:
            targets = [parts] if parts else [[name] for name in names]
            for target in targets:
                faults += _faults_of_import(place, file, target)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        if name == "import_module" and path not in MAY_IMPORT_BY_NAME:
            faults.append("import_module")
        if place in WRITING or path == "utils/files.py":
            continue
        if name in WRITERS and WRITERS[name](node):
            faults.append(f"{name}(...) prints or writes")
    return faults


def _faults_of_import(place, file, target):
    if target[0] == place:
        # Strategies stay apart; what two of them share is a base or a kernel.
        siblings = {"_base"} if place == "query" and file != "__init__.py" else target
        if len(target) > 1 and target[1] not in siblings:
            return [f"imports its sibling {target[1]}"]
        return []
    if target[0] in ANYTHING:
        return []
    if target[0] not in MAY_IMPORT.get(place, set()):
        return [f"skal.{place} imports skal.{target[0]}"]
    if any(part.startswith("_") for part in target):
        return [f"imports the private module skal.{'.'.join(target)}"]
    return []


@pytest.mark.parametrize("path", [f.relative_to(ROOT).as_posix() for f in FILES])
def test_file_keeps_the_rules(path):
    assert faults_of(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_every_place_has_its_row():
    places = {f.relative_to(ROOT).parts[0].removesuffix(".py") for f in FILES}
    assert places <= set(MAY_IMPORT) | ANYTHING


@pytest.mark.parametrize(
    "path, source, fault",
    [
        ("utils/seeds.py", "from skal.pool import PoolView", "skal.utils imports"),
        ("utils/seeds.py", "def f():\n    import skal.pool", "skal.utils imports"),
        ("utils/seeds.py", "import_module('skal.pool')", "import_module"),
        ("models/_mlp.py", "from skal import query", "skal.models imports"),
        ("selection/_top_k.py", "import skal.models", "skal.selection imports"),
        ("pool.py", "from skal.query import BadgeQuery", "skal.pool imports"),
        ("query/_a.py", "from skal.query._hybrid import x", "its sibling _hybrid"),
        ("query/_a.py", "from skal.query import _hybrid, x", None),
        ("query/_a.py", "from skal.query._base import QueryStrategy", None),
        ("query/_a.py", "from skal.selection._top_k import f", "private module"),
        ("query/_a.py", "from skal.selection import top_k", None),
        ("query/_a.py", "from .._version import v", "relative import"),
        ("selection/_a.py", "from skal.selection._base import f", None),
        ("experiment/run.py", "from skal.loop import ActiveLearningLoop", None),
        ("plotting/_a.py", "import matplotlib.pyplot as plt", "outside a function"),
        ("plotting/_a.py", "def f():\n    import matplotlib.pyplot", None),
        ("plotting/_a.py", "if TYPE_CHECKING:\n    import matplotlib", None),
        ("plotting/_a.py", "if True:\n    import matplotlib", "outside a function"),
        ("datasets/_a.py", "class A:\n    import pandas", "outside a function"),
        ("report/a.py", "import jinja2, pandas", None),
        ("report/a.py", "import matplotlib", "outside a function"),
        ("cli/a.py", "import jinja2", "outside a function"),
        ("loop.py", "from sklearn.base import _fit_context", "scikit-learn name _fit"),
        ("loop.py", "from sklearn.utils._x import y", "scikit-learn name _x"),
        ("utils/validation.py", "from sklearn.utils._x import y", None),
        ("pool.py", "print(1)", "prints or writes"),
        ("pool.py", "path.write_text('a')", "prints or writes"),
        ("pool.py", "open(path, 'w')", "prints or writes"),
        ("pool.py", "open(path, mode=mode)", "prints or writes"),
        ("pool.py", "open(path)\ntarfile.open(path, 'r:gz')", None),
        ("loop.py", "print(1)", None),
        ("utils/files.py", "open(path, 'a')", None),
        ("query/more/_a.py", "", "two folder levels"),
    ],
)
def test_breaking_a_rule_is_found(path, source, fault):
    faults = faults_of(path, source)
    assert not faults if fault is None else any(fault in f for f in faults)


def test_query_exports_the_bases_and_what_is_found():
    bases = {"QueryStrategy", "ScoreQuery"}
    names = skal.query.__all__
    assert set(names) == bases | {name for name, _ in all_strategies()}
    assert names == sorted(names)


def test_every_public_name_can_be_imported():
    assert len(set(skal.__all__)) == len(skal.__all__)
    for name in skal.__all__:
        assert getattr(skal, name).__name__ == name
        assert name in dir(skal)
    namespace = {}
    exec("from skal import *", namespace)
    assert set(skal.__all__) <= set(namespace)


def test_unknown_name_is_an_attribute_error():
    for name in ("nothing", "NothingQuery"):
        with pytest.raises(AttributeError, match=name):
            getattr(skal, name)


def test_files_of_tests_have_names_of_their_own():
    """Else pytest takes one for the other, and collects nothing."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(set(names)) == len(names)
