import gzip
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from skal.datasets import CropFlip, load_dataset
from skal.datasets._torchvision import read_idx

REAL = Path(os.environ.get("SKAL_TEST_DATA", "../shared/data"))


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist_root(tmp_path):
    """Twelve training and five test images as gzip archives, nothing else."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 12), ("t10k", 5)):
        images = rng.integers(0, 256, (n, 28, 28))
        for stem, array in (
            ("images-idx3", images),
            ("labels-idx1", np.arange(n) % 10),
        ):
            path = folder / f"{split}-{stem}-ubyte.gz"
            path.write_bytes(gzip.compress(idx_bytes(array)))
    return tmp_path


@pytest.fixture
def no_download(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no network here")

    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(f"torchvision.datasets.{name}.download", refuse)


def listing(root):
    return {
        path.relative_to(root): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in root.rglob("*")
    }


def test_digits_are_split_by_seed_and_class():
    data, again = load_dataset("digits"), load_dataset("digits", random_state=0)
    np.testing.assert_array_equal(data.test_indices, again.test_indices)
    other = load_dataset("digits", random_state=1)
    assert not np.array_equal(data.test_indices, other.test_indices)
    rows = np.concatenate([data.train_indices, data.test_indices])
    np.testing.assert_array_equal(np.sort(rows), np.arange(1797))
    share = np.bincount(data.y_test) / np.bincount(np.r_[data.y_train, data.y_test])
    np.testing.assert_allclose(share, 0.2, atol=0.01)


def test_digits_arrays():
    data = load_dataset("digits")
    assert data.X_train.dtype == np.float32 and data.y_train.dtype == np.int64
    assert data.image_shape == data.X_train.shape[1:] == (1, 8, 8)
    assert data.X_train.min() == 0 and data.X_train.max() == 1
    assert data.augmentation is None and len(data.classes) == 10
    np.testing.assert_allclose(data.mean, data.X_train.mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["fashionmnist", "FashionMnist"])
def test_unknown_name_suggests_the_nearest(name):
    with pytest.raises(ValueError, match="'digits', 'MNIST'.*mean 'FashionMNIST'?"):
        load_dataset(name)


def test_archives_are_read_in_place(mnist_root):
    before = listing(mnist_root)
    data = load_dataset("FashionMNIST", mnist_root)
    assert listing(mnist_root) == before
    assert data.X_train.shape == (12, 1, 28, 28) and data.X_train.dtype == np.uint8
    assert data.X_train.flags.writeable and torch.from_numpy(data.X_train).ndim == 4
    np.testing.assert_array_equal(data.y_test, np.arange(5))
    assert data.augmentation is None and data.test_indices is None
    np.testing.assert_allclose(data.mean, data.X_train.mean(), rtol=1e-12)
    np.testing.assert_allclose(data.std, data.X_train.std(), rtol=1e-12)


def test_unpacked_files_are_read_too(mnist_root):
    packed = load_dataset("FashionMNIST", mnist_root)
    for path in (mnist_root / "FashionMNIST" / "raw").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    unpacked = load_dataset("FashionMNIST", mnist_root)
    np.testing.assert_array_equal(packed.X_train, unpacked.X_train)


def flip_a_byte(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-500],
        flip_a_byte,
        lambda content: b"<html>not found</html>",
        lambda content: b"",
        lambda content: gzip.compress(gzip.decompress(content)[:-1]),
        lambda content: gzip.compress(gzip.decompress(content) + b"!"),
        lambda content: gzip.compress(b"\x00\x00\x08"),
        lambda content: gzip.compress(b"\x00\x00\x08\x03\xff"),
        lambda content: gzip.compress(idx_bytes(np.zeros((12, 27, 28)))),
    ],
)
def test_damaged_archive_is_named_with_the_remedy(mnist_root, damage):
    path = mnist_root / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train-images.*gz' is damaged.*Replace it"):
        load_dataset("FashionMNIST", mnist_root)


@pytest.mark.parametrize("labels", [np.arange(11) % 10, np.full(12, 10)])
def test_labels_that_do_not_fit_the_images(mnist_root, labels):
    path = mnist_root / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(labels)))
    with pytest.raises(ValueError, match="train-labels.*damaged"):
        load_dataset("FashionMNIST", mnist_root)


def test_missing_data_set_names_root(tmp_path, no_download):
    with pytest.raises(OSError, match="MNIST is not under root=.*no network here"):
        load_dataset("MNIST", tmp_path / "nothing")


def test_read_idx_keeps_any_shape(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "array"
    path.write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """Two images a file, as the published archive has them, with own checksums."""
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    lists = {}
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        for key in ("train_list", "test_list"):
            lists[key] = []
            for name, _ in getattr(CIFAR10, key):
                batch = {
                    b"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8),
                    b"labels": [3, 9],
                }
                content = pickle.dumps(batch)
                info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                lists[key].append([name, hashlib.md5(content).hexdigest()])
    for key, entries in lists.items():
        monkeypatch.setattr(CIFAR10, key, entries)
    return tmp_path


def test_cifar10_archive_is_read_in_place(cifar_root):
    before = listing(cifar_root)
    data = load_dataset("CIFAR10", cifar_root)
    assert listing(cifar_root) == before
    assert data.X_train.shape == (10, 3, 32, 32) and data.X_train.dtype == np.uint8
    np.testing.assert_array_equal(data.y_test, [3, 9])
    np.testing.assert_allclose(data.std, data.X_train.std(axis=(0, 2, 3)))
    assert data.classes[3] == "cat" and data.augmentation.flip


def test_cifar10_folder_equals_archive(cifar_root):
    packed = load_dataset("CIFAR10", cifar_root)
    archive = cifar_root / "cifar-10-python.tar.gz"
    with tarfile.open(archive) as tar:
        # Python 3.11.4 and later have the filter, 3.14 wants it.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(cifar_root, **safe)
    archive.unlink()
    np.testing.assert_array_equal(
        load_dataset("CIFAR10", cifar_root).X_train, packed.X_train
    )
    (cifar_root / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"cos\nsystem")
    with pytest.raises(ValueError, match="data_batch_2' is damaged.*checksum"):
        load_dataset("CIFAR10", cifar_root)


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_cifar10_damaged_archive(cifar_root, keep):
    archive = cifar_root / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"tar.gz' is damaged.*Replace it"):
        load_dataset("CIFAR10", cifar_root)


@pytest.fixture
def cifar100_root(tmp_path, monkeypatch):
    """Two files of three images and the names of the classes."""
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(0)
    contents = {
        name: {
            b"data": rng.integers(0, 256, (3, 3072), dtype=np.uint8),
            b"fine_labels": [99, 0, 4],
            b"coarse_labels": [1, 1, 1],
        }
        for name in ("train", "test")
    }
    contents["meta"] = {b"fine_label_names": [b"c%d" % i for i in range(100)]}
    sums = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    return tmp_path, contents


def test_cifar100_has_fine_labels(cifar100_root):
    root, contents = cifar100_root
    data = load_dataset("CIFAR100", root)
    expected = contents["test"][b"data"].reshape(3, 3, 32, 32)
    np.testing.assert_array_equal(data.X_test, expected)
    np.testing.assert_array_equal(data.y_train, [99, 0, 4])
    assert data.classes[99] == "c99" and data.augmentation.flip
    (root / "cifar-100-python" / "meta").unlink()
    with pytest.raises(ValueError, match="meta' is damaged: is missing"):
        load_dataset("CIFAR100", root)


@pytest.fixture
def svhn_root(tmp_path, monkeypatch):
    """Twelve training and five test images as MATLAB files, 10 standing for 0."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    listing = {}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    for split, n in (("train", 12), ("test", 5)):
        path = tmp_path / f"{split}_32x32.mat"
        y = np.arange(n)[:, None] % 10 + 1
        savemat(path, {"X": images[:n].transpose(2, 3, 1, 0), "y": y.astype(np.uint8)})
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        listing[split] = ["", path.name, md5]
    monkeypatch.setattr(SVHN, "split_list", listing)
    return tmp_path, images


