"""What a terminal shows while a grid runs."""

import io
import re
import time

from rich.console import Console

from skal.cli import display
from skal.experiment import compare
from skal.experiment.config import GridConfig
from skal.experiment.grid import plan
from skal.experiment.results import RunFolder


def test_the_bar_shows_the_rounds_of_each_worker(tmp_path, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(display, "Console", lambda **options: console)
    small = {"out": tmp_path, "n_rounds": 2, "epochs": 2}
    configs, _ = plan(GridConfig(strategies=["margin"], seeds=2, **small))
    with display.grid_bar(configs, tmp_path, interval=0.001) as _:
        compare(["margin"], 1, **small)
        folder = RunFolder(tmp_path, configs[-1])
        folder.start()
        folder.rounds_path.write_text("{}\n{}\n")
        until = time.monotonic() + 60
        while "margin, seed 1" not in screen.getvalue() or "8/12" not in (
            screen.getvalue()
        ):
            assert time.monotonic() < until
            time.sleep(0.01)
    lines = re.sub(r"\x1b\[[\d;?]*\w", "", screen.getvalue())
    assert re.search(r"4 runs .* 8/12 rounds", lines)
    assert re.search(r"margin, seed 1 .* 2/3 *rounds", lines)
