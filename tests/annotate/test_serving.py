import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
import webbrowser
from contextlib import closing
from html import unescape
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlsplit

import pytest

from skal.annotate import LabelProject
from skal.annotate.serving import MIN_LENGTH, Server
from skal.experiment.options import UsageError

pytest.importorskip("uvicorn")


def address_of(project, **options):
    server = Server(project, **options)
    server.stop()
    return urlsplit(server.address)


def test_the_address_holds_a_token_that_stays_and_nobody_else_reads(project):
    first, second = address_of(project, port=0), address_of(project, port=0)
    assert first.hostname == "127.0.0.1"
    (token,) = parse_qs(first.query)["token"]
    assert first.query == second.query and len(token) >= 32
    mode = (project.folder / "token").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_taken_port_is_told(project):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} .*choose another"):
            Server(project, port=port)


def test_answers_are_sent_at_once(project):
    """Asyncio switches Nagle's algorithm off for what is named as TCP alone."""
    server = Server(project, port=0)
    assert server._listener.proto == socket.IPPROTO_TCP
    server.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "example.org", "::"])
def test_others_need_a_secret(project, host):
    with pytest.raises(UsageError, match="--token-file.*TLS"):
        Server(project, host=host, port=0)


def test_the_secret_is_read_from_a_file(project, tmp_path):
    path = tmp_path / "secret"
    for text in ("", "short\n", "x" * (MIN_LENGTH - 1), "ü" * MIN_LENGTH):
        path.write_text(text)
        with pytest.raises(UsageError, match="secret of at least 16"):
            Server(project, port=0, token_file=path)
    with pytest.raises(UsageError, match="cannot be read"):
        Server(project, port=0, token_file=tmp_path / "none")
    path.write_text("a secret & long enough\nmore\n")
    address = address_of(project, host="0.0.0.0", port=0, token_file=path)
    assert parse_qs(address.query)["token"] == ["a secret & long enough"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_killed_server_loses_nothing_that_it_confirmed(project, truth, start_server):
    project.store.choose(range(12))
    confirmed, port, token = {}, 0, None
    for n_answers in (3, 4):
        served = start_server(project.folder, port)
        assert token in (None, served.token)  # an open page goes on
        port, token = served.port, served.token
        item = served.ask("/next")["item"]
        for _ in range(n_answers):
            assert item["number"] not in confirmed  # nothing is asked twice
            label = truth(item["name"])
            found = served.ask("/answer", item=item["number"], label=label)
            confirmed[item["number"]] = label
            item = found["item"]
        said = {"item": item["number"], "label": truth(item["name"])}
        under_way = served.send("/answer", **said)
        children = served.children()
        assert children
        served.kill()
        under_way.close()
        store = LabelProject.open(project.folder).store
        labels = dict(enumerate(store.labels()))
        assert {number: labels[number] for number in confirmed} == confirmed
        known = {number for number, label in labels.items() if label is not None}
        assert known - set(confirmed) <= {item["number"]}
        confirmed |= {number: labels[number] for number in known}
        for child in children:
            wait_for_end(child)


def wait_for_end(number):
    """Wait for a process that is nobody's child any more."""
    for _ in range(6000):
        try:
            with open(f"/proc/{number}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlived the server")


@pytest.mark.skipif(sys.platform != "linux", reason="needs signals")
def test_ctrl_c_ends_it_quietly(project, start_server):
    served = start_server(project.folder)
    served.ask("/next")
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(300) in (0, 130)


def test_the_command_line_of_a_browser_holds_no_token(project, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    server = Server(project, port=0)
    server.open_browser()
    server.stop()
    (url,) = opened
    (token,) = parse_qs(urlsplit(server.address).query)["token"]
    assert url.startswith("file:") and token not in url
    with urllib.request.urlopen(url) as file:
        text = file.read().decode()
    assert f"url={server.address}" in unescape(text)
    mode = (project.folder / "open.html").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


@pytest.fixture
def shown(project):
    yield project.show
    if project._shown[1]:
        project._shown[1].stop()


def source_of(frame):
    (source,) = re.findall('<iframe src="([^"]+)"', frame._repr_html_())
    return unescape(source)


def ask(address, **headers):
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.read(), answer.headers
    except HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_a_notebook_shows_a_page_that_runs(shown, project):
    address = source_of(shown(height=500))
    status, text, headers = ask(address)
    assert status == 200 and b"<title>Label photos</title>" in text
    policy = headers["content-security-policy"]
    assert policy.endswith("frame-ancestors http://localhost:* http://127.0.0.1:*")
    assert "x-frame-options" not in headers
    assert source_of(shown()) == address  # the same server
    # A page of others neither asks nor holds it in a frame.
    assert ask(address, Origin="https://evil.example")[0] == 403
    assert ask(address, Host="evil.example")[0] == 403
    # The token of the project, which stays, is in no notebook.
    assert not (project.folder / "token").exists()


def test_a_notebook_elsewhere_is_named(shown):
    for origin in ("hub.example", "https://hub.example/tree", "https://a;b", "*"):
        with pytest.raises(ValueError, match="begin of the notebook's address"):
            shown(origin=origin)
    local = source_of(shown())
    address = source_of(shown(origin="https://hub.example:8000"))
    policy = ask(address)[2]["content-security-policy"]
    assert policy.endswith("frame-ancestors https://hub.example:8000")
    assert address != local
    with pytest.raises((URLError, ConnectionError)):
        ask(local)  # the other has ended


NOTEBOOK = """
import sys
from skal.annotate import LabelProject
project = LabelProject.open(sys.argv[1])
print(project.show().address, flush=True)
input()
"""


def test_the_server_ends_with_the_notebook(project):
    command = [sys.executable, "-c", NOTEBOOK, project.folder]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        address = process.stdout.readline().strip()
        assert ask(address)[0] == 200
        process.communicate("\n", timeout=300)
        assert process.returncode == 0
    with pytest.raises((URLError, ConnectionError)):
        ask(address)
