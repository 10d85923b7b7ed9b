"""Requests that are not from the page, sent to a server as they are."""

import contextlib
import json
from http.client import HTTPException

import pytest

pytest.importorskip("uvicorn")


REFUSED = [
    ("no token", {"token": None}, 403),
    ("a wrong token", {"token": "x" * 32}, 403),
    ("a token that is no ASCII", {"token": "\xe9" * 32}, 403),
    ("another host", {"Host": "evil.example:8760"}, 403),
    ("a name that leads here", {"Host": "127.0.0.1.evil.example"}, 403),
    ("a number elsewhere", {"Host": "192.168.0.7"}, 403),
    ("no host that can be read", {"Host": "[::1"}, 403),
    ("another origin", {"Origin": "http://evil.example"}, 403),
    ("another port", {"Origin": "http://127.0.0.1:1"}, 403),
    ("a sandbox", {"Origin": "null"}, 403),
]


PATHS = ["/", "/page.js", "/state", "/items/0/image", "/nothing", "/answer"]


def test_refused(live):
    for what, headers, status in REFUSED:
        for path in PATHS:
            body = {"item": 0, "label": "cat"}
            asked = live.get(path, **headers), live.post(path, body, **headers)
            for found, text, _ in asked:
                assert found == status, (what, path)
                assert text.startswith(b"refused: ")
                assert live.token.encode() not in text
    assert live.store.answers().empty


def test_this_machine_is_let_through(live):
    for host in ("localhost:99", "127.0.0.1", "[::1]:8760"):
        assert live.get("/state", Host=host)[0] == 200
        assert live.get("/state", Host=host, Origin=f"http://{host}")[0] == 200


def test_answers_need_the_token_in_a_header_and_json(live):
    body = json.dumps({"item": 0, "label": "cat"})
    form = {"Content-Type": "text/plain"}
    assert live.send("POST", f"/answer?token={live.token}", body)[0] == 403
    assert live.post("/answer", body, **form)[0] == 415
    assert live.send("GET", f"/answer?token={live.token}")[0] == 405
    assert live.send("PUT", f"/answer?token={live.token}", body)[0] == 405
    assert live.store.answers().empty


def test_bodies_are_small(live):
    large = json.dumps({"item": 0, "label": "cat", "annotator": "x" * 70_000})
    assert live.post("/answer", large)[0] == 413
    parts = [part.encode() for part in (large[:40_000], large[40_000:])]
    assert live.post("/answer", iter(parts))[0] == 413  # its length is not told
    assert live.post("/answer", None, **{"Content-Length": "x"})[0] in (400, 413)
    assert live.post("/answer", large, token=None)[0] == 403
    # More than is read of what is refused: the answer may be lost, nothing is stored.
    with contextlib.suppress(ConnectionError, HTTPException):
        assert live.post("/answer", "x" * 2**23)[0] == 413
    assert live.store.answers().empty


ELSEWHERE = """
/items/../../labels.sqlite
/items/%2e%2e%2f%2e%2e%2flabels.sqlite/image
/items/..%5c0.png/image
/items/0.png/image
/items/-1/image
/items/99/image
/items/99999999999999999999/image
/items/
/items
/page.html
/../page.py
//etc/passwd
/.skal/token
/labels.sqlite
"""


def test_nothing_but_items_is_served(live):
    for path in ELSEWHERE.split():
        status, text, _ = live.get(path)
        assert status == 404, path
        assert b"SQLite" not in text and b"root:" not in text


def test_every_answer_forbids_what_the_page_does_not_need(live):
    for path in ("/", "/page.css", "/state", "/items/0/image", "/nothing"):
        _, _, headers = live.get(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_a_team_calls_by_number_or_by_names_that_are_known(serve_app):
    live = serve_app(public=True, names=["Label.example"])
    assert live.get("/state", Host="192.168.0.7:80")[0] == 200
    assert live.get("/state", Host="label.example")[0] == 200
    assert live.get("/state", Host="evil.example")[0] == 403
    body = {"item": 0, "label": "cat"}
    proxied = {"Host": "10.0.0.2:8760", "Origin": "https://label.example"}
    assert live.post("/answer", body, **proxied)[0] == 200
    assert live.post("/answer", body, Origin="https://evil.example")[0] == 403
