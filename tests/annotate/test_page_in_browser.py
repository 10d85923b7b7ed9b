"""The page in a real browser: what a person sees and does, by keyboard alone."""

import os
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from skal.annotate import LabelProject
from skal.annotate.serving import Frame

from PIL import Image  # isort: skip

pytestmark = pytest.mark.web
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CLASSES = ["cat", "dog", "<i>emu</i>"]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        # As root, as in a container, its sandbox does not start.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(300_000)
    faults = []
    page.on("pageerror", lambda error: faults.append(error))
    yield page
    page.close()
    assert faults == []


def wait_for(page, text):
    """Wait until the heading shows a text."""
    page.get_by_role("heading", name=text).wait_for()


@pytest.fixture
def photos_of_markup(photos):
    Image.new("RGB", (9, 9), "red").save(photos / "0<b>.png")
    return photos


def test_a_session_by_keyboard(photos_of_markup, page, start_server):
    project = LabelProject.init(photos_of_markup, classes=CLASSES, batch_size=4)
    store = project.store
    names = ["0.png", "1.png", "0<b>.png", "2.png", "3.png", "4.png", "5.png"]
    store.choose(store.numbers(names))
    served = start_server(project.folder)
    page.goto(served.address)
    wait_for(page, "0.png")
    # Not `wait_for_function`: what asks again needs eval, which the page forbids.
    page.locator("#item img.small").wait_for()
    press = page.keyboard.press

    press("1")
    wait_for(page, "1.png")
    press("d")
    wait_for(page, "0<b>.png")
    press("s")
    wait_for(page, "2.png")
    page.get_by_text("2 of 13 labelled, 1 skipped").wait_for()
    press("u")
    wait_for(page, "0<b>.png")
    press("3")
    wait_for(page, "2.png")
    expected = dict(zip(names, ["cat", "dog", "<i>emu</i>"], strict=False))
    assert labels_of(store) == expected

    # Back to an earlier answer: it is shown, and corrected.
    for name in ("0<b>.png", "1.png"):
        press("ArrowLeft")
        wait_for(page, name)
    dog = page.get_by_role("button", name="dog, 1 labelled")
    assert dog.get_attribute("aria-pressed") == "true"
    press("1")
    wait_for(page, "2.png")
    assert labels_of(store)["1.png"] == "cat"

    press("z")
    assert page.locator("#item").get_attribute("data-zoom") == "2"
    press("p")
    assert "No prediction yet" in page.locator("#guess").inner_text()

    # Tab and Enter do what the keys do; what one types elsewhere answers nothing.
    page.locator("summary", has_text="A class is missing").click()
    page.locator("#class-name").fill("")
    page.keyboard.type("gnu")
    press("Enter")
    page.get_by_role("button", name="gnu, 0 labelled").focus()
    assert page.get_by_role("heading", name="2.png").is_visible()
    press("Enter")
    wait_for(page, "3.png")
    assert labels_of(store)["2.png"] == "gnu"

    page.reload()
    wait_for(page, "3.png")
    served.kill()
    press("2")
    page.get_by_role("alert").filter(has_text="does not answer").wait_for()
    start_server(project.folder, served.port)
    wait_for(page, "4.png")
    assert page.locator("#problem").is_hidden()
    assert labels_of(store)["3.png"] == "dog"
    press("1")
    wait_for(page, "5.png")

    # Names are text, never markup; nothing sticks out at the side.
    assert page.locator("i, b").count() == 0
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    events = store.events()
    assert (events["kind"] == "undo").sum() == 1


def labels_of(store):
    names = store.items()["item"]
    pairs = zip(names, store.labels(), strict=True)
    return {name: label for name, label in pairs if label is not None}


# A control and its name, in a snapshot of the accessibility tree.
ROLES = re.compile(
    r"- (button|link|textbox|checkbox|progressbar|img|region|heading)"
    r'(?: "(.*)")?'
)


def test_what_a_screen_reader_is_told(project, page, serve_app):
    project.store.choose([0, 1])
    live = serve_app()
    page.goto(f"http://127.0.0.1:{live.port}/?token={live.token}")
    wait_for(page, "0.png")
    page.locator("summary").first.click()
    controls = re.findall(ROLES, page.locator("body").aria_snapshot())
    assert len(controls) > 12
    assert all(name for _, name in controls), controls
    assert page.get_by_role("img", name="Image 0.png").is_visible()
    assert page.get_by_role("progressbar", name="Items with an answer").is_visible()
    cat = page.get_by_role("button", name="cat, 0 labelled, key 1 c")
    cat.focus()
    page.keyboard.press("Enter")
    wait_for(page, "1.png")
    assert page.get_by_role("status").inner_text() == "cat. 1.png"
    # The focus stays, so that one can go on.
    focused = page.evaluate("document.activeElement.dataset.label")
    assert focused == "cat"
    page.locator("#keys").uncheck()
    page.keyboard.press("2")
    assert labels_of(project.store) == {"0.png": "cat"}
    page.locator("#keys").check()
    page.keyboard.press("2")
    page.get_by_role("heading", name="Choosing what to ask next").wait_for()
    assert labels_of(project.store) == {"0.png": "cat", "1.png": "dog"}


