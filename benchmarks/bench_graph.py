"""The propagation of the graph strategies beside the dense matrix, and whole queries.

`pytest benchmarks/bench_graph.py -s` prints both tables.
"""

import pytest
import torch
from torch.nn.functional import normalize

from skal import CoreGcnQuery, UncertainGcnQuery
from skal.models import similarity_graph

# Rows of the propagation; the most that are tried dense; rows of a query.
SIZES = {
    "fast": ([1_000, 4_000], 1_000, 1_000),
    "regular": ([5_000, 10_000, 50_000], 10_000, 10_000),
    "large": ([10_000, 50_000, 200_000], 20_000, 50_000),
}
N_FEATURES, N_HIDDEN, N_LABELED = 512, 128, 1_000


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


def test_propagation(profile, medians_in_turn, extra_memory, capsys):
    sizes, n_dense, _ = SIZES[profile]
    lines = [
        f"{'rows':>7}{'exact s':>9}{'dense s':>9}{'(built s)':>10}"
        f"{'MB':>7}{'dense MB':>10}{'% input':>9}{'error':>9}"
    ]
    for n_rows in sizes:
        nodes = normalize(made_rows(n_rows))
        x = torch.randn(n_rows, N_HIDDEN, generator=torch.Generator().manual_seed(0))
        graph = similarity_graph(nodes, "gram")
        runs = {"exact": lambda g=graph, x=x: g @ x}
        memory = {"exact": extra_memory(runs["exact"])}
        error = float("nan")
        if n_rows <= n_dense:
            matrix = []
            memory["dense"] = extra_memory(lambda n=nodes, m=matrix: m.append(dense(n)))
            runs["dense"] = lambda a=matrix[0], x=x: a @ x
            expected = runs["dense"]()
            difference = (runs["exact"]() - expected).abs().max()
            error = float(difference / expected.abs().max())
        s = medians_in_turn(runs, n_rounds=5)
        if n_rows <= n_dense:
            s |= medians_in_turn({"built": lambda n=nodes: dense(n)})
            del matrix, runs
        none = float("nan")
        lines.append(
            f"{n_rows:7}{s['exact']:9.3f}{s.get('dense', none):9.3f}"
            f"{s.get('built', none):10.3f}{memory['exact'] / 1e6:7.0f}"
            f"{memory.get('dense', none) / 1e6:10.0f}"
            f"{100 * memory['exact'] / nodes.nbytes:9.0f}{error:9.1e}"
        )
    with capsys.disabled():
        print("\n" + "\n".join(lines))


@pytest.mark.parametrize("centred", [False, True], ids=["gram", "knn"])
def test_query(profile, medians_in_turn, extra_memory, capsys, centred):
    n_rows = SIZES[profile][2]
    x = made_rows(n_rows + N_LABELED, centred=centred)
    pool = MadePool(x[:n_rows], x[n_rows:])
    lines = []
    for cls in (UncertainGcnQuery, CoreGcnQuery):

        def query(strategy=cls):
            return strategy().fit(pool).query(pool, 100)

        cls().set_params(aux__max_epochs=1).fit(pool).query(pool, 100)
        memory = extra_memory(query)
        seconds = medians_in_turn({"query": query}, n_rounds=1)["query"]
        lines.append(
            f"{cls.__name__:18}{'knn' if centred else 'gram':6}{n_rows:7} rows"
            f"{seconds:8.1f} s{memory / 1e6:7.0f} MB"
            f"{100 * memory / x.nbytes:6.0f} % of the input"
        )
    with capsys.disabled():
        print("\n" + "\n".join(lines))
