"""The report in a real browser: its width, its contrast and its switches."""

import os
import shutil

import numpy as np
import pytest
from test_report import make_run

from skal.report import write_report
from skal.utils import all_strategies, command_line_name

pytestmark = pytest.mark.web
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
A4 = 718  # pixels between margins of 10 mm

# Colours as numbers, whatever CSS calls them, and what lies behind each text.
CONTRASTS = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colors) => {
    pen.clearRect(0, 0, 1, 1);
    for (const color of colors) { pen.fillStyle = color; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = element.closest("svg") ? style.fill : style.color;
    const grounds = [];
    for (let node = element; node; node = node.parentElement)
      grounds.unshift(getComputedStyle(node).backgroundColor);
    found[[ink, ...grounds]] ??=
      [element.outerHTML.slice(0, 80), paint([...grounds, ink]), paint(grounds)];
  }
  return Object.values(found);
}"""


WRAPPERS = ("stochastic", "partitioned", "subsample")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A report of as many strategies as there are, and of three."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    names = [command_line_name(cls) for _, cls in all_strategies()]
    names = [name for name in names if name not in WRAPPERS]
    for name in names:
        for seed in range(2):
            make_run(folder, name, seed, [0.5, *rng.random(2).round(3)])
    for name, score in {"random": 0.8, "margin": 0.9, "badge": 0.6}.items():
        for seed in range(3):
            last = score + rng.normal(0, 0.001)
            make_run(folder, name, seed, [0.5, 0.6, last], data="MNIST")
    make_run(folder, "drop", 7, [0.5], done=False)
    return write_report(folder).page.as_uri()


@pytest.fixture(scope="module")
def page(address):
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        # As root, as in a container, its sandbox does not start.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(address)
        yield page
        browser.close()


def luminance(color):
    values = np.array(color) / 255
    linear = np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize(
    "scheme, media", [("light", "screen"), ("dark", "screen"), ("dark", "print")]
)
def test_texts_stand_out(page, scheme, media):
    page.emulate_media(color_scheme=scheme, media=media)
    found = page.evaluate(CONTRASTS)
    texts = " ".join(text for text, *_ in found)
    assert len(found) > 20 and "<text" in texts and "<td" in texts and "<h2" in texts
    grounds = [luminance(ground) for _, _, ground in found]
    assert (np.median(grounds) < 0.1) == (scheme == "dark" and media == "screen")
    for text, ink, ground in found:
        dark, light = sorted([luminance(ink), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, text


@pytest.mark.parametrize(
    "width, media", [(390, "screen"), (1280, "screen"), (A4, "print")]
)
def test_nothing_is_wider_than_the_window(page, width, media):
    page.emulate_media(media=media)
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if media == "print":  # where nothing scrolls, nothing is cut
        rights = page.evaluate(
            "[...document.querySelectorAll('table')].map("
            "table => table.getBoundingClientRect().right)"
        )
        assert max(rights) <= width and len(rights) > 6


def test_a_table_scrolls_below_its_header(page):
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": 390, "height": 844})
    top, left = page.evaluate("""() => {
      const box = document.querySelector(".turned");
      box.scrollTo(100, 200);
      const [a, b] = [box, box.querySelector("thead th")].map(
        each => each.getBoundingClientRect());
      return [b.top - a.top, b.left - a.left];
    }""")
    assert abs(top) < 1 and abs(left) < 1


def test_switches_show_what_is_asked_for(page):
    page.emulate_media(media="screen")
    group = page.locator(".group").filter(has_text="digits, mlp")
    figure = group.locator("figure").first

    def shown(what):
        return figure.locator(f".s {what}").evaluate_all(
            "all => all.filter(each => each.getBoundingClientRect().width).length"
        )

    # Random, the four best, and the bands of random and the best.
    assert shown(".line") == 5 and shown(".band") == 2
    group.get_by_label("none").check()
    assert shown(".line") == 5 and shown(".band") == 0
    group.get_by_label("all", exact=True).check()
    assert shown(".band") == 5
    for box in group.get_by_role("checkbox", checked=False).all()[:2]:
        box.check()
    assert shown(".line") == 7
    group.get_by_label("random", exact=True).uncheck()
    assert shown(".line") == 6
