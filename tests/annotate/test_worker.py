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
    for _ in range(600):
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
    worker.wake()
    assert worker._process is first  # else one that cannot live would spin
    worker._started -= 60
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
