"""The process beside the page that trains and chooses."""

import json
import subprocess
import sys
import threading
import time

_PAUSE = 5  # seconds before a process that died is started again


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
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                if time.monotonic() < self._started + _PAUSE:
                    return
                self._start()
            try:
                self._process.stdin.write(b"\n")
            except BrokenPipeError:
                pass  # it has just died, and is started the next time

    def _start(self):
        self._close()
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the page, which ends it
        )
        self._reader = threading.Thread(
            target=self._read, args=[self._process.stdout], daemon=True
        )
        self._reader.start()

    def _read(self, lines):
        for line in lines:
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
            self._reader.join()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None
