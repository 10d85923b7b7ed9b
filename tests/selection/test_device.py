"""Kernels stay where their tensors lie: a device that can only be read by copies.

It is a pretended one, which needs no GPU: its tensors are of device "meta" to all code,
and the data behind them are on the CPU. Mixing the two raises, as it would on a GPU,
and whatever is copied to the host, or waits for the device, is counted.
"""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from skal import selection

aten = torch.ops.aten
HERE, THERE = torch.device("cpu"), torch.device("meta")
# Of data on the device they make something whose size the host must know.
WAITS = {
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
}


def from_list(index):
    return torch.tensor(index, dtype=torch.int64) if type(index) is list else index


class Elsewhere(torch.Tensor):
    """A tensor that pretends to lie on another device."""

    def __new__(cls, data):
        about = {"strides": data.stride(), "storage_offset": data.storage_offset()}
        about = {**about, "dtype": data.dtype, "device": THERE}
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, **about)

    def __init__(self, data):
        self.data_here = data

    def tolist(self):
        return self.cpu().tolist()

    # As a GPU does, take indices from the host.
    def __getitem__(self, index):
        return super().__getitem__(from_list(index))

    def __setitem__(self, index, value):
        super().__setitem__(from_list(index), value)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside of the pretended device")


class Device(TorchDispatchMode):
    """Notes what the host copies from a pretended device, and how often it waits."""

    def __init__(self):
        super().__init__()
        self.copied, self.n_waits = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, known = dict(kwargs or {}), {}

        def unwrap(value):
            if isinstance(value, Elsewhere):
                known[id(value.data_here)] = value
                return value.data_here
            if isinstance(value, torch.Tensor) and value.ndim:
                assert value.device == HERE
                plain.append(value)
            return value

        plain, target = [], kwargs.get("device")
        if target is not None:
            kwargs["device"] = HERE
        args, kwargs = tree_map(unwrap, args), tree_map(unwrap, kwargs)
        to_host = bool(known) and target == HERE
        if known and plain and func not in (aten.index.Tensor, aten.index_put_.default):
            raise RuntimeError(f"{func} of tensors on two devices")
        masks = func in (aten.index.Tensor, aten.index_put_.default) and any(
            part is not None and part.dtype == torch.bool for part in args[1]
        )
        reads = func is aten._local_scalar_dense.default
        if known and (to_host or reads or masks or func in WAITS):
            self.n_waits += 1
        result = func(*args, **kwargs)
        if to_host:
            self.copied.append(tuple(result.shape))
        if to_host or not (known or target == THERE):
            return result

        def wrap(part):
            if not isinstance(part, torch.Tensor):
                return part
            return known[id(part)] if id(part) in known else Elsewhere(part)

        return tree_map(wrap, result)


N_ROWS = 1_501  # unlike all other numbers, to be seen in the shapes of copies


def points():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(N_ROWS, 24))).float()


def samples(x):
    return x.view(-1, 8, 3).softmax(2)


# Kernels by name; how often at most the host copies something of all rows (a result,
# the counts of a ball cover at each pick, the rows of a linkage to find equal ones);
# and how often it waits for the device.
KERNELS = {
    "k-means++": (lambda x: selection.kmeans_plusplus(x, 99, random_state=0), 0, 99),
    "k-means++ of pairs": (
        lambda x: selection.kmeans_plusplus((x, x[:, :4]), 99, random_state=0), 0, 99
    ),
    "k-center": (lambda x: selection.k_center_greedy(x, 99, random_state=0), 0, 198),
    "k-center with centers": (
        lambda x: selection.k_center_greedy(x, 99, centers=x[:300], random_state=0),
        0,
        198,
    ),
    "herding": (lambda x: selection.herding(x, 50, width=6.0, random_state=0), 0, 900),
    "ball cover": (lambda x: selection.ball_cover(x, 50, 6.0, random_state=0), 50, 400),
    "bait": (lambda x: selection.bait(x, 20, random_state=0), 0, 80),
    "BatchBALD": (
        lambda x: selection.batch_bald(samples(x), 5, random_state=0), 1, 100
    ),
    "mutual information": (lambda x: selection.mutual_information(samples(x)), 0, 10),
    "predictive information": (
        lambda x: selection.predictive_information(samples(x), samples(x[:50])), 0, 10
    ),
    "average linkage": (lambda x: selection.average_linkage(x), 1, 400),
    "nearest distinct": (lambda x: selection.nearest_distinct(x, x[:50] + 0.1), 0, 20),
    "top k": (lambda x: selection.top_k(x[:, 0], 50, random_state=0), 1, 1),
    "typicality": (lambda x: selection.typicality(x, 20), 1, 40),
}  # fmt: skip


def made_here(make):
    """What makes tensors of lists would leave them without data elsewhere."""

    def make_and_move(*args, device=None, **kwargs):
        found = make(*args, **kwargs)
        return found if device is None else found.to(device)

    return make_and_move


@pytest.fixture(autouse=True)
def lists_are_copied(monkeypatch):
    for name in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, name, made_here(getattr(torch, name)))


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_stay_on_the_device_of_their_tensors(name):
    kernel, n_columns, n_waits = KERNELS[name]
    x = points()
    expected = kernel(x)
    with Device() as device:
        found = kernel(Elsewhere(x))
        whole = [shape for shape in device.copied if N_ROWS in shape]
        assert isinstance(found, Elsewhere if torch.is_tensor(expected) else np.ndarray)
        found = found.cpu() if torch.is_tensor(found) else found
    np.testing.assert_array_equal(found, expected)
    assert len(whole) <= n_columns
    assert device.n_waits <= n_waits


def test_a_copy_of_all_rows_is_seen():
    x = points()
    with Device() as device:
        there = Elsewhere(x)
        assert there.cpu() is not x
        assert device.copied == [tuple(x.shape)]
        assert float(there.sum()) == pytest.approx(float(x.sum()), abs=1e-2)
        assert device.n_waits == 2
        with pytest.raises(RuntimeError, match="on two devices"):
            there + x


@pytest.mark.gpu
@pytest.mark.parametrize("name", KERNELS)
def test_a_gpu_gives_what_the_cpu_gives(name):
    kernel, *_ = KERNELS[name]
    x = points()
    expected, found = kernel(x), kernel(x.cuda())
    if torch.is_tensor(expected):
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), expected)
    elif expected.dtype == np.int64 and "k-means++" not in name:
        np.testing.assert_array_equal(found, expected)
    elif expected.dtype == np.int64:  # draws from sums that each device rounds its way
        np.testing.assert_array_equal(found, kernel(x.cuda()))
        assert found[0] == expected[0]
        assert len(np.unique(found)) == len(expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4)
