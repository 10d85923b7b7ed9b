"""Serve the page on which people label: on this machine, or for a team."""

import errno
import ipaddress
import os
import secrets
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from skal.annotate.session import Session
from skal.annotate.worker import Worker
from skal.experiment.options import UsageError

HOST, PORT = "127.0.0.1", 8760
MIN_LENGTH = 16
_FILE = "token"


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
        self, project, *, host=HOST, port=None, token_file=None, names=(), goal=None
    ):
        public = not _is_loopback(host)
        if public and token_file is None:
            raise UsageError(
                f"--host {host} opens the page to others: name a file whose first line "
                f"is a secret of at least {MIN_LENGTH} letters with --token-file. The "
                "page does not encrypt; put a proxy with TLS before it."
            )
        token = _own_token(project.folder) if token_file is None else _read(token_file)
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

    def run(self):
        """Serve until it is interrupted or told to stop."""
        with self._listener:
            self._server.run(sockets=[self._listener])

    def stop(self):
        """Let `run` end, from another thread; or give up the port before it."""
        if self._server.started:
            self._server.should_exit = True
        else:
            self._listener.close()


def _is_loopback(host):
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host, port):
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (PORT, 0) if port is None else (port,):
        listener = socket.socket(kind, socket.SOCK_STREAM)
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


def _own_token(folder):
    """Make the secret of a project; it stays, so that an open page can go on."""
    path = folder / _FILE
    if not path.exists():
        number, temporary = tempfile.mkstemp(dir=folder)  # nobody else may read it
        with os.fdopen(number, "w") as file:
            file.write(secrets.token_urlsafe(24))
        os.replace(temporary, path)
    return _read(path)


def _read(path):
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    token = lines[0].strip() if lines else ""
    if len(token) < MIN_LENGTH or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"the first line of {path} must be a secret of at least {MIN_LENGTH} plain "
            "letters or digits; write one into it."
        )
    return token
