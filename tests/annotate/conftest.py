"""Small projects of images, texts and rows."""

import numpy as np
import pytest
from PIL import Image

from skal.annotate import LabelProject

PETS = ["cat", "dog"]


def draw(path, seed, size=(12, 10), mode="RGB"):
    """Write an image of noise, darker for even seeds."""
    rng = np.random.default_rng(seed)
    top = 100 if seed % 2 == 0 else 256
    values = rng.integers(top - 100, top, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path):
    """Twelve images in a folder and one below it."""
    folder = tmp_path / "photos"
    for seed in range(10):
        draw(folder / f"{seed}.png", seed)
    draw(folder / "more/10.png", 10)
    draw(folder / "more/11.jpg", 11, (40, 7))
    return folder


@pytest.fixture
def project(photos):
    return LabelProject.init(photos, classes=PETS, batch_size=4)


@pytest.fixture
def truth():
    """Tell what an image of `photos` shows, by its name."""
    return lambda item: PETS[int(item.split("/")[-1].split(".")[0]) % 2]


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.csv"
    lines = [
        f'{i},"{["a fine, warm", "a dull"][i % 2]} film no {i}"' for i in range(20)
    ]
    path.write_text("id,text\n" + "\n".join(lines) + "\n")
    return path
