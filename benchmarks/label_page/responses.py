"""Measure how long the page takes to answer while the worker trains.

    python benchmarks/label_page/responses.py

5,000 images of 64 x 64 pixels, batches of 20, 1,000 answers of a person who needs a
tenth of a second; the state and the image are asked for after each.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from session import CLASSES, Person, truth, write_images

from skal.annotate import LabelProject


def main(n_answers=1000, n_images=5000):
    folder = Path(tempfile.mkdtemp()) / "photos"
    write_images(folder, n_images, 64)
    LabelProject.init(folder, classes=CLASSES).choose()  # the features are read
    person = Person(folder)
    times = {"answer": [], "state": [], "image": []}
    waits = []

    def timed(kind, ask):
        start = time.perf_counter()
        found = ask()
        times[kind].append(time.perf_counter() - start)
        return found

    item = person.ask("/next")["item"]
    for _ in range(n_answers):
        number, label = item["number"], truth(item["name"])
        timed("image", lambda n=number: person.get(f"/items/{n}/image"))
        said = {"item": number, "label": label, "seconds": 0.1}
        item = timed("answer", lambda m=said: person.ask("/answer", **m))["item"]
        timed("state", lambda: person.get("/state"))
        start = time.perf_counter()
        while item is None:
            time.sleep(0.1)
            item = person.ask("/next")["item"]
            waits.append(time.perf_counter() - start)
        time.sleep(0.1)
    events = LabelProject.open(folder).store.events()
    person.kill()
    for kind, seconds in times.items():
        median, high = 1000 * np.percentile(seconds, [50, 99])
        print(f"{kind}: median {median:.0f} ms, 99th percentile {high:.0f} ms")
    n_rounds = events["round"].nunique()
    print(
        f"{n_rounds} choices, {len(waits)} waits, longest {max(waits, default=0):.1f} s"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
