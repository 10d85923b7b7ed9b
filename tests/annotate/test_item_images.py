import numpy as np
import pytest
from PIL import Image

from skal.annotate.images import contact_sheet, fault_of, thumbnails


def test_modes_and_sizes_are_mixed(tmp_path):
    values = np.full((9, 30), 200, dtype=np.uint8)
    values[:, :15] = 40
    grey = Image.fromarray(values)
    images = {
        "grey.png": grey,
        "colour.png": grey.convert("RGB"),
        "palette.png": grey.convert("P"),
        "clear.png": grey.convert("LA"),
        "print.tif": grey.convert("CMYK"),
        "small.png": grey.resize((4, 4), Image.Resampling.NEAREST),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
    squares = thumbnails([tmp_path / name for name in images], size=4)
    assert squares.shape == (6, 3, 4, 4) and squares.dtype == np.uint8
    expected = np.broadcast_to([40, 40, 200, 200], (6, 3, 4, 4))
    ends = [0, 3]  # away from the edge, which is smoothed
    assert abs(squares.astype(int) - expected)[..., ends].max() <= 2


def test_deep_images_keep_their_contrast(tmp_path):
    ramp = np.array([[1000, 1000, 3000, 3000]] * 4, dtype=np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "floats.tif")
    paths = [tmp_path / "deep.png", tmp_path / "floats.tif"]
    assert (thumbnails(paths, size=4) == [0, 0, 255, 255]).all()


def test_transparent_pixels_are_white(tmp_path):
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:, 2:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (thumbnails([tmp_path / "a.png"], size=4) == [255, 255, 0, 0]).all()


def test_photos_are_turned_as_the_camera_says(tmp_path):
    values = np.zeros((4, 4), dtype=np.uint8)
    values[0] = 255
    exif = Image.Exif()
    exif[274] = 3  # upside down
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    (square,) = thumbnails([tmp_path / "a.png"], size=4)
    assert (square[0, :, 0] == [0, 0, 0, 255]).all()


def test_broken_files(photos):
    whole = (photos / "more/11.jpg").read_bytes()
    (photos / "torn.jpg").write_bytes(whole[:-20])
    (photos / "text.png").write_text("no image")
    assert fault_of(photos / "3.png") == ""
    assert "identify" in fault_of(photos / "text.png")
    faults = {}
    paths = [photos / name for name in ("torn.jpg", "3.png", "text.png")]
    squares = thumbnails(paths, faults=faults)
    assert set(faults) == {0, 2} and "truncated" in faults[0]
    assert not squares[[0, 2]].any() and squares[1].any()
    with pytest.raises(ValueError, match="torn.jpg.*truncated.*whole copy"):
        thumbnails(paths)


def test_contact_sheet_shows_all(photos):
    paths = [photos / f"{i}.png" for i in range(7)]
    sheet = contact_sheet(paths, ["a very long caption " * 9] * 7, size=40, n_columns=3)
    assert sheet.size == (120, 3 * 58)
    tiles = np.asarray(sheet).reshape(3, 58, 3, 40, 3).swapaxes(1, 2).reshape(9, -1)
    assert [bool((tile != 255).any()) for tile in tiles] == [True] * 7 + [False] * 2


def test_a_path_alone_is_refused():
    with pytest.raises(ValueError, match="by a list of paths, got 'a.png'"):
        thumbnails("a.png")
