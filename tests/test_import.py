"""`import skal` is light."""

import subprocess
import sys

CODE = """
import sys
import skal
assert skal.__version__
print(*sys.modules)
"""


def test_import_loads_nothing_heavy():
    child = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in child.stdout.split()}
    assert "skal" in loaded
    assert not loaded & {"torch", "sklearn", "skorch", "scipy", "matplotlib"}
