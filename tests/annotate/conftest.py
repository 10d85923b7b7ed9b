"""Small projects of images, texts and rows."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing
from types import SimpleNamespace
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image

from skal.annotate import LabelProject

PETS = ["cat", "dog"]


def draw(path, seed, size=(12, 10), mode="RGB"):
    """Write an image of noise, darker for even seeds."""
    rng = np.random.default_rng(seed)
    top = 100 if seed % 2 == 0 else 256
    values = rng.integers(top - 100, top, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).convert(mode).save(path)


@pytest.fixture(name="draw")
def make_draw():
    """See `draw`."""
    return draw


@pytest.fixture
def photos(tmp_path):
    """Twelve images in a folder and one below it."""
    folder = tmp_path / "photos"
    for seed in range(10):
        draw(folder / f"{seed}.png", seed)
    draw(folder / "more/10.png", 10)
    draw(folder / "more/11.jpg", 11, (40, 7))
    return folder


@pytest.fixture
def project(photos):
    return LabelProject.init(photos, classes=PETS, batch_size=4)


@pytest.fixture
def truth():
    """Tell what an image of `photos` shows, by its name."""
    return lambda item: PETS[int(item.split("/")[-1].split(".")[0]) % 2]


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.csv"
    lines = [
        f'{i},"{["a fine, warm", "a dull"][i % 2]} film no {i}"' for i in range(20)
    ]
    path.write_text("id,text\n" + "\n".join(lines) + "\n")
    return path


class Live:
    """A server in a thread, and requests that are sent as they are."""

    token = "a-token-of-the-tests-0123456789"

    def __init__(self, session, worker, **guard):
        import uvicorn

        from skal.annotate.page import build_app

        self.store, self.worker = session.project.store, worker
        app = build_app(session, worker, self.token, **guard)
        config = uvicorn.Config(app, log_level="error", ws="none")
        self.server = uvicorn.Server(config)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        sockets = {"sockets": [self.listener]}
        self.thread = threading.Thread(target=self.server.run, kwargs=sockets)
        self.thread.start()

    def stop(self):
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()

    def send(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with closing(connection):
            try:
                connection.request(method, path, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all was sent; the answer says why
            response = connection.getresponse()
            names = {key.lower(): value for key, value in response.headers.items()}
            return response.status, response.read(), names

    def get(self, path, token=token, **headers):
        query = "" if token is None else "?" + urlencode({"token": token})
        return self.send("GET", path + query, **headers)

    def post(self, path, body, token=token, **headers):
        headers = {"Content-Type": "application/json", **headers}
        if token is not None:
            headers["X-Skal-Token"] = token
        body = json.dumps(body) if isinstance(body, dict) else body
        return self.send("POST", path, body, **headers)

    def ask(self, path, **message):
        status, text, _ = self.post(path, message)
        assert status == 200, text
        return json.loads(text)


@pytest.fixture
def serve_app(project):
    """Serve a project, `project` by default, with what its worker is to report."""
    pytest.importorskip("uvicorn")
    from skal.annotate.session import Session

    lives = []

    def start(of=project, report=None, on_wake=lambda: None, **guard):
        worker = SimpleNamespace(report=report or {}, wake=on_wake, stop=lambda: None)
        lives.append(Live(Session(of), worker, **guard))
        return lives[-1]

    yield start
    for live in lives:
        live.stop()


@pytest.fixture
def live(serve_app):
    return serve_app()


class Served:
    """`skal label serve`, and a person whose browser talks to it."""

    def __init__(self, folder, port=0):
        command = f"-m skal label serve --no-browser --port {port} --project".split()
        self.process = subprocess.Popen(
            [sys.executable, *command, os.fspath(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.address = line.removeprefix("label at ").strip()
        address = urlsplit(self.address)
        self.port, self.token = address.port, parse_qs(address.query)["token"][0]

    def send(self, path, **message):
        headers = {"Content-Type": "application/json", "X-Skal-Token": self.token}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("POST", path, json.dumps(message), headers)
        return connection

    def ask(self, path, **message):
        with closing(self.send(path, **message)) as connection:
            return json.load(connection.getresponse())

    def children(self):
        number = self.process.pid
        path = f"/proc/{number}/task/{number}/children"
        with open(path) as file:
            return [int(child) for child in file.read().split()]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start_server():
    """Start `skal label serve` for a folder; what still runs is killed at the end."""
    pytest.importorskip("uvicorn")
    started = []

    def start(folder, port=0):
        started.append(Served(folder, port))
        return started[-1]

    yield start
    for served in started:
        served.kill()
