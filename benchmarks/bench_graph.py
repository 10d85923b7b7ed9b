"""The propagation of the graph strategies beside a dense one, and whole queries."""

import pytest
import torch
from torch.nn.functional import normalize

from skal import CoreGcnQuery, UncertainGcnQuery
from skal.models import similarity_graph

# Rows of the propagation; the most that are tried dense; rows of a query.
SIZES = {
    "fast": ([1_000, 4_000], 4_000, 500),
    "regular": ([5_000, 10_000, 50_000], 10_000, 10_000),
    "large": ([10_000, 50_000, 200_000], 20_000, 50_000),
}
N_FEATURES, N_HIDDEN = 512, 128


def made_rows(n_rows, *, centred=False):
    generator = torch.Generator().manual_seed(n_rows)
    x = torch.randn(n_rows, N_FEATURES, generator=generator)
    return x if centred else x.relu_()


class MadePool:
    """A pool whose embeddings are made, not computed."""

    def __init__(self, embeddings, labeled=None):
        self.embeddings, self.random_state = embeddings, 0
        self.has_labeled = labeled is not None
        self.labeled = MadePool(labeled) if self.has_labeled else None

    def __len__(self):
        return len(self.embeddings)

    def prefetch(self, names):
        pass


def dense(nodes):
    """Similarities without the diagonal by degrees, plus the identity."""
    s = nodes @ nodes.T
    s.fill_diagonal_(0)
    s /= s.sum(1, keepdim=True)
    s.diagonal().add_(1)
    return s


def test_propagation(profile, medians_in_turn, extra_memory, table):
    sizes, n_dense, _ = SIZES[profile]
    for n_rows in sizes:
        nodes = normalize(made_rows(n_rows))
        x = torch.randn(n_rows, N_HIDDEN, generator=torch.Generator().manual_seed(0))
        graph = similarity_graph(nodes, "gram")
        runs = {"exact": lambda g=graph, x=x: g @ x}
        runs["exact"]()
        memory = extra_memory(runs["exact"])
        name, n_input = f"propagation, {n_rows:,} x {N_FEATURES}", nodes.nbytes
        if n_rows > n_dense:
            seconds = medians_in_turn(runs)["exact"]
            table(name, seconds, memory=memory, n_input=n_input)
            continue
        matrix = dense(nodes)
        runs["dense"] = lambda a=matrix, x=x: a @ x
        expected = runs["dense"]()
        error = (runs["exact"]() - expected).abs().max() / expected.abs().max()
        assert error < 1e-5
        runs["built"] = lambda nodes=nodes: dense(nodes)
        seconds, product, built = medians_in_turn(runs).values()
        space = {"memory": memory, "n_input": n_input}
        note = f"error {float(error):.0e}, the matrix {matrix.nbytes / 1e6:.0f} MB"
        table(name, seconds, "dense product", product, **space, note=note)
        table(name, seconds, "building the matrix", built, **space)


@pytest.mark.parametrize("graph", ["gram", "knn"])
@pytest.mark.parametrize("cls", [UncertainGcnQuery, CoreGcnQuery])
def test_query(profile, medians_in_turn, extra_memory, table, cls, graph):
    n_rows = SIZES[profile][2]
    x = made_rows(n_rows + n_rows // 10, centred=graph == "knn")
    pool = MadePool(x[:n_rows], x[n_rows:])

    def query(pool=pool, **params):
        strategy = cls().set_params(**params).fit(pool)
        assert len(strategy.query(pool, 100)) == 100

    query(MadePool(x[:200], x[200:400]), aux__max_epochs=1)  # loads the optimizers
    memory = extra_memory(lambda: query(aux__max_epochs=2))
    seconds = medians_in_turn({"query": query})["query"]
    name = f"{cls.__name__}, {graph}, 100 of {n_rows:,}"
    table(name, seconds, memory=memory, n_input=x.nbytes)
