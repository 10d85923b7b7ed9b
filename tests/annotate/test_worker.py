import os
import sys
import time

import pytest

from skal.annotate.worker import Worker

ECHO = """
import json, sys
for number, _ in enumerate(sys.stdin):
    print(json.dumps({"advice": number}), flush=True)
"""


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path)
    worker._command = [sys.executable, "-c", ECHO]
    yield worker
    worker.stop()


def wait_for(what):
    for _ in range(6000):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("nothing came")


def test_each_wake_is_one_line_and_the_last_report_is_kept(worker):
    assert worker.report == {}
    for number in range(3):
        worker.wake()
        wait_for(lambda n=number: worker.report == {"advice": n})


def test_a_dead_process_is_started_again_but_not_at_once(worker):
    worker.wake()
    first = worker._process
    first.kill()
    first.wait()
    worker._started = time.monotonic() + 3600
    worker.wake()
    assert worker._process is first  # else one that cannot live would spin
    worker._started = -3600
    worker.wake()
    assert worker._process is not first
    wait_for(lambda: worker.report)


def test_it_ends_when_it_is_stopped(worker):
    worker.stop()  # never started
    worker.wake()
    process = worker._process
    worker.stop()
    assert process.poll() is not None
    assert worker._process is None
    worker.stop()


TOLD = """
import json, os
about = {"session": os.getsid(0), "group": os.getpgid(0)}
print("no report")
print(json.dumps({**about, **os.environ}), flush=True)
input()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no sessions")
def test_it_leaves_the_processor_and_ctrl_c_to_the_page(worker, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    worker._command = [sys.executable, "-c", TOLD]
    worker.wake()
    wait_for(lambda: worker.report)
    assert worker.report["OMP_WAIT_POLICY"] == "PASSIVE"
    assert worker.report["OMP_NUM_THREADS"] == "7"  # the user's
    # Niceness counts within a session only, where Linux groups by it.
    assert worker.report["session"] == os.getsid(0)
    assert worker.report["group"] != os.getpgid(0)


HOLDS = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print('{"child": %d}' % child.pid)
print('{"torn', end="", flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_next_does_not_wait_for_what_a_dead_one_left(worker):
    worker._command = [sys.executable, "-c", HOLDS]
    worker.wake()
    wait_for(lambda: worker.report)
    child = worker.report["child"]
    worker._process.wait()
    worker._command, worker._started = [sys.executable, "-c", ECHO], -60
    worker.wake()
    wait_for(lambda: "advice" in worker.report)
    os.kill(child, 9)


def test_a_process_that_cannot_be_started_costs_no_answer(worker):
    worker._command = ["/nothing"]
    worker.wake()
    worker.wake()
