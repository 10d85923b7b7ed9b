"""Serve the page on which people label: here, in a notebook, or for a team."""

import errno
import ipaddress
import os
import re
import secrets
import socket
import tempfile
import threading
import time
import webbrowser
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from skal.annotate.session import Session
from skal.annotate.worker import Worker
from skal.experiment.options import UsageError

HOST, PORT = "127.0.0.1", 8760
MIN_LENGTH = 16
_FILE, _DOOR = "token", "open.html"
_LOCAL = "http://localhost:*", "http://127.0.0.1:*"
_ORIGIN = re.compile(r"https?://[a-zA-Z0-9.-]+(:\d+)?")


class Server:
    """Serve the page of a project; who asks before it runs has to wait.

    Parameters
    ----------
    project : LabelProject
    host : str, default="127.0.0.1"
        Address to listen at; one that others reach needs a `token_file`.
    port : int, default=None
        0 for any that is free; None for 8760, or any where that is taken.
    token_file : path-like, default=None
        Its first line is the secret that the address must hold; None for one of the
        project's own.
    names : sequence of str, default=()
        Of hosts by which others call the page.
    goal : int, default=None
        How many labels are wanted.
    frames : sequence of str, default=()
        Origins of the pages that may show it in a frame.

    Attributes
    ----------
    address : str
        Of the page, token included.

    Raises
    ------
    UsageError
        Where the page would be open to others without a secret, or cannot listen.
    """

    def __init__(
        self,
        project,
        *,
        host=HOST,
        port=None,
        token_file=None,
        names=(),
        goal=None,
        frames=(),
    ):
        public = not _is_loopback(host)
        if public and token_file is None:
            raise UsageError(
                f"--host {host} opens the page to others: name a file whose first line "
                f"is a secret of at least {MIN_LENGTH} letters with --token-file. The "
                "page does not encrypt; put a proxy with TLS before it."
            )
        if token_file is not None:
            token = _read(token_file)
        else:  # a notebook is saved with what it shows
            token = _new_token() if frames else _own_token(project.folder)
        try:
            import uvicorn

            from skal.annotate.page import build_app
        except ImportError as error:
            raise UsageError(
                f"the page needs {error.name}; pip install 'skal[label]' brings it."
            ) from error
        app = build_app(
            Session(project, goal),
            Worker(project.folder.resolve()),
            token,
            public=public,
            names=[*names, socket.gethostname()] if public else (),
            frames=frames,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would hold the token
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=3,
        )
        self._server, self._listener = uvicorn.Server(config), _listen(host, port)
        name = f"[{host}]" if ":" in host else host
        port = self._listener.getsockname()[1]
        self.address = f"http://{name}:{port}/?{urlencode({'token': token})}"
        self._thread = None
        self._door = project.folder.resolve() / _DOOR

    def run(self):
        """Serve until it is interrupted or told to stop."""
        try:
            with self._listener:
                self._server.run(sockets=[self._listener])
        finally:
            self._door.unlink(missing_ok=True)

    def start(self):
        """Serve in a thread, which ends with this process."""
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not self._server.started:
            time.sleep(0.01)

    def open_browser(self):
        """Open the page in a browser.

        All users of a machine can read the command line of a browser: it gets the name
        of a file that leads to the address and that they cannot read.
        """
        to = escape(self.address)
        _write_secret(
            self._door,
            f'<!doctype html><meta http-equiv="refresh" content="0; url={to}">'
            f'<title>Label</title><a href="{to}">To the page</a>',
        )
        webbrowser.open(self._door.as_uri())

    def stop(self):
        """Let `run` end, from another thread; or give up the port before it."""
        if self._server.started:
            self._server.should_exit = True
        else:
            self._listener.close()
        if self._thread is not None:
            self._thread.join()


def _is_loopback(host):
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host, port):
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (PORT, 0) if port is None else (port,):
        # Named as TCP, else asyncio lets small answers wait for more (Nagle), 40 ms.
        listener = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE and port is None and wanted:
                continue
            raise UsageError(
                f"cannot listen at {host}, port {wanted} ({error.strerror}); choose "
                "another with --host and --port."
            ) from error


def serve_frames(project, origin=None):
    """Serve the page of a project beside this process, for frames of one origin.

    Parameters
    ----------
    project : LabelProject
    origin : str, default=None
        None for all of this machine.

    Returns
    -------
    server : Server
    """
    if origin is not None and not _ORIGIN.fullmatch(origin):
        raise ValueError(
            "origin must be the begin of the notebook's address, as "
            f"'https://hub.example.org:8000', got {origin!r}."
        )
    server = Server(project, port=0, frames=_LOCAL if origin is None else [origin])
    server.start()
    return server


class Frame:
    """The page of a server, as a notebook shows it.

    Parameters
    ----------
    address : str
    height : int
        In pixels.
    """

    def __init__(self, address, height):
        self.address, self.height = address, height

    def __repr__(self):
        return f"label at {self.address}"

    def _repr_html_(self):
        return (
            f'<iframe src="{escape(self.address)}" title="Label" width="100%" '
            f'height="{self.height}" style="border: 0"></iframe>'
        )


def _new_token():
    return secrets.token_urlsafe(24)


def _own_token(folder):
    """Make the secret of a project; it stays, so that an open page can go on."""
    path = folder / _FILE
    if not path.exists():
        _write_secret(path, _new_token())
    return _read(path)


def _write_secret(path, text):
    number, temporary = tempfile.mkstemp(dir=path.parent)  # nobody else may read it
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def _read(path):
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UsageError(f"{path} cannot be read: {reason}.") from error
    token = lines[0].strip() if lines else ""
    if len(token) < MIN_LENGTH or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"the first line of {path} must be a secret of at least {MIN_LENGTH} plain "
            "letters or digits; write one into it."
        )
    return token
