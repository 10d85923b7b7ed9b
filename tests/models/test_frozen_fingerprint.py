"""Backbones that may give other features have other fingerprints."""

import os
import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from skal.models import FrozenFeatures
from skal.models._frozen_fingerprint import fingerprint


class Part(nn.Module):
    """Has a plain attribute."""

    def __init__(self, keep):
        super().__init__()
        self.keep = keep

    def forward(self, x):
        return x.flatten(1)[:, self.keep]


def scaling(factor):
    return lambda x: x * factor


def keyword(x, factor=1):
    return x * factor


def other_keyword(x, factor=2):
    return x * factor


def hooked(function):
    net = nn.Flatten()
    net.register_forward_hook(lambda module, args, output: function(output))
    return net


def defined(body):
    """A class that has no source."""
    names = {}
    exec(f"class Typed:\n    def __call__(self, x):\n        return {body}\n", names)
    return names["Typed"]()


def attention(n_heads):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, n_heads, batch_first=True)


def buffered(size):
    net = nn.Flatten()
    net.register_buffer("more", torch.ones(size))
    return net


def recursive(depth):
    """Refers to itself, as a net does that its parts know."""
    net = Part(slice(depth))
    net.owner = [net]
    return net


PAIRS = {
    "names in code": lambda k: [lambda x: x.flip(1), lambda x: x.cumsum(1)][k],
    "constants": lambda k: [lambda x: x + 1, lambda x: x + 2][k],
    "defaults": lambda k: [keyword, other_keyword][k],
    "closure": lambda k: scaling(k),
    "array in a closure": lambda k: scaling(np.full(3, k)),
    "code in code": lambda k: [
        lambda x: (lambda z: z + 1)(x),
        lambda x: (lambda z: z + 2)(x),
    ][k],
    "partial": lambda k: partial(keyword, factor=k),
    "function of a partial": lambda k: partial([keyword, other_keyword][k]),
    "method": lambda k: Part(slice(k)).forward,
    "transforms": lambda k: v2.Compose([v2.Lambda(scaling(k))]),
    "class typed in": lambda k: defined(f"x + {k}"),
    "attribute": lambda k: Part(slice(k)),
    "dict": lambda k: Part({"a": 1, "b": [k]}),
    "set": lambda k: Part({"a", "b", str(k)}),
    "hook": lambda k: hooked(scaling(k)),
    "heads": lambda k: attention([2, 4][k]),
    "slope": lambda k: nn.LeakyReLU([0.1, 0.2][k]),
    "kind": lambda k: nn.Sequential([nn.ReLU(), nn.Tanh()][k]),
    "order": lambda k: nn.Sequential(*[nn.ReLU(), nn.Tanh()][:: [1, -1][k]]),
    "buffer": buffered,
    "in itself": recursive,
    "none": lambda k: [None, keyword][k],
}


@pytest.mark.parametrize("pair", PAIRS)
def test_what_differs_has_other_fingerprints(pair):
    first, same, other = PAIRS[pair](0), PAIRS[pair](0), PAIRS[pair](1)
    if isinstance(first, nn.Module):
        same = deepcopy(first).eval().requires_grad_(False)
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)


def test_weights_count_to_the_last_bit():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = fingerprint(net)
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nextafter(net[0].weight[0, 0], torch.tensor(9.0))
    assert fingerprint(net) != before
    assert fingerprint(net, None) != fingerprint(net)


def test_they_are_the_same_in_another_process():
    code = (
        "from test_frozen_fingerprint import PAIRS, fingerprint\n"
        "for make in PAIRS.values(): print(fingerprint(make(1)))"
    )
    found = set()
    for seed in "12":
        child = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(child.stdout)
    assert len(found) == 1 and len(set(found.pop().split())) == len(PAIRS)


def test_the_cache_gives_nothing_stale(tmp_path):
    X = np.random.default_rng(0).random((4, 6), dtype=np.float32)
    for change in (lambda x: x.flip(0), lambda x: x.cumsum(0)):
        net = FrozenFeatures(nn.Flatten(), preprocess=change, cache=tmp_path)
        for _ in range(2):
            expected = [change(torch.from_numpy(x)).numpy() for x in X]
            np.testing.assert_array_equal(net.transform(X), expected)
