"""Measure how long the page takes to answer while the worker trains.

    python benchmarks/label_page/responses.py

5,000 images of 64 x 64 pixels, batches of 20, 1,000 answers of a person who needs a
tenth of a second; the state and the image are asked for after each. Then five times 20
answers at once, and how long it takes until the batch that follows from them is chosen.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from session import CLASSES, Person, truth, write_images

from skal.annotate import LabelProject

LAST_CHOICE = "SELECT max(time), count(DISTINCT round) FROM events WHERE kind='choose'"


class Timed:
    """A person whose requests are timed."""

    def __init__(self, person):
        self.person, self.times, self.waits = person, {}, []

    def ask(self, kind, ask, *args, **message):
        start = time.perf_counter()
        found = ask(*args, **message)
        self.times.setdefault(kind, []).append(time.perf_counter() - start)
        return found

    def answer(self, n_answers, pause):
        person = self.person
        person.connection.close()  # opened anew: the server keeps no idle one for long
        item = person.ask("/next")["item"]
        for _ in range(n_answers):
            start = time.perf_counter()
            while item is None:
                time.sleep(0.1)
                item = person.ask("/next")["item"]
                self.waits.append(time.perf_counter() - start)
            number, label = item["number"], truth(item["name"])
            self.ask("image", person.get, f"/items/{number}/image")
            said = {"item": number, "label": label, "seconds": 0.1}
            item = self.ask("answer", person.ask, "/answer", **said)["item"]
            self.ask("state", person.get, "/state")
            time.sleep(pause)


def settle(store):
    """Wait until nothing was chosen for three seconds; when the last was, how many."""
    while True:
        ((last, n_choices),) = store._database.read(LAST_CHOICE)
        if time.time() > last + 3:
            return last, n_choices
        time.sleep(0.2)


def main(n_answers=1000, n_images=5000):
    folder = Path(tempfile.mkdtemp()) / "photos"
    write_images(folder, n_images, 64)
    project = LabelProject.init(folder, classes=CLASSES)
    project.choose()  # the features are read
    timed = Timed(Person(folder))
    timed.answer(n_answers, 0.1)
    for kind, seconds in timed.times.items():
        median, high = 1000 * np.percentile(seconds, [50, 99])
        print(f"{kind}: median {median:.0f} ms, 99th percentile {high:.0f} ms")
    every = np.concatenate([*timed.times.values()])
    print(f"all: 99th percentile {1000 * np.percentile(every, 99):.0f} ms")
    _, n_choices = settle(project.store)
    print(f"{n_choices} choices, longest wait {max(timed.waits, default=0):.1f} s")
    until, timed.waits = [], []
    for _ in range(5):
        timed.answer(20, 0)
        last = time.time()
        until.append(settle(project.store)[0] - last)
    # Below 0: the last choice was made before the last answer, and there was enough.
    print("seconds until the next batch:", " ".join(f"{x:.1f}" for x in until))
    print(f"longest wait {max(timed.waits, default=0):.1f} s")
    timed.person.kill()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
