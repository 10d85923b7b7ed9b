"""Selection kernels beside the sequential loops and the least product they need.

Where the ratio is that of a product or a sort, it is the part of the floor: at most 1.

Of embeddings, which cluster, the triangle inequality leaves out a part of the product:
those of a small network trained on Fashion-MNIST (50,000 x 512, one thread, 1,000
picks) took 0.59 s instead of 0.84 s with BADGE's factors (0.9 of the product), 0.74 s
instead of 0.83 s alone, and 1.36 s instead of 1.62 s from 1,000 centres to 1,000 more;
3,000 picks with BADGE's factors 1.6 s instead of 2.7 s. Raw pixels, normal rows and
rows of fewer than 256 numbers take as long as without it.
"""

import numpy as np
import pytest
import torch

from skal.selection import herding, k_center_greedy, kmeans_plusplus, top_k

SIZES = {
    "fast": (10_000, 256, 200),
    "regular": (50_000, 512, 1_000),
    "large": (200_000, 512, 1_000),
}
HERDING = {"fast": (3_000, 64), "regular": (20_000, 128), "large": (20_000, 128)}


@pytest.fixture(scope="module")
def data(profile):
    n, d, k = SIZES[profile]
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, d, generator=generator)
    centers = torch.randn(k, d, generator=generator)
    proba = torch.softmax(2 * torch.randn(n, 10, generator=generator), 1)
    residual = proba - torch.nn.functional.one_hot(proba.argmax(1), 10)
    return {"points": points, "centers": centers, "residual": residual, "k": k}


@pytest.fixture(scope="module")
def embeddings(data):
    """Rows as a network gives them: few directions, ten clusters, less than 0 is 0."""
    generator = torch.Generator().manual_seed(0)
    n, d = data["points"].shape
    means = 3 * torch.randn(10, 16, generator=generator)
    hidden = means[torch.randint(10, (n,), generator=generator)]
    hidden = hidden + torch.randn(n, 16, generator=generator)
    points = torch.relu(hidden @ torch.randn(16, d, generator=generator)) / 4
    proba = torch.softmax(hidden @ means.T / 20, 1)
    residual = proba - torch.nn.functional.one_hot(proba.argmax(1), 10)
    centers = points[torch.randperm(n, generator=generator)[: data["k"]]]
    return {**data, "points": points, "residual": residual, "centers": centers}


def kmeans_loop(data):
    """One matrix-vector product for each factor and pick."""
    h, a = data["points"], data["residual"]
    norms = h.square().sum(1) * a.square().sum(1)
    rng = np.random.default_rng(0)
    picked, nearest = [int(norms.argmax())], torch.full((len(h),), torch.inf)
    while len(picked) < data["k"]:
        i = picked[-1]
        distances = norms + norms[i] - 2 * (h @ h[i]) * (a @ a[i])
        nearest = torch.minimum(nearest, distances.clamp_(min=0))
        nearest[i] = 0
        mass = nearest.cumsum(0, dtype=torch.float64)
        picked.append(int(torch.searchsorted(mass, rng.random() * mass[-1])))
    return picked


def k_center_loop(data):
    """One matrix-vector product for each centre and pick."""
    x, centers = data["points"], data["centers"]
    norms = x.square().sum(1)
    nearest = torch.full((len(x),), torch.inf)

    def cover(c):
        distances = norms + c @ c - 2 * (x @ c)
        return torch.minimum(nearest, distances.clamp_(min=0))

    for c in centers:
        nearest = cover(c)
    picked = []
    for _ in range(data["k"]):
        picked.append(int(nearest.argmax()))
        nearest = cover(x[picked[-1]])
        nearest[picked[-1]] = -1
    return picked


def k_center_exact(data):
    """The loop in double precision: sums of squared differences, chunk by chunk."""
    x, picked = data["points"].double(), []
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64)

    def cover(c):
        distances = [(part - c).square_().sum(1) for part in x.split(256)]
        torch.minimum(nearest, torch.cat(distances), out=nearest)

    for c in data["centers"].double():
        cover(c)
    for _ in range(data["k"]):
        picked.append(int(nearest.argmax()))
        cover(x[picked[-1]])
        nearest[picked[-1]] = -1
    return picked


def kmeans(data):
    factors = data["points"], data["residual"]
    return kmeans_plusplus(factors, data["k"], random_state=0)


def k_center(data):
    return k_center_greedy(
        data["points"], data["k"], centers=data["centers"], random_state=0
    )


def product(data):
    return data["points"] @ data["centers"].T


def two_products(data):
    product(data)
    return product(data)


def pick_top_k(data):
    return top_k(data["points"][:, 0], data["k"], random_state=0)


def sort(data):
    return data["points"][:, 0].sort()


@pytest.mark.parametrize(
    "kernel, others",
    [
        (kmeans, [kmeans_loop, product]),
        (k_center, [k_center_loop, two_products]),
        (pick_top_k, [sort]),
    ],
    ids=["k-means++", "k-center greedy", "top k"],
)
def test_kernel(request, data, medians_in_turn, extra_memory, table, kernel, others):
    memory = extra_memory(lambda: kernel(data))
    functions = {f.__name__: lambda f=f: f(data) for f in (kernel, *others)}
    seconds, *slower = medians_in_turn(functions).values()
    n, d = data["points"].shape
    name = f"{request.node.callspec.id}, {data['k']:,} of {n:,} x {d}"
    for other, its_seconds in zip(others, slower, strict=True):
        beside = other.__name__.replace("_", " ")
        sizes = {"memory": memory, "n_input": data["points"].nbytes}
        goal = "<= 1.5x" if beside.endswith(("product", "products")) else None
        table(name, seconds, beside, its_seconds, goal=goal, **sizes)


@pytest.mark.parametrize(
    "kernel, floor",
    [(kmeans, product), (k_center, two_products)],
    ids=["k-means++", "k-center greedy"],
)
def test_kernel_on_embeddings(
    request, embeddings, medians_in_turn, table, kernel, floor
):
    functions = {f.__name__: lambda f=f: f(embeddings) for f in (kernel, floor)}
    seconds, least = medians_in_turn(functions).values()
    name = f"{request.node.callspec.id}, embeddings"
    beside = floor.__name__.replace("_", " ")
    table(name, seconds, beside, least, goal="<= 1x")


def test_herding(profile, data, extra_memory, medians_in_turn, table):
    n_rows, n_features = HERDING[profile]
    x = data["points"][:n_rows, :n_features]

    def pick():
        return herding(x, 100, random_state=0)

    def plain_loop():
        """One column of distances for each candidate and pick, of 20 candidates."""
        for c in x[:20].double():
            distances = torch.cat([(p - c).square_().sum(1) for p in x.split(256)])
            distances.neg_().exp_().sum()

    memory = extra_memory(pick)
    functions = {"herding": pick, "plain loop": plain_loop}
    seconds, loop = medians_in_turn(functions).values()
    name = f"herding, 100 of {len(x):,} x {x.shape[1]}"
    sizes = {"memory": memory, "n_input": x.nbytes}
    table(name, seconds, "plain loop, estimated", loop * 5 * len(x), **sizes)


def test_k_center_picks_are_those_of_the_float64_loop(data):
    assert k_center(data).tolist() == k_center_exact(data)
