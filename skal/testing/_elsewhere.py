"""A second Python process, whose picks must be those of this one."""

import atexit
import os
import pickle
import subprocess
import sys
from functools import cache

from skal.testing._pools import make_pool

_CHILD = """
import os, pickle, sys
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what a strategy prints is no answer
while True:
    try:
        sys.path[:], job = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    try:
        from skal.testing._pools import make_query
        strategy, pool, n_samples = pickle.loads(job)
        answer = make_query(strategy, pool, n_samples).tolist()
    except Exception as error:  # it is told to the other process
        answer = repr(error)
    pickle.dump(answer, answers)
    answers.flush()
"""


@cache
def _child():
    """Start the process, once for all checks: it takes seconds to import torch."""
    salt = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        env={**os.environ, "PYTHONHASHSEED": salt, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(child.communicate)
    return child


def picks_elsewhere(strategy, n_samples):
    """Picks of `strategy` in a process with another hash seed, or what it raised."""
    child = _child()
    job = pickle.dumps((strategy, make_pool(strategy), n_samples))
    pickle.dump((sys.path, job), child.stdin)
    child.stdin.flush()
    return pickle.load(child.stdout)
