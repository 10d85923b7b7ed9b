"""`import skal` is light, and shows every public name."""

import runpy
import subprocess
import sys
from pathlib import Path

import skal

CODE = """
import sys
import skal
assert skal.__version__ and "BadgeQuery" in dir(skal)
print(*sys.modules)
"""


def test_import_loads_nothing_heavy():
    child = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in child.stdout.split()}
    assert "skal" in loaded
    assert not loaded & {"torch", "sklearn", "skorch", "scipy", "matplotlib"}
    assert not loaded & {"pandas", "jinja2"}


def test_stub_names_what_is_loaded_on_first_use():
    stub = Path(skal.__file__).with_suffix(".pyi")
    names = runpy.run_path(str(stub), run_name="stub")
    public = {name for name in names if not name.startswith("__")}
    assert public | {"__version__"} == set(dir(skal))
    for name in public:
        assert names[name] is getattr(skal, name)
    assert (stub.parent / "py.typed").exists()
