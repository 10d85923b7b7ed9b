"""Run a measurement in a process of its own, within limits of time and memory."""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from environments import reason
from measuring import resident

THREADS = "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS".split()


@dataclass(frozen=True)
class Limits:
    """Seconds and gigabytes that a process may take, and the threads that it has.

    Seconds are the processor's, by thread: other work on the machine does not count.
    """

    seconds: float
    gigabytes: float = 6
    threads: int = 1

    def run(self, command):
        """What a command writes to the file that it gets last; or a note why not."""
        with tempfile.TemporaryDirectory() as folder:
            file, errors = Path(folder, "result.json"), Path(folder, "errors.txt")
            with errors.open("w") as stderr:
                process = subprocess.Popen(
                    [*map(str, command), str(file)],
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=os.environ | dict.fromkeys(THREADS, str(self.threads)),
                )
            try:
                note = self._watch(process)
            finally:
                process.kill()
                process.wait()
            if not note and process.returncode:
                note = reason(errors.read_text())
            return {"note": note} if note else json.loads(file.read_text())

    def _watch(self, process):
        """Wait for the end; what there was too much of, "" if all went well."""
        while process.poll() is None:
            try:
                if processor_seconds(process.pid) > self.seconds * self.threads:
                    return f"over {self.seconds:g} s"
                if resident("VmRSS", process.pid) > self.gigabytes * 1e9:
                    return f"over {self.gigabytes:g} GB"
            except (OSError, RuntimeError):  # It has just ended.
                pass
            time.sleep(0.05)
        return ""


def processor_seconds(pid):
    """What a running process has used, its own and the system's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
