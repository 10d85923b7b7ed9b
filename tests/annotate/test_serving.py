import signal
import socket
import stat
import sys
import time
from contextlib import closing
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
    for _ in range(1200):
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
    assert served.process.wait(60) in (0, 130)
