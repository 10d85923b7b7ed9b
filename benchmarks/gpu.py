"""Kernels and the pool pass on a GPU, beside the same on the CPU.

    python benchmarks/gpu.py                  # everything, on the first GPU
    python benchmarks/gpu.py --device cpu --scale 0.001

Prints one table: BADGE, k-center greedy and herding, 1,000 picks of 50,000 rows of 512
numbers, then of a million rows of 256, and on the CPU the first three again; and images
a second of ResNet-18 on images of 3 x 32 x 32: a bare loop that trains it, skal's loop
that trains it, and the pool pass in full and, on a GPU, in mixed precision. Where there
is no GPU it says so, and ends with status 2.
"""

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, PoolView, RandomQuery
from skal.models import ResNet18
from skal.selection import herding, k_center_greedy, kmeans_plusplus

WIDTH = "{:<44}{:>12}{:>14}{:>16}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("No GPU is to be had here: nothing was measured. Run this command where")
        print("torch.cuda.is_available(), or give it --device cpu --scale 0.001.")
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, medians of {options.rounds}")
    print(WIDTH.format("", "seconds", "of product", "a second"))
    bench = Bench(device, options.scale, options.rounds)
    bench.kernels(50_000, 512, 1_000, [device, torch.device("cpu")])
    bench.kernels(1_000_000, 256, 1_000, [device])
    bench.images(10_000)
    return 0


class Bench:
    """Measures on one device; `scale` is that of all sizes."""

    def __init__(self, device, scale, n_rounds):
        self.device, self.scale, self.n_rounds = device, scale, n_rounds

    def seconds(self, function):
        """Median after one call that is not counted."""
        function()
        seconds = []
        for _ in range(self.n_rounds):
            self._wait()
            start = time.perf_counter()
            function()
            self._wait()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def kernels(self, n, d, k, devices):
        n, k = max(1_000, int(self.scale * n)), max(20, int(self.scale * k))
        for device in dict.fromkeys(map(str, devices)):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(n, d, generator=generator).to(device)
            proba = torch.softmax(2 * torch.randn(n, 10, generator=generator), 1)
            a = (proba - nn.functional.one_hot(proba.argmax(1), 10)).to(device)
            product = self.seconds(lambda x=x: x @ x[:k].T)
            picks = {
                "BADGE": lambda x=x, a=a: kmeans_plusplus((x, a), k, random_state=0),
                "k-center": lambda x=x: k_center_greedy(x, k, random_state=0),
                "herding": lambda x=x: herding(x, k, random_state=0),
            }
            for name, pick in picks.items():
                seconds = self.seconds(pick)
                what = f"{name}, {k:,} of {n:,} x {d}, {device}"
                row(what, seconds, f"{seconds / product:.1f}x", f"{k / seconds:,.0f}")

    def images(self, n):
        n = max(64, int(self.scale * n))
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, 3, 32, 32), dtype=np.float32)
        y = rng.integers(10, size=n)
        trained = {
            "bare training loop": lambda: self._train(X, y),
            "skal's loop": lambda: self._loop(X, y),
        }
        for name, train in trained.items():
            seconds = self.seconds(train)
            row(f"ResNet-18, an epoch of {name}", seconds, "", f"{n / seconds:,.0f}")
        net = self._net().initialize()
        lower = ["bfloat16", "float16"] if self.device.type == "cuda" else []
        for precision in (None, *lower):  # slow where a processor has no such products
            seconds = self.seconds(
                lambda precision=precision: PoolView(net, X, precision=precision).proba
            )
            what = f"ResNet-18, pool pass, {precision or 'float32'}"
            row(what, seconds, "", f"{n / seconds:,.0f}")

    def _net(self):
        return NeuralNetClassifier(
            ResNet18,
            module__n_channels=3,
            module__n_classes=10,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            lr=0.01,
            max_epochs=1,
            batch_size=128,
            classes=list(range(10)),
            train_split=None,
            device=str(self.device),
            verbose=0,
        )

    def _train(self, X, y):
        """The least that an epoch takes."""
        torch.manual_seed(0)
        module = ResNet18(3, 10).to(self.device)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        for some in torch.randperm(len(X)).split(128):
            x, target = X[some].to(self.device), y[some].to(self.device)
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), target).backward()
            optimizer.step()

    def _loop(self, X, y):
        """One round whose labelled set is all but a row, so that it is an epoch."""
        loop = ActiveLearningLoop(
            self._net(),
            RandomQuery(),
            n_initial=len(X) - 1,
            initial="uniform",
            n_rounds=0,
            random_state=0,
        )
        loop.fit(X, y)


def row(what, seconds, ratio, rate):
    """Print a line of the table."""
    print(WIDTH.format(what, f"{seconds:.4f}", ratio, rate), flush=True)


if __name__ == "__main__":
    sys.exit(main())