# What stands where, and how it contrasts with its ground.
CONTRASTS = """() => {
  const parse = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [[r, .2126], [g, .7152], [b, .0722]].reduce(
    (sum, [value, share]) => sum + share * (value / 255 <= .04045
      ? value / 255 / 12.92 : ((value / 255 + .055) / 1.055) ** 2.4), 0);
  const ground = (of) => {
    for (; of; of = of.parentElement) {
      const [r, g, b, seen = 1] = parse(getComputedStyle(of).backgroundColor);
      if (seen) return [r, g, b];
    }
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const texts = [...element.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE);
    const text = element.placeholder || texts.map((n) => n.data).join("").trim();
    if (!text || !element.checkVisibility() || element.closest(":disabled")) continue;
    const part = element.placeholder ? "::placeholder" : null;
    const both = [parse(getComputedStyle(element, part).color), ground(element)];
    const [low, high] = both.map(light).sort((a, b) => a - b);
    found.push([text, (high + .05) / (low + .05)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_is_read_and_reached_on_small_and_large_screens(
    photos, page, serve_app, scheme
):
    long = "a_class_whose_name_has_no_blank_and_does_not_fit_on_a_small_screen"
    (photos / "0.png").rename(photos / f"0{long}.png")
    project = LabelProject.init(photos, classes=["cat", long], project=photos / "p")
    project.store.choose(range(12))
    numbers = project.store.items().index
    report = {"guesses": {str(n): ["cat", 0.9] for n in numbers}, "advice": "Go on."}
    live = serve_app(project, report)
    page.emulate_media(color_scheme=scheme)
    page.goto(f"http://127.0.0.1:{live.port}/?token={live.token}")
    wait_for(page, long)
    page.keyboard.press("1")
    wait_for(page, "1.png")
    page.keyboard.press("ArrowLeft")  # one class is pressed
    wait_for(page, "answered: cat")
    page.keyboard.press("p")
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name=f"0{long}.png: cat").wait_for()
    page.evaluate("problem('The server does not answer.')")
    for width, height in [(390, 844), (1280, 800)]:
        page.set_viewport_size({"width": width, "height": height})
        contrasts = dict(page.evaluate(CONTRASTS))
        assert {"cat", "Skip", "if several label", "Go on."} <= contrasts.keys()
        assert {text: r for text, r in contrasts.items() if r < 4.5} == {}
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    # By Tab alone one gets to every control, and sees where one is.
    page.reload()
    wait_for(page, "1.png")
    seen = []
    while len(seen) < 60:
        page.keyboard.press("Tab")
        where = page.evaluate(
            "[document.activeElement.dataset.label || document.activeElement.id || "
            "document.activeElement.textContent.trim(), "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        if where in seen:
            break
        seen.append(where)
    reached, outlines = zip(*seen, strict=True)
    assert reached[0] == "To the classes"
    controls = {"annotator", "item", "cat", long, "skip", "undo", "predict", "keys"}
    assert {*controls, "A class is missing", "Earlier answers"} <= {*reached}
    assert "none" not in outlines[:-1]  # the last may be the page itself


@pytest.fixture
def notebook():
    """Serve a page that holds another in a frame, from another origin."""
    html = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html[0].encode())

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def show(address):
            html[:] = ["<!doctype html>" + Frame(address, 600)._repr_html_()]
            return f"http://localhost:{server.server_port}/"

        yield show
        server.shutdown()
        thread.join()


def test_a_frame_is_filled_for_the_notebook_alone(project, page, serve_app, notebook):
    project.store.choose([0, 1])
    for frames in ((), ["http://localhost:1"]):
        live = serve_app(frames=frames)
        with page.expect_console_message(lambda told: "ancestors" in told.text):
            page.goto(notebook(f"http://127.0.0.1:{live.port}/?token={live.token}"))
    live = serve_app(frames=["http://localhost:*"])
    page.goto(notebook(f"http://127.0.0.1:{live.port}/?token={live.token}"))
    frame = page.frame_locator("iframe")
    frame.get_by_role("button", name="dog").click()
    frame.get_by_role("heading", name="1.png").wait_for()
    assert labels_of(project.store) == {"0.png": "dog"}
