"""How soon `import skal` and `skal --help` are there, each in a new process.

Goal: under 0.5 s for the help.
"""

import subprocess
import sys

import pytest

GOAL = 0.5
COMMANDS = {
    "python alone": ["-c", "pass"],
    "import skal": ["-c", "import skal"],
    "skal --help": ["-m", "skal", "--help"],
    "skal run --help": ["-m", "skal", "run", "--help"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_startup(name, benchmark, table):
    command = [sys.executable, *COMMANDS[name]]

    def start():
        subprocess.run(command, check=True, capture_output=True)

    benchmark.pedantic(start, rounds=7, warmup_rounds=1)
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.median
        table(name, seconds, note=f"goal: < {GOAL} s")
        assert seconds < GOAL
