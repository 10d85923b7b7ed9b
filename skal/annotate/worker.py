"""The process beside the page that trains and chooses."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time

_PAUSE = 5  # seconds before a process that died is started again
# A processor is left to the page, and threads that wait do not spin: on a busy machine
# the others of a team of threads would wait for them ten times as long.
_FEW_THREADS = {
    "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1)),
    "OMP_WAIT_POLICY": "PASSIVE",
}


class Worker:
    """Start the process that chooses, wake it, and keep its last report.

    It ends with the one who started it, in whatever way that ends.

    Parameters
    ----------
    folder : path-like
        Of the project.

    Attributes
    ----------
    report : dict
        The last one; see `skal.annotate.planner`.
    """

    def __init__(self, folder):
        self._command = [sys.executable, "-m", "skal.annotate.planner", str(folder)]
        self.report, self._process, self._reader = {}, None, None
        self._started, self._lock = -_PAUSE, threading.Lock()

    def wake(self):
        """Let it look for something to do; start it where it does not run."""
        with self._lock, contextlib.suppress(OSError):  # tried again the next time
            if self._process is None or self._process.poll() is not None:
                if time.monotonic() < self._started + _PAUSE:
                    return
                self._start()
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def _start(self):
        self._close()
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the page, which ends it. A session of its own would get as
            # much of the processor as the page, however nice it is.
            process_group=0,
            env={**_FEW_THREADS, **os.environ},
        )
        self._reader = threading.Thread(
            target=self._read, args=[self._process.stdout], daemon=True
        )
        self._reader.start()

    def _read(self, lines):
        with lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # torn: it was killed
                    self.report = json.loads(line)

    def stop(self):
        """End the process."""
        with self._lock:
            if self._process is not None:
                self._process.kill()  # the store is whole at any moment
                self._close()

    def _close(self):
        if self._process is not None:
            self._process.wait()
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            # Not for ever: a child of the dead may hold the pipe.
            self._reader.join(1)
            self._process = None
