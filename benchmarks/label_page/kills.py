"""Kill the server or its worker at random moments, and count what is lost.

    python benchmarks/label_page/kills.py 100

Each time a person answers until a moment drawn at random, when SIGKILL comes to the
server, every third time to the worker alone, every third time to both; then the server
is started again on the same project.
"""

import contextlib
import http.client
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from session import CLASSES, Person, truth, write_images

from skal.annotate import LabelProject

VICTIMS = "server", "worker", "both"
FIGURES = ["kills", "opened", "answers", "lost", "asked twice", "longest wait"]


class Kills:
    """A project, and what became of the answers that its page confirmed."""

    def __init__(self, folder):
        self.folder, self.port, self.rng = folder, 0, np.random.default_rng(0)
        self.confirmed = {}
        self.counts = {victim: dict.fromkeys(FIGURES, 0) for victim in VICTIMS}

    def next(self, victim):
        """Answer until the kill comes; compare the store with what was confirmed."""
        counts = self.counts[victim]
        person = Person(self.folder, self.port)
        self.port = person.port
        person.ask("/next")  # which starts the worker
        server, workers = [person.process.pid], person.workers()
        killed = {"server": server, "worker": workers, "both": workers + server}
        timer = threading.Timer(self.rng.uniform(0, 3), kill, [killed[victim]])
        timer.start()
        try:
            self.answer(person, timer, counts)
        except (http.client.HTTPException, OSError):
            pass  # it was killed
        timer.join()
        person.kill()
        store = LabelProject.open(self.folder).store
        counts["kills"] += 1
        with sqlite3.connect(store.path) as connection:
            ((health,),) = connection.execute("PRAGMA integrity_check")
        counts["opened"] += health == "ok"
        labels = store.labels()
        for number, label in self.confirmed.items():
            counts["lost"] += labels[number] != label
        # An answer that was stored, but not confirmed before the kill.
        self.confirmed |= {n: y for n, y in enumerate(labels) if y is not None}

    def answer(self, person, timer, counts):
        item, after, asked = person.ask("/next")["item"], 0, time.monotonic()
        while after < 5:  # where only the worker was killed, the page goes on
            if item is None:
                time.sleep(0.2)
                item = person.ask("/next")["item"]
                continue
            wait = time.monotonic() - asked
            counts["longest wait"] = max(counts["longest wait"], round(wait, 1))
            counts["asked twice"] += item["number"] in self.confirmed
            label = truth(item["name"])
            time.sleep(0.05)  # a quick person, so that each kill finds items left
            asked = time.monotonic()
            found = person.ask("/answer", item=item["number"], label=label)
            self.confirmed[item["number"]] = label
            counts["answers"] += 1
            item = found["item"]
            after += timer.finished.is_set()

    def table(self):
        lines = [["killed", *FIGURES]]
        lines += [[victim, *self.counts[victim].values()] for victim in VICTIMS]
        return "\n".join("  ".join(f"{str(cell):>12}" for cell in x) for x in lines)


def kill(numbers):
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def main(n_kills):
    folder = Path(tempfile.mkdtemp()) / "photos"
    write_images(folder, 4000, 8)
    project = LabelProject.init(folder, classes=CLASSES, batch_size=10)
    # So that there is something to answer before the worker has read the images.
    project.store.choose(range(3000))
    kills = Kills(folder)
    for number in range(n_kills):
        kills.next(VICTIMS[number % 3])
        print(f"after {number + 1} kills\n{kills.table()}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
