"""The page on which people label, as a web application."""

import io
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from skal.annotate.guard import Guard
from skal.annotate.images import DAMAGE, open_upright
from skal.annotate.session import NoItemError
from skal.experiment.options import UsageError

# What browsers show themselves; the rest is converted.
_SHOWN = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
_ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}
_CONVERTED = 2000  # pixels
_REPORTED = ("estimate", "kappas", "advice", "error")


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    annotator: str = Field("", max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")


class _Said(_Message):
    item: int = Field(ge=0, lt=2**63)
    label: str | None
    seconds: float | None = Field(None, ge=0, le=86400)


class _NewClass(_Message):
    name: str = Field(max_length=100)


def build_app(session, worker, token, **guard):
    """Make the page of a project.

    Parameters
    ----------
    session : Session
    worker : Worker
    token : str
        Who does not have it is refused.
    **guard : dict
        Of `Guard`.

    Returns
    -------
    app : ASGI application
    """
    pages = _Pages(session, worker, token)

    @asynccontextmanager
    async def lifespan(app):
        worker.wake()
        yield
        await run_in_threadpool(worker.stop)

    routes = [
        Route("/", pages.home),
        *[Route(f"/{name}", partial(_asset, name=name)) for name in _ASSETS],
        Route("/state", pages.state),
        Route("/history", pages.history),
        Route("/items/{number:int}", pages.item),
        Route("/items/{number:int}/image", pages.image),
        Route("/next", _posted(_Message, pages.next), methods=["POST"]),
        Route("/answer", _posted(_Said, pages.answer), methods=["POST"]),
        Route("/undo", _posted(_Message, pages.undo), methods=["POST"]),
        Route("/classes", _posted(_NewClass, pages.add_class), methods=["POST"]),
    ]
    bad = _problem(400)
    handlers = {NoItemError: _problem(404), ValueError: bad, UsageError: bad}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    return Guard(app, token, **guard)


def _problem(status):
    def tell(request, error):
        return JSONResponse({"error": str(error)}, status)

    return tell


def _asset(request, name):
    return FileResponse(Path(__file__).with_name(name), media_type=_ASSETS[name])


def _posted(message, answer):
    """Make an endpoint that reads a message of JSON."""

    async def endpoint(request):
        try:
            said = message.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the message"
            raise ValueError(f"{where}: {first['msg']}") from None
        return JSONResponse(await run_in_threadpool(answer, said))

    return endpoint


class _Pages:
    """The answers to requests; those that are not `async` each run in a thread."""

    def __init__(self, session, worker, token):
        self.session, self.worker, self.token = session, worker, token
        environment = Environment(
            loader=PackageLoader("skal.annotate", ""), autoescape=True
        )
        self.template = environment.get_template("page.html")

    def home(self, request):
        name = self.session.project.source.path.resolve().name
        return HTMLResponse(self.template.render(token=self.token, name=name))

    def state(self, request):
        return JSONResponse(self._state(_annotator(request)))

    def _state(self, annotator):
        report = self.worker.report
        self.session.n_items = report.get("n_items", self.session.n_items)
        counts = self.session.counts(annotator)
        return {**counts, **{k: report.get(k) for k in _REPORTED}}

    def history(self, request):
        return JSONResponse(self.session.history(_annotator(request)))

    def item(self, request):
        number = request.path_params["number"]
        item = self.session.item(number, _annotator(request))
        return JSONResponse(self._with_guess(item))

    def image(self, request):
        path = Path(self.session.path(request.path_params["number"]))
        if not path.is_file():
            raise NoItemError("the image was deleted.")
        kind = _SHOWN.get(path.suffix.lower())
        if kind:
            return FileResponse(path, media_type=kind)
        try:
            image = open_upright(path, _CONVERTED)
        except DAMAGE as error:
            raise NoItemError(f"the image cannot be read: {error}") from error
        image.thumbnail((_CONVERTED, _CONVERTED))
        file = io.BytesIO()
        image.save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png")

    def answer(self, said):
        saved = self.session.answer(said.item, said.label, said.annotator, said.seconds)
        return {"saved": saved, **self._next(said.annotator)}

    def undo(self, said):
        item = self.session.undo(said.annotator)
        self.worker.wake()
        return {"item": self._with_guess(item), "done": False}

    def next(self, said):
        return self._next(said.annotator)

    def add_class(self, said):
        self.session.add_class(said.name)
        return self._state(said.annotator)

    def _next(self, annotator):
        item = self.session.next(annotator)
        self.worker.wake()
        done = item is None and bool(self.worker.report.get("exhausted"))
        return {"item": self._with_guess(item), "done": done}

    def _with_guess(self, item):
        """Add what the model says; the page shows it to who asks for it."""
        if item is None:
            return None
        guesses = self.worker.report.get("guesses") or {}
        return {**item, "guess": guesses.get(str(item["number"]))}


def _annotator(request):
    return request.query_params.get("annotator", "")[:100]
