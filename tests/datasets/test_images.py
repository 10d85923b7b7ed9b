"""Images of the user's own: .npz archives and folders of files."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from skal.datasets import load_dataset
from skal.datasets._images import channels_first


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_npz(path, shape=(20, 8, 8, 3), **arrays):
    contents = {"images": pixels(*shape), "labels": np.arange(shape[0]) % 2}
    np.savez_compressed(path, **{**contents, **arrays})
    return path


def save_images(root, sizes=(("ant", 6), ("bee", 6)), shape=(8, 10, 3), suffix="png"):
    """PNG files by class; returns their pixels in the order of the files."""
    saved = []
    for name, n in sizes:
        (root / name).mkdir(parents=True)
        for i, image in enumerate(pixels(n, *shape, seed=n + len(name))):
            Image.fromarray(image).save(root / name / f"{i}.{suffix}")
            saved.append(image)
    return np.array(saved)


def test_real_archives(data_root):
    data = load_dataset(
        "cifar10_train.npz", data_root, test_path=data_root / "cifar10_test.npz"
    )
    assert data.X_train.shape == (4000, 3, 32, 32) and data.X_train.dtype == np.uint8
    assert data.image_shape == (3, 32, 32) and data.test_indices is None
    np.testing.assert_array_equal(np.bincount(data.y_test), 100)
    with np.load(data_root / "cifar10_train.npz") as stored:
        np.testing.assert_array_equal(data.y_train, stored["labels"])
        np.testing.assert_array_equal(
            data.X_train, stored["images"].transpose(0, 3, 1, 2)
        )
    np.testing.assert_allclose(data.mean, data.X_train.mean((0, 2, 3)))
    np.testing.assert_allclose(data.std, data.X_train.std((0, 2, 3)))
    assert data.augmentation.padding == 4 and not data.augmentation.flip


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((20, 8, 9, 3), (3, 8, 9)),
        ((20, 3, 8, 9), (3, 8, 9)),
        ((20, 8, 9), (1, 8, 9)),
        ((20, 8, 9, 1), (1, 8, 9)),
    ],
)
def test_npz_layouts_and_split(tmp_path, shape, expected):
    path = save_npz(tmp_path / "a.npz", shape, labels=np.array(["b", "a"] * 10))
    data, again = load_dataset(path), load_dataset(path)
    assert data.image_shape == data.X_train.shape[1:] == expected
    assert data.classes == ("a", "b") and (data.augmentation is None) == (
        expected[0] == 1
    )
    images = pixels(*shape).reshape(20, *shape[1:3], -1)
    if shape[1:] != expected:
        images = images.transpose(0, 3, 1, 2)
    images = images.reshape(20, *expected)
    for split in ("train", "test"):
        rows = data[f"{split}_indices"]
        np.testing.assert_array_equal(data[f"X_{split}"], images[rows])
        np.testing.assert_array_equal(data[f"X_{split}"], again[f"X_{split}"])
        np.testing.assert_array_equal(data[f"y_{split}"], 1 - rows % 2)
    assert np.bincount(data.y_test).tolist() == [2, 2]


def test_constant_channel_has_deviation_one(tmp_path):
    images = pixels(600, 4, 4, 3)
    images[..., 1] = 7
    data = load_dataset(
        save_npz(tmp_path / "a.npz", images=images, labels=np.arange(600) % 2)
    )
    assert data.mean[1] == 7 and data.std[1] == 1


def test_channels_first_over_many_blocks():
    images = pixels(600, 3, 4, 3)
    expected = images.transpose(0, 3, 1, 2).copy()
    moved = channels_first(images)
    np.testing.assert_array_equal(moved, expected)
    assert np.shares_memory(moved, images)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": np.zeros((20, 8, 8, 3))}, "images of float64 of shape .*uint8"),
        ({"images": pixels(20, 8, 8, 5)}, "1, 3 or 4 channels"),
        ({"labels": np.arange(19)}, r"labels of shape \(19,\), 20 images"),
        ({"labels": np.array([1, "a"] * 10, dtype=object)}, "arrays of Python objects"),
        ({"labels": np.zeros(20)}, r"two classes at least, got \['0'\]"),
    ],
)
def test_unfit_npz(tmp_path, arrays, message):
    path = save_npz(tmp_path / "some.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(path)
    assert "some.npz" in str(caught.value)


def test_npz_without_an_array(tmp_path):
    np.savez(tmp_path / "a.npz", x=pixels(5), labels=np.arange(5))
    with pytest.raises(ValueError, match=r"lacks the array 'images', it has \['x'"):
        load_dataset(tmp_path / "a.npz")


@pytest.mark.parametrize("damage", ["cut", "flip", "text"])
def test_damaged_npz(tmp_path, damage):
    path = save_npz(tmp_path / "a.npz")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 255
    path.write_bytes(b"text" if damage == "text" else content[: len(content) - 50])
    if damage == "flip":
        path.write_bytes(content)
    with pytest.raises(ValueError, match="a.npz' is damaged or no .npz.*whole copy"):
        load_dataset(path)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": pixels(20, 8, 7, 3)}, r"images of shape \(3, 8, 7\)"),
        ({"labels": np.arange(20)}, r"has the classes \['10'"),
    ],
)
def test_npz_that_does_not_fit_the_training_data(tmp_path, arrays, message):
    path = save_npz(tmp_path / "a.npz")
    test = save_npz(tmp_path / "b.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(path, test_path=test)
    assert "b.npz" in str(caught.value)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_folder(tmp_path, channels):
    saved = save_images(tmp_path, shape=(8, 10, *channels))
    (tmp_path / ".cache").mkdir()
    (tmp_path / "bee" / "notes.txt").write_text("no image")
    data = load_dataset(tmp_path)
    n_channels = 3 if channels else 1
    assert data.image_shape == (n_channels, 8, 10) and data.classes == ("ant", "bee")
    assert data.X_train.dtype == np.uint8 and data.X_test.shape[0] == 3
    expected = saved.reshape(12, 8, 10, n_channels).transpose(0, 3, 1, 2)
    for split in ("train", "test"):
        rows = data[f"{split}_indices"]
        np.testing.assert_array_equal(data[f"X_{split}"], expected[rows])
        np.testing.assert_array_equal(data[f"y_{split}"], rows // 6)
    assert (data.augmentation is None) == (n_channels == 1)
    if n_channels == 3:
        assert data.augmentation.padding == 1 and not data.augmentation.flip


def test_large_folder_is_read_when_asked_for(tmp_path, monkeypatch):
    save_images(tmp_path / "train")
    save_images(tmp_path / "test", (("ant", 2), ("bee", 1)))
    paths = {"name": tmp_path / "train", "test_path": tmp_path / "test"}
    small = load_dataset(**paths)
    monkeypatch.setattr("skal.datasets._images._IN_MEMORY", 1000)
    large = load_dataset(**paths)
    for split in ("train", "test"):
        X = large[f"X_{split}"]
        assert isinstance(X, Dataset) and X.image_shape == (3, 8, 10)
        images, targets = zip(*[X[row] for row in range(len(X))], strict=True)
        assert torch.equal(torch.stack(images), torch.from_numpy(small[f"X_{split}"]))
        np.testing.assert_array_equal(targets, small[f"y_{split}"])
        np.testing.assert_array_equal(X.targets, large[f"y_{split}"])
    np.testing.assert_array_equal(large.mean, small.mean)
    np.testing.assert_array_equal(large.std, small.std)
    assert large.image_shape == small.image_shape


def test_large_folder_trains_a_loop(tmp_path, monkeypatch):
    from skorch import NeuralNetClassifier

    from skal import ActiveLearningLoop, RandomQuery
    from skal.models import MLP, Standardized

    save_images(tmp_path)
    monkeypatch.setattr("skal.datasets._images._IN_MEMORY", 0)
    data = load_dataset(tmp_path)
    net = NeuralNetClassifier(
        Standardized,
        module__network=MLP,
        module__mean=data.mean.tolist(),
        module__std=data.std.tolist(),
        module__n_inputs=240,
        module__n_classes=2,
        criterion=torch.nn.CrossEntropyLoss,
        iterator_train__collate_fn=data.augmentation,
        train_split=None,
        max_epochs=1,
        verbose=0,
    )
    loop = ActiveLearningLoop(
        net, RandomQuery(), n_initial=4, batch_size=2, n_rounds=1, random_state=0
    ).fit(data.X_train, X_test=data.X_test)
    assert loop.history_["n_labeled"].tolist() == [4, 6]
    assert loop.predict(data.X_test).shape == (3,)


@pytest.mark.parametrize("keep", [0, 20, -40])
def test_damaged_image_is_named(tmp_path, keep):
    save_images(tmp_path)
    path = tmp_path / "bee" / "3.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"3.png' is a damaged image .*Replace it"):
        load_dataset(tmp_path)


def test_images_of_different_size_are_named(tmp_path):
    save_images(tmp_path)
    Image.fromarray(pixels(8, 9, 3)).save(tmp_path / "bee" / "3.png")
    message = r"ant.0.png' is 10x8, '.*bee.3.png' is 9x8 \(width x height\). Resize"
    with pytest.raises(ValueError, match=message):
        load_dataset(tmp_path)


def test_test_folder_of_another_size(tmp_path):
    save_images(tmp_path / "one")
    save_images(tmp_path / "two", shape=(9, 9, 3))
    with pytest.raises(ValueError, match="one.ant.0.png' is 10x8, '.*two.ant.0.png'"):
        load_dataset(tmp_path / "one", test_path=tmp_path / "two")


def test_sixteen_bits_are_refused(tmp_path):
    save_images(tmp_path)
    Image.fromarray(pixels(8, 10).astype(np.uint16)).save(tmp_path / "bee" / "9.png")
    with pytest.raises(ValueError, match="9.png' has more than 8 bits .*convert it"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "folders, message",
    [
        ({}, "has no folders: it must have one folder of images for each class"),
        ({"ant": 3}, r"two folders of classes at least, got \['ant'\]"),
        ({"ant": 3, "bee": 0}, "bee' is an empty class: it has no image files"),
        ({"train": 3, "test": 3}, r"\['test', 'train'\], which are splits rather"),
    ],
)
def test_unfit_folder(tmp_path, folders, message):
    save_images(tmp_path, folders.items())
    with pytest.raises(ValueError, match=message):
        load_dataset(tmp_path)


def test_unknown_class_in_the_test_folder(tmp_path):
    save_images(tmp_path / "one")
    save_images(tmp_path / "two", (("ant", 1), ("wasp", 1)))
    with pytest.raises(ValueError, match=r"two' has the classes \['wasp'\]"):
        load_dataset(tmp_path / "one", test_path=tmp_path / "two")


ICONS = ("RGBA", "LA", "PA", "P", "L-key", "RGB-key")


def save_icons(root, mode, stroke=0):
    """Strokes of one grey on a transparent ground; returns where they are opaque."""
    opaque = np.random.default_rng(0).random((20, 8, 8)) < 0.5
    for i, drawn in enumerate(opaque):
        grey = np.where(drawn, stroke, 77).astype(np.uint8)
        keyed, options = mode.endswith("-key"), {}
        if keyed:
            image = Image.fromarray(grey).convert(mode[:-4])
            options["transparency"] = 77 if image.mode == "L" else (77, 77, 77)
        else:
            alpha = (255 * drawn).astype(np.uint8)
            layers = Image.fromarray(grey), Image.fromarray(alpha)
            image = Image.merge("LA", layers)
            if mode == "P":
                image = image.convert("RGBA").quantize(4)
            elif mode not in ("LA", "PA"):
                image = image.convert(mode)
            elif mode == "PA":
                image = image.convert("RGBA").quantize(4).convert("RGBA")
        folder = root / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{i:02d}.png", **options)
    return np.r_[opaque[::2], opaque[1::2]]


@pytest.mark.parametrize("mode", ICONS)
def test_transparent_images_lie_on_a_ground(tmp_path, mode):
    opaque = save_icons(tmp_path, mode)
    for options, ground in (({}, 255), ({"background": "#808080"}, 128)):
        data = load_dataset(tmp_path, **options)
        images = np.empty((20, *data.image_shape), np.uint8)
        images[data.train_indices], images[data.test_indices] = (
            data.X_train,
            data.X_test,
        )
        expected = np.where(opaque, 0, ground)[:, None]
        np.testing.assert_array_equal(images, np.broadcast_to(expected, images.shape))


def test_half_transparent_colours_are_mixed(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            pixel = np.array([[[200, 0, 100, 128], [9, 8, 7, 255]]], np.uint8)
            Image.fromarray(pixel).save(tmp_path / name / f"{i}.png")
    image = load_dataset(tmp_path, background="black").X_train[0]
    assert abs(image[:, 0, 0].astype(int) - [100, 0, 50]).max() <= 1
    assert image[:, 0, 1].tolist() == [9, 8, 7]


@pytest.mark.parametrize("in_memory", [True, False])
def test_image_that_vanishes_on_the_ground(tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr("skal.datasets._images._IN_MEMORY", 0)
    save_icons(tmp_path, "RGBA", stroke=255)
    with pytest.raises(ValueError, match=r"\d\d.png' .*vanishes on background='white'"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, background="black").image_shape == (3, 8, 8)


def test_images_without_any_opaque_pixel(tmp_path):
    """All would be equal, whatever their colours."""
    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        pixels = np.dstack(
            [np.random.default_rng(i).integers(0, 255, (8, 8, 3)), np.zeros((8, 8))]
        )
        image = Image.fromarray(pixels.astype(np.uint8))
        image.save(tmp_path / "ab"[i % 2] / f"{i}.png")
    with pytest.raises(ValueError, match="is transparent and vanishes"):
        load_dataset(tmp_path)


def test_opaque_alpha_changes_nothing(tmp_path):
    for i in range(6):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        image = np.full((8, 10, 4), 255, np.uint8)
        image[..., :3] = pixels(8, 10, 3, seed=i)
        Image.fromarray(image).save(folder / f"{i}.png")
    data = load_dataset(tmp_path, background="black", test_size=2)
    first = 2 * data.train_indices[0]  # files 0, 2, 4 are the first class
    expected = pixels(8, 10, 3, seed=first).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.X_train[0], expected)


@pytest.mark.parametrize("background", ["no colour", "", None, 3])
def test_background_that_is_no_colour(tmp_path, background):
    save_images(tmp_path)
    with pytest.raises(ValueError, match="background=.* must be a colour as Pillow"):
        load_dataset(tmp_path, background=background)


def test_background_is_for_folders(tmp_path):
    with pytest.raises(ValueError, match="background='black' does not apply"):
        load_dataset(save_npz(tmp_path / "a.npz"), background="black")


@pytest.mark.parametrize(
    "hidden",
    [
        ".ipynb_checkpoints",
        ".git/lfs",
        "sub/.thumbnails/large",
        "@eaDir/0.png",
        "sub/__MACOSX",
        "$RECYCLE.BIN",
    ],
)
def test_hidden_files_are_not_read(tmp_path, hidden):
    root = tmp_path / ".cache" / "images"
    saved = save_images(root)
    for folder in (root / "ant" / hidden, root / hidden.split("/")[0] / "x"):
        if hidden.startswith("sub") and folder.name == "x":
            continue
        folder.mkdir(parents=True)
        Image.fromarray(pixels(8, 10, 3)).save(folder / "0.png")
    Image.fromarray(pixels(8, 10, 3)).save(root / "bee" / "._0.png")
    data = load_dataset(root)
    assert data.classes == ("ant", "bee")
    for split in ("train", "test"):
        expected = saved[data[f"{split}_indices"]].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(data[f"X_{split}"], expected)
    assert len(data.y_train) + len(data.y_test) == 12


@pytest.mark.parametrize(
    "labels, classes",
    [
        ([2**53 + 1, 2**53, 7], ("7", str(2**53), str(2**53 + 1))),
        ([2.0, 10.0, 0.0], ("0", "2", "10")),
        ([b"b", b"a", b"c"], ("a", "b", "c")),
        ([True, False, True], ("False", "True")),
        (["007", "7", "1_1"], ("007", "1_1", "7")),
    ],
)
def test_names_of_npz_classes_are_kept(tmp_path, labels, classes):
    labels = np.array(labels * 10)
    path = save_npz(tmp_path / "a.npz", (30, 4, 4), labels=labels)
    data = load_dataset(path)
    assert data.classes == classes
    codes = np.unique(labels, return_inverse=True)[1]
    np.testing.assert_array_equal(data.y_train, codes[data.train_indices])


def test_missing_labels_of_npz(tmp_path):
    path = save_npz(tmp_path / "a.npz", labels=np.array(["NA", "SA"] * 10))
    assert load_dataset(path, missing_labels="").classes == ("NA", "SA")
    with pytest.raises(ValueError, match="label 'NA' in rows 0, 2"):
        load_dataset(path)
    path = save_npz(tmp_path / "b.npz", labels=np.r_[np.nan, np.arange(19) % 2])
    with pytest.raises(ValueError, match="label 'nan' in row 0, .*1 in all"):
        load_dataset(path)


def test_images_are_never_stacked_twice(tmp_path):
    """50,000 images of 32x32x3 stay below one and a half times their bytes."""
    n = 50_000
    np.savez(tmp_path / "a.npz", images=pixels(n, 32, 32, 3), labels=np.arange(n) % 10)
    program = f"""
import resource
from skal.datasets import load_dataset
load_dataset("digits")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = load_dataset({str(tmp_path / "a.npz")!r})
assert data.X_train.shape == (40_000, 3, 32, 32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert 1024 * int(done.stdout) < 1.5 * n * 3072
