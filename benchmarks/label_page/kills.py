"""Kill the server or its worker at random moments, and count what is lost.

    python benchmarks/label_page/kills.py 100

Each time a person answers until a moment drawn at random, when SIGKILL comes, every
third time to the worker alone; then the server is started again on the same project.
"""

import http.client
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from session import CLASSES, Person, truth, write_images

from skal.annotate import LabelProject


def main(n_kills, limit):
    folder = Path(tempfile.mkdtemp()) / "photos"
    write_images(folder, 4000, 8)
    project = LabelProject.init(folder, classes=CLASSES, batch_size=10)
    # So that there is something to answer before the worker has read the images.
    project.store.choose(range(400))
    rng, confirmed, lost, again, port = np.random.default_rng(0), {}, 0, 0, 0
    kills = {"server": 0, "worker": 0}
    end = time.monotonic() + limit
    while sum(kills.values()) < n_kills and time.monotonic() < end:
        person = Person(folder, port)
        port = person.port
        victim = "worker" if sum(kills.values()) % 3 == 2 else "server"
        person.ask("/next")
        numbers = person.workers() if victim == "worker" else [person.process.pid]
        timer = threading.Timer(
            rng.uniform(0, 3), lambda n=numbers: [os.kill(k, signal.SIGKILL) for k in n]
        )
        timer.start()
        try:
            item, after = person.ask("/next")["item"], 0
            while after < 5:
                if item is None:
                    time.sleep(0.05)
                    item = person.ask("/next")["item"]
                    continue
                again += item["number"] in confirmed
                label = truth(item["name"])
                found = person.ask("/answer", item=item["number"], label=label)
                confirmed[item["number"]] = label
                item = found["item"]
                after += timer.finished.is_set()  # goes on without the worker
        except (http.client.HTTPException, OSError):
            pass
        timer.join()
        person.kill()
        kills[victim] += 1
        labels = LabelProject.open(folder).store.labels()
        lost += sum(labels[number] != label for number, label in confirmed.items())
        confirmed |= {n: label for n, label in enumerate(labels) if label is not None}
        counted = f"{len(confirmed)} answers, {lost} lost, {again} asked twice"
        print(f"{kills}: {counted}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else np.inf)
