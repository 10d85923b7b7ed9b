"""Draw leaves, label some of them, and take the picture of the page, page.png.

    python benchmarks/label_page/picture.py

Needs Playwright and a Chromium. The leaves are drawn here, so the picture is as free as
the rest.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import expect, sync_playwright
from session import Person

from skal.annotate import LabelProject

CLASSES = ["birch", "ginkgo", "maple", "oak"]
COLOURS = {  # green at first, then of autumn
    "birch": [(104, 142, 62), (214, 178, 62)],
    "ginkgo": [(128, 158, 72), (232, 196, 64)],
    "maple": [(92, 128, 58), (196, 70, 44)],
    "oak": [(84, 118, 56), (162, 104, 58)],
}
N_LEAVES, N_ANSWERS, SIZE = 160, 72, 640


def outline(kind, rng):
    """Radius of a leaf at each angle from its tip."""
    t = np.linspace(-np.pi, np.pi, 720)
    a = np.abs(t)
    if kind == "birch":
        r = 0.62 * np.exp(-((a / 0.5) ** 2)) + 0.5 + 0.12 * np.exp(-((a - 2.2) ** 2))
        r += 0.05 * (np.abs((t * 22 / np.pi) % 1 - 0.5) - 0.25)
    elif kind == "ginkgo":
        r = 0.15 + 0.95 / (1 + np.exp((a - 1.25) / 0.06))
        r -= 0.5 * np.exp(-((t / 0.06) ** 2)) - 0.03 * np.sin(17 * a)
    elif kind == "maple":
        lobes = [(0, 0.62), (1.0, 0.56), (1.95, 0.3)]
        r = 0.46 + 0.05 * np.cos(15 * a)
        r += sum(h * np.exp(-((np.abs(a - c) / 0.3) ** 1.5)) for c, h in lobes)
    else:
        r = 0.42 + 0.62 * np.exp(-((a / 0.75) ** 2)) + 0.13 * np.cos(10 * a) * (a < 2.8)
        r += 0.28 * np.exp(-(((a - np.pi) / 0.5) ** 2))
    r = r * (1 + 0.02 * rng.normal() * np.sin(3 * t + rng.uniform(0, 6)))
    return t, r


def draw_leaf(path, kind, rng):
    big, (t, r) = 2 * SIZE, outline(kind, rng)
    turn, scale = rng.uniform(-0.5, 0.5), big * rng.uniform(0.29, 0.34)
    centre = np.array([big / 2, big * 0.56]) + rng.normal(0, 0.02 * big, 2)

    def place(angle, radius):
        x = scale * radius * np.sin(angle + turn)
        y = -scale * radius * np.cos(angle + turn)
        return centre + np.stack([x, y], axis=-1)

    share = rng.beta(0.8, 0.8)
    first, last = (np.array(c, dtype=float) for c in COLOURS[kind])
    colour = (1 - share) * first + share * last + rng.normal(0, 6, 3)
    paper = np.array([236, 231, 222]) + rng.normal(0, 5)
    image = Image.new("RGB", (big, big), _rgb(paper))
    shape = Image.new("L", (big, big), 0)
    ImageDraw.Draw(shape).polygon([*map(tuple, place(t, r))], fill=255)
    stalk = place(np.array([np.pi, np.pi + 0.05]), np.array([0.1, 1.25]))
    ImageDraw.Draw(shape).line([*map(tuple, stalk)], fill=255, width=big // 70)
    shadow = shape.filter(ImageFilter.GaussianBlur(big / 60))
    image.paste(_rgb(paper * 0.66), (big // 70, big // 50), shadow)
    # Light falls from one side.
    ramp = np.linspace(-1, 1, big)
    light = 1 + 0.13 * (rng.choice([-1, 1]) * ramp[None, :] - ramp[:, None]) / 2
    body = np.clip(colour * light[..., None] + rng.normal(0, 5, (big, big, 1)), 0, 255)
    body = Image.fromarray(body.astype(np.uint8))
    pen, vein = ImageDraw.Draw(body), _rgb(colour * 0.45 + 130)
    middle = place(np.array([np.pi, 0]), np.array([1.25, 0.9]))
    pen.line([*map(tuple, middle)], vein, big // 130)
    for angle in _veins(kind):
        reach = 0.86 * np.interp(angle, t, r)
        along = 0.75 * np.cos(angle) - 0.05 if kind in ("birch", "oak") else 0.0
        start = place(0.0, along)
        pen.line([tuple(start), tuple(place(angle, reach))], vein, big // 320)
    image.paste(body, mask=shape)
    image.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(path, quality=88)


def _veins(kind):
    if kind == "ginkgo":
        return np.linspace(-1.2, 1.2, 33)
    if kind == "maple":
        return np.array([-1.95, -1.0, 1.0, 1.95])
    angles = np.linspace(0.35, 2.3, 6)
    return np.r_[-angles, angles]


def _rgb(colour):
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def write_leaves(folder):
    """Write photos with the names that cameras give, and tell what they show."""
    folder.mkdir()
    rng, truth = np.random.default_rng(0), {}
    for number in range(N_LEAVES):
        kind, name = str(rng.choice(CLASSES)), f"IMG_{4127 + number}.jpg"
        draw_leaf(folder / name, kind, rng)
        truth[name] = kind
    return truth


def main():
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "leaves")
        truth = write_leaves(folder)
        LabelProject.init(folder, classes=CLASSES)
        person, rng = Person(folder), np.random.default_rng(1)
        try:
            item, answered = person.ask("/next")["item"], 0
            while answered < N_ANSWERS:
                if item is None:
                    time.sleep(0.2)
                    item = person.ask("/next")["item"]
                    continue
                label = None if answered == 40 else truth[item["name"]]
                seconds = round(float(rng.uniform(1.2, 3)), 2)
                said = {"item": item["number"], "label": label, "seconds": seconds}
                item = person.ask("/answer", **said)["item"]
                answered += 1
                time.sleep(0.3)  # let the worker keep up
            while not json.loads(person.get("/state"))["estimate"]:
                time.sleep(0.5)
            take(f"http://127.0.0.1:{person.port}/?token={person.token}")
        finally:
            person.kill()


def take(address):
    chromium = next(filter(None, map(shutil.which, ["chromium", "chrome"])), None)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        size = {"width": 1280, "height": 690}
        page = browser.new_page(viewport=size, color_scheme="light")
        page.goto(address)
        shown = expect(page.locator("#item img"))
        shown.to_have_js_property("naturalWidth", SIZE, timeout=60_000)
        page.get_by_text("Accuracy about").wait_for()
        file = Path(__file__).with_name("page.png")
        page.screenshot(path=file)
        browser.close()
    image = Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
