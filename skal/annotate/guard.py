"""Who may talk to the page: refuse all else before it reaches anything."""

import hmac
import ipaddress
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

MAX_BYTES = 64 * 1024
_DISCARDED = 2**20
HEADER = "x-skal-token"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Let through what has the token and comes from the page itself.

    A page of somebody else's, open in the same browser, can send requests to this
    machine: it is known by its Origin, or, where it got a name of its own to lead here
    (DNS rebinding), by the Host. Answers must be JSON with the token in a header, which
    no other page can send.

    Parameters
    ----------
    app : ASGI application
    token : str
    public : bool, default=False
        Whether the page has other addresses than this machine's own.
    names : iterable of str, default=()
        Of hosts, by which it may be called then, beside numbers.
    frames : sequence of str, default=()
        Origins of the pages that may show it in a frame.
    """

    def __init__(self, app, token, *, public=False, names=(), frames=()):
        self.app, self.token, self.public = app, token.encode(), public
        self.names = {"localhost", *(name.lower() for name in names)}
        policy = _POLICY + (" ".join(frames) or "'none'")
        self.headers = {**_HEADERS, "Content-Security-Policy": policy}
        if not frames:
            self.headers["X-Frame-Options"] = "DENY"

    async def __call__(self, scope, receive, send):
        """Answer a request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket: the server closes it

        async def send_guarded(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        if scope["method"] == "POST":
            # Also of a refused one: closed on unread bytes, the answer may be lost.
            body, receive = await _read(receive)
            if not refusal and len(body) > MAX_BYTES:
                refusal = 413, f"at most {MAX_BYTES} bytes"
        if refusal:
            status, reason = refusal
            answer = PlainTextResponse(f"refused: {reason}\n", status)
            # Where a body was not read to its end, the rest of it is no next request.
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    def _refusal(self, scope):
        """Say with which status and why a request is refused, or None."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_ours(_host_name(f"//{hosts[0]}")):
            return 403, "this host is not known here"
        for origin in origins:
            name = _host_name(origin)
            known = self.public and name in self.names  # a proxy may change the Host
            if not (known or (name and urlsplit(origin).netloc == hosts[0])):
                return 403, "another page asks"
        posted = scope["method"] == "POST"
        query = parse_qs(scope["query_string"].decode("latin-1"))
        token = headers.get(HEADER, "" if posted else query.get("token", [""])[0])
        if not hmac.compare_digest(token.encode(), self.token):
            return 403, "take the whole address that skal label serve printed"
        if not posted:
            return None
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return 415, "answers are JSON"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BYTES:
            return 413, f"at most {MAX_BYTES} bytes"
        return None

    def _is_ours(self, name):
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.public or address.is_loopback


def _host_name(url):
    """Take the name of the host of an address; "" where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def _read(receive):
    """Read a body, up to more than is kept, and what gives it and all else again."""
    body, n_bytes = b"", 0
    while n_bytes <= _DISCARDED:
        message = await receive()
        if message["type"] != "http.request":
            break
        part = message.get("body", b"")
        n_bytes += len(part)
        if len(body) <= MAX_BYTES:
            body += part
        if not message.get("more_body"):
            break
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again():
        return messages.pop() if messages else await receive()

    return body, receive_again
