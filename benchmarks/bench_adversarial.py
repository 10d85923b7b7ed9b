"""DeepFool over a pool of images against one image at a time.

Two loops over single images stand for the rest: DeepFool written plainly, with a
`backward` for each class, and skal's own with batches of one. Lengths must be equal to
1e-4. Goal: 8 times faster than the plain loop with two idle cores; with both busy it
was 6 to 7 times, with one thread 6 in processor time.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from skal import DeepFoolQuery, PoolView
from skal.datasets import load_dataset
from skal.models import ConvNet
from skal.utils import isolated_rng

N_POOL = {"fast": 300, "regular": 2_000, "large": 10_000}
N_ALONE = {"fast": 15, "regular": 100, "large": 200}


@cache
def images():
    """Standardized images of Fashion-MNIST, and a network fitted to 2,000 others."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKAL_TEST_DATA", default))
    if not (folder / "FashionMNIST").is_dir():
        pytest.skip(f"no FashionMNIST in {folder}; set SKAL_TEST_DATA")
    data = load_dataset("FashionMNIST", root=folder)
    X = (data.X_train[:12_000].astype(np.float32) - data.mean) / data.std
    X, y = X.astype(np.float32), data.y_train[:2_000]
    with isolated_rng(0):
        net = make_net(128, max_epochs=5, iterator_train__shuffle=True).fit(
            X[:2_000], y
        )
    return X[2_000:], net.module_.state_dict()


def make_net(batch_size, **params):
    return NeuralNetClassifier(
        ConvNet,
        module__n_channels=1,
        module__n_classes=10,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        iterator_valid__batch_size=batch_size,
        train_split=None,
        classes=list(range(10)),
        verbose=0,
        **params,
    )


def lengths(batch_size, X):
    net = make_net(batch_size).initialize()
    net.module_.load_state_dict(images()[1])
    return -DeepFoolQuery()._score(PoolView(net, X))


def plain_lengths(X, max_iter=50, overshoot=0.02):
    """DeepFool as one writes it down, for one image after the other."""
    module = ConvNet(1, 10)
    module.load_state_dict(images()[1])
    module.eval()
    found = []
    for image in torch.from_numpy(X):
        r = torch.zeros_like(image)
        with torch.no_grad():
            old = int(module(image[None]).argmax())
        new = old
        for _ in range(max_iter):
            x = (image + r)[None].requires_grad_()
            z = module(x)[0]
            slopes = []
            for k in range(10):
                x.grad = None
                z[k].backward(retain_graph=True)
                slopes.append(x.grad[0].clone())
            best = np.inf
            for k in set(range(10)) - {old}:
                w = slopes[k] - slopes[old]
                distance = float((z[k] - z[old]).detach().abs() / w.norm())
                if distance < best:
                    best, step = distance, distance * w / w.norm()
            r = r + step
            with torch.no_grad():
                new = int(module((image + (1 + overshoot) * r)[None]).argmax())
            if new != old:
                break
        found.append(float(r.norm()) if new != old else np.inf)
    return found


def test_deep_fool(profile, medians_in_turn, table):
    X = images()[0][: N_POOL[profile]]
    few = X[: N_ALONE[profile]]
    alone = plain_lengths(few)
    np.testing.assert_allclose(lengths(128, X)[: len(few)], alone, rtol=1e-4)
    np.testing.assert_allclose(lengths(1, few), alone, rtol=1e-4)
    seconds = medians_in_turn(
        {
            "batches": lambda: lengths(128, X),
            "plain loop": lambda: plain_lengths(few),
            "batches of one": lambda: lengths(1, few),
        }
    )
    each = {"batches": seconds.pop("batches") / len(X)}
    each |= {name: value / len(few) for name, value in seconds.items()}
    for beside, goal in {"plain loop": ">= 8x", "batches of one": None}.items():
        name = f"DeepFool, each of {len(X):,} images"
        table(name, each["batches"], beside, each[beside], goal=goal)
