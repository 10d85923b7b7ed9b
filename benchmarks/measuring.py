"""How benchmarks measure, and how they hold what they measured against goals."""

import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

HEADING = (
    f"{'':41}{'seconds':>9}  {'beside':<22}{'seconds':>9}{'':>16}  {'goal':<15}"
    f"{'MB':>6}{'% input':>9}"
)


def peak_growth(function):
    """High-water mark of the resident memory in a call, less what was there, in bytes.

    Memory that earlier calls left with the allocator is not counted. On Linux only.
    """
    Path("/proc/self/clear_refs").write_text("5")  # resets the mark
    before = resident("VmRSS")
    function()
    return max(0, resident("VmHWM") - before)


def resident(key, pid="self"):
    """Bytes of the resident memory of a process, or at its peak: VmRSS or VmHWM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {key}")


def in_new_process(function, *args):
    """Call a function in a process that has imported what it needs, and run nothing."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["skal.pool", "skal.query", "skal.models"])
    with ProcessPoolExecutor(1, context) as process:
        return process.submit(function, *args).result()


def medians_in_turn(functions, *, budget, n_rounds=7):
    """Seconds of each function: medians over rounds that run all of them in turn.

    After `budget` seconds no further round begins.
    """
    seconds = {name: [] for name in functions}
    end = time.perf_counter() + budget
    for number in range(n_rounds):
        if number and time.perf_counter() > end:
            break
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


@dataclass(frozen=True)
class Goal:
    """A bound that is written as it is shown: ">= 8x", "<= 0.5 s", "<= 600 MB"."""

    text: str

    def __post_init__(self):
        if re.fullmatch(r"(<=|>=) \d+(\.\d+)?(x| \S+)", self.text) is None:
            raise ValueError(
                f"goal={self.text!r} is not like '>= 8x', '<= 1.1x', '<= 0.5 s', "
                "'<= 600 MB' or '<= 2 %'."
            )

    @property
    def unit(self):
        return self.text.lstrip("<>= 0123456789.")

    @property
    def is_met_from_above(self):
        return self.text.startswith(">=")

    def is_met(self, value):
        bound = float(self.text[3:].removesuffix(self.unit))
        return value >= bound if self.is_met_from_above else value <= bound


@dataclass(frozen=True)
class Row:
    """What one benchmark measured, see the fixture `table`."""

    name: str
    seconds: float | None = None
    beside: str = ""
    other: float | None = None
    goal: str | None = None
    value: float | None = None
    memory: int | None = None
    n_input: int | None = None
    note: str = ""

    @property
    def megabytes(self):
        return None if self.memory is None else self.memory / 1e6

    @property
    def held(self):
        """The number that the goal is about, None without one; its text."""
        goal = None if self.goal is None else Goal(self.goal)
        if goal is not None and goal.unit != "x":
            known = {"s": self.seconds, "MB": self.megabytes}
            number = known.get(goal.unit) if self.value is None else self.value
            if number is None:
                raise ValueError(f"goal={self.goal!r} of {self.name!r} needs value=.")
            shown = "" if self.value is None else f"{number:.3g} {goal.unit}"
            return number, shown
        if self.other is None:
            return None, ""
        faster, longer = self.other / self.seconds, self.seconds / self.other
        if faster >= 1 if goal is None else goal.is_met_from_above:
            return faster, f"{faster:.3g}x as fast"
        return longer, f"{longer:.3g}x as long"

    @property
    def mark(self):
        if self.goal is None:
            return ""
        return "ok" if Goal(self.goal).is_met(self.held[0]) else "MISSED"

    def __str__(self):
        def number(value, width, form):
            return " " * width if value is None else f"{value:{width}{form}}"

        percent = self.n_input and 100 * self.memory / self.n_input
        line = f"{self.name:41}" + number(self.seconds, 9, ".4f")
        line += f"  {self.beside:<22}" + number(self.other, 9, ".4f")
        goal = f"{self.goal or ''} {self.mark}"
        line += f"{self.held[1]:>16}  {goal:<15}"
        line += number(self.megabytes, 6, ".0f") + number(percent, 9, ".0f")
        return f"{line}  {self.note}".rstrip()


def summary(rows):
    """How many goals are met, and the rows that miss one."""
    missed = [row for row in rows if row.mark == "MISSED"]
    n_goals = sum(row.goal is not None for row in rows)
    lines = [f"{n_goals - len(missed)} of {n_goals} goals met"]
    for row in missed:
        shown = row.held[1] or f"{row.held[0]:.3g} {Goal(row.goal).unit}"
        lines.append(f"missed: {row.name}: {shown}, goal {row.goal}")
    return lines
