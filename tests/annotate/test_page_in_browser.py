"""The page in a real browser: what a person sees and does, by keyboard alone."""

import os
import shutil

import pytest

from skal.annotate import LabelProject

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
    page.set_default_timeout(60_000)
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
    page.wait_for_function("document.querySelector('#item img').naturalWidth === 10")
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


def test_what_a_screen_reader_is_told(project, page, serve_app):
    project.store.choose([0, 1])
    live = serve_app()
    page.goto(f"http://127.0.0.1:{live.port}/?token={live.token}")
    wait_for(page, "0.png")
    for button in page.get_by_role("button").all():
        assert button.get_attribute("aria-keyshortcuts") or button.inner_text()
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
