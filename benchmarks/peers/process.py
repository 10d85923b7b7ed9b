"""Measure one cell in this process: `process.py PEER JOB N K FILE` writes JSON.

With one thread, seconds are those of the processor, so other work on the machine hardly
counts; with several they are those of the clock.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import peak_growth, resident  # noqa: E402

BUDGET, N_ROUNDS = 2.0, 5  # Short calls are repeated, within so many seconds.
WARM_UP = 300, 10  # Rows and picks of a first call, which loads what it needs.


def clock():
    one = os.environ.get("OMP_NUM_THREADS") == "1"
    return time.process_time() if one else time.perf_counter()


def measure_import(peer):
    from imports import IMPORTS

    before, start = resident("VmRSS"), clock()
    exec(IMPORTS[peer], {})
    seconds = clock() - start
    return {"seconds": seconds, "memory": resident("VmHWM") - before}


def measure(peer, job, n, k):
    if job == "import":
        return measure_import(peer)
    from cells import CELLS

    prepare = CELLS[peer, job]
    prepare(*WARM_UP)()
    call, seconds, results = prepare(n, k), [], []

    def timed():
        start = clock()
        results.append(call())
        seconds.append(clock() - start)

    memory = peak_growth(timed)
    while len(seconds) < N_ROUNDS and sum(seconds) < BUDGET:
        timed()
    measured = {"seconds": statistics.median(seconds), "memory": memory}
    if job == "loop":
        picks, measured["accuracy"] = results[0]
    else:
        picks = results[0]
    return measured | {"picks": [int(pick) for pick in picks]}


if __name__ == "__main__":
    peer, job, n, k, file = sys.argv[1:]
    Path(file).write_text(json.dumps(measure(peer, job, int(n), int(k))))
