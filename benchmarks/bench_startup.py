"""How soon `import skal` and `skal --help` are there, each in a new process."""

import subprocess
import sys

import pytest

COMMANDS = {
    "python alone": ["-c", "pass"],
    "import skal": ["-c", "import skal"],
    "skal --help": ["-m", "skal", "--help"],
    "skal run --help": ["-m", "skal", "run", "--help"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_startup(name, benchmarked, table):
    def start():
        command = [sys.executable, *COMMANDS[name]]
        subprocess.run(command, check=True, capture_output=True)

    goal = "<= 0.5 s" if "skal" in name else None
    table(name, benchmarked(start)[0], goal=goal)