def test_svhn_is_read_in_place(svhn_root):
    root, images = svhn_root
    before = listing(root)
    data = load_dataset("SVHN", root)
    assert listing(root) == before
    np.testing.assert_array_equal(data.X_train, images)
    np.testing.assert_array_equal(data.y_test, [1, 2, 3, 4, 5])
    assert data.y_train[9] == 0 and data.classes == tuple("0123456789")
    assert data.X_train.dtype == np.uint8 and data.X_train.flags.c_contiguous
    assert data.augmentation.padding == 4 and not data.augmentation.flip
    path = root / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="test_32x32.mat' is damaged.*checksum"):
        load_dataset("SVHN", root)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "SVHN"])
def test_missing_colour_data_set_names_root(tmp_path, monkeypatch, name):
    def refuse(*args, **kwargs):
        raise RuntimeError("no network here")

    monkeypatch.setattr(f"torchvision.datasets.{name}.download", refuse)
    with pytest.raises(OSError, match=f"{name} is not under root=.*no network here"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize("flip", [True, False])
def test_crop_flip_shifts_and_mirrors(flip):
    image = torch.arange(1, 17, dtype=torch.uint8).reshape(1, 4, 4)
    torch.manual_seed(0)
    images, labels = CropFlip(padding=1, flip=flip)([(image, 7)] * 500)
    assert images.dtype == torch.uint8 and (labels == 7).all()
    padded = torch.nn.functional.pad(image, [1] * 4)
    expected = set()
    for i in range(3):
        for j in range(3):
            crop = padded[:, i : i + 4, j : j + 4]
            for seen in [crop, crop.flip(2)] if flip else [crop]:
                expected.add(tuple(seen.flatten().tolist()))
    assert {tuple(x.flatten().tolist()) for x in images} == expected


def test_crop_flip_treats_channels_alike_and_follows_the_seed():
    image = torch.rand(1, 8, 8).repeat(3, 1, 1)
    collate = pickle.loads(pickle.dumps(CropFlip()))
    torch.manual_seed(3)
    images, _ = collate([(image, 0)] * 20)
    torch.manual_seed(3)
    assert torch.equal(CropFlip()([(image, 0)] * 20)[0], images)
    assert torch.equal(images[:, 0], images[:, 2])


@pytest.mark.skipif(
    not (REAL / "FashionMNIST").is_dir(), reason="real Fashion-MNIST is not here"
)
def test_real_fashion_mnist():
    before = listing(REAL)
    data = load_dataset("FashionMNIST", REAL)
    assert listing(REAL) == before
    assert data.X_train.shape == (60_000, 1, 28, 28)
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    assert data.mean / 255 == pytest.approx(0.2860, abs=5e-5)
    assert data.std / 255 == pytest.approx(0.3530, abs=5e-5)
