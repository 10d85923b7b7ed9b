"""A scripted person at `skal label serve`: what `kills.py` and `responses.py` share."""

import http.client
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

CLASSES = ["dark", "bright"]


def write_images(folder, n_images, size):
    """Write images of noise, every second one brighter."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(n_images):
        values = rng.integers(0, 200, (size, size, 3)) + 55 * (number % 2)
        image = Image.fromarray(values.astype(np.uint8))
        image.save(folder / f"{number:05}.png")


def truth(name):
    return CLASSES[int(Path(name).stem) % 2]


class Person:
    """Start the server, and answer by keeping one connection."""

    def __init__(self, folder, port=0):
        command = f"-m skal label serve --no-browser --port {port} --project".split()
        self.process = subprocess.Popen(
            [sys.executable, *command, str(folder)], stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        address = urlsplit(line.removeprefix("label at ").strip())
        self.port, (self.token,) = address.port, parse_qs(address.query)["token"]
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port)

    def ask(self, path, **message):
        headers = {"Content-Type": "application/json", "X-Skal-Token": self.token}
        self.connection.request("POST", path, json.dumps(message), headers)
        return json.load(self.connection.getresponse())

    def get(self, path):
        self.connection.request("GET", f"{path}?token={self.token}")
        return self.connection.getresponse().read()

    def workers(self):
        number = self.process.pid
        path = Path(f"/proc/{number}/task/{number}/children")
        return [int(child) for child in path.read_text().split()]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.connection.close()
