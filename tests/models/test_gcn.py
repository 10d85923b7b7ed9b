import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from skal.models import GCN, GCNLoss, SimilarityGraph, similarity_graph


def rows(n_nodes=60, n_features=8, *, centred=False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_nodes, n_features, generator=generator, dtype=dtype)
    return normalize(x if centred else x.abs())


def normalised(s):
    """The dense matrix of the paper from similarities without their diagonal."""
    return s / s.sum(1, keepdim=True) + torch.eye(len(s), dtype=s.dtype)


def dense_gram(nodes):
    s = nodes @ nodes.T
    return normalised(s - torch.diag(s.diagonal()))


def dense_knn(nodes, n_neighbors):
    s = (nodes @ nodes.T).numpy()
    np.fill_diagonal(s, -np.inf)
    kept = np.zeros_like(s)
    for i, row in enumerate(s):
        nearest = np.argsort(-row)[:n_neighbors]
        kept[i, nearest] = np.maximum(row[nearest], 0)
    return normalised(torch.from_numpy((kept + kept.T) / 2))


def test_propagation_by_hand():
    nodes = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    # Similarities .6, .8 and 0, so degrees .6, 1.4 and .8.
    x = torch.tensor([[1.0], [10.0], [100.0]])
    expected = [1 + 10, 10 + (0.6 * 1 + 0.8 * 100) / 1.4, 100 + 10]
    propagated = similarity_graph(nodes) @ x
    np.testing.assert_allclose(propagated.flatten(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_features", [1, 8, 200])
def test_gram_propagation_is_the_dense_one(dtype, n_features):
    nodes = rows(150, n_features, dtype=dtype)
    x = torch.randn(150, 16, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = dense_gram(nodes.double()) @ x.double()
    propagated = similarity_graph(nodes, "gram") @ x
    assert propagated.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    assert (propagated - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("n_neighbors", [1, 10, 59, 500])
@pytest.mark.parametrize("centred", [False, True])
def test_knn_propagation_is_the_dense_one(centred, n_neighbors):
    nodes = rows(centred=centred)
    graph = similarity_graph(nodes, "knn", n_neighbors)
    assert graph.similarity.is_sparse
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(1)).double()
    expected = dense_knn(nodes, n_neighbors) @ x
    # Neighbours are sought, and their similarities kept, in single precision.
    torch.testing.assert_close(graph @ x, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("graph", ["gram", "knn"])
def test_neighbours_have_weights_that_sum_to_1(graph):
    nodes = rows()
    ones = torch.ones(60, 1, dtype=torch.float64)
    torch.testing.assert_close(similarity_graph(nodes, graph) @ ones, 2 * ones)


def test_knn_graph_is_symmetric_without_loops_or_negative_weights():
    s = similarity_graph(rows(centred=True), "knn").similarity.to_dense()
    assert torch.equal(s, s.T)
    assert (s.diagonal() == 0).all() and (s >= 0).all()


def test_search_in_blocks_finds_the_same_neighbours(monkeypatch):
    nodes = rows()
    whole = similarity_graph(nodes, "knn").similarity.to_dense()
    monkeypatch.setattr("skal.models._gcn.N_SIMILARITIES", 7 * 60)
    torch.testing.assert_close(
        similarity_graph(nodes, "knn").similarity.to_dense(), whole
    )


def test_auto_takes_all_similarities_only_without_negative_entries():
    nodes = rows()
    assert similarity_graph(nodes).similarity is nodes
    nodes[3, 0] = -1e-9
    assert similarity_graph(nodes).similarity.is_sparse


def test_gram_forms_no_matrix():
    """A dense one of 100,000 rows would take 40 GB."""
    nodes = rows(100_000, 4, dtype=torch.float32)
    propagated = similarity_graph(nodes) @ torch.ones(100_000, 2)
    torch.testing.assert_close(propagated, torch.full((100_000, 2), 2.0))


@pytest.mark.parametrize("graph", ["gram", "knn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_without_neighbours_keep_their_own_values(graph, dtype):
    nodes = torch.zeros(40, 24, dtype=dtype)
    nodes[:20, :20] = rows(20, 20, dtype=dtype)
    nodes[20, 20:23] = 3**-0.5  # nothing in common with any other; the rest is zero
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    propagated = similarity_graph(nodes, graph) @ x
    assert torch.equal(propagated[20:], x[20:])
    assert not torch.isclose(propagated[:20], x[:20]).any()


@pytest.mark.parametrize("graph", ["gram", "knn"])
def test_equal_rows_average_over_all_alike(graph):
    nodes = torch.full((30, 4), 0.5, dtype=torch.float64)
    same = torch.full((30, 2), 3.0, dtype=torch.float64)
    torch.testing.assert_close(similarity_graph(nodes, graph) @ same, 2 * same)


def test_one_row_is_isolated():
    for graph in ("gram", "knn"):
        propagated = similarity_graph(torch.ones(1, 1), graph) @ torch.ones(1, 1)
        assert propagated.item() == 1


def test_negative_degrees_raise():
    nodes = rows(centred=True)
    with pytest.raises(ValueError, match=r"of 60 rows sum to less than 0.*'knn'"):
        similarity_graph(nodes, "gram")


def test_gcn_is_two_layers_of_propagation():
    nodes = rows(dtype=torch.float32)
    dense, graph = dense_gram(nodes), similarity_graph(nodes)
    model = GCN(8, n_hidden=5).eval()
    logits, hidden = model(graph @ nodes, *graph)
    (w1, b1), (w2, b2) = model.hidden.parameters(), model.head.parameters()
    h = torch.relu(dense @ nodes @ w1.T + b1)
    torch.testing.assert_close(hidden, h)
    torch.testing.assert_close(logits, (dense @ h @ w2.T + b2)[:, 0])


@pytest.mark.parametrize("graph", ["gram", "knn"])
def test_gradients_are_those_of_the_dense_matrix(graph):
    nodes = rows()
    matrix = dense_gram(nodes) if graph == "gram" else dense_knn(nodes, 10)
    built = similarity_graph(nodes, graph)
    gradients = []
    for a in (built, matrix):
        x = torch.ones(60, 2, dtype=torch.float64, requires_grad=True)
        (a @ x.square()).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_gcn_drops_hidden_units_in_training_only():
    nodes = rows(dtype=torch.float32)
    graph = similarity_graph(nodes)
    model = GCN(8, n_hidden=400, dropout=0.25)
    hidden = model.eval()(graph @ nodes, *graph)[1]
    dropped = model.train()(graph @ nodes, *graph)[1]
    alive = hidden > 0
    assert 0.2 < (dropped[alive] == 0).double().mean() < 0.3
    assert torch.equal(model.eval()(graph @ nodes, *graph)[1], hidden)


def test_weights_start_within_the_bounds_of_the_authors():
    model = GCN(64, n_hidden=16)
    for layer, bound in ((model.hidden, 0.25), (model.head, 1.0)):
        assert layer.weight.abs().max() <= bound
    assert model.hidden.weight.abs().max() > 0.2


def test_loss_where_nothing_is_known():
    is_labeled = torch.arange(10) < 3
    loss = GCNLoss(unlabeled_weight=0.5)(torch.zeros(10), is_labeled)
    assert loss.item() == pytest.approx(1.5 * np.log(2))


def test_loss_by_hand():
    proba = torch.tensor([0.8, 0.5, 0.1, 0.25])
    is_labeled = torch.tensor([True, False, False, True])
    expected = -np.log([0.8, 0.25]).mean() - 1.2 * np.log([0.5, 0.9]).mean()
    assert GCNLoss()(torch.logit(proba), is_labeled).item() == pytest.approx(expected)
    assert GCNLoss()((torch.logit(proba), None), is_labeled) == GCNLoss()(
        torch.logit(proba), is_labeled
    )


def test_loss_of_certain_mistakes_is_finite():
    loss = GCNLoss()(torch.tensor([-1e4, 1e4]), torch.tensor([True, False]))
    assert loss.item() == pytest.approx(2.2e4)


def test_graph_is_its_three_parts():
    graph = similarity_graph(rows())
    again = SimilarityGraph(**graph._asdict())
    x = torch.ones(60, 1, dtype=torch.float64)
    assert torch.equal(graph @ x, again @ x)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_wrong_weights(weight):
    with pytest.raises(
        ValueError, match=f"unlabeled_weight={weight} must be 0 or more"
    ):
        GCNLoss(unlabeled_weight=weight)


@pytest.mark.parametrize("enabled", [False, True])
def test_a_graph_leaves_the_checks_of_sparse_tensors_as_they_were(enabled):
    with torch.sparse.check_sparse_tensor_invariants(enabled):
        similarity_graph(rows(centred=True), "knn")
        assert torch.sparse.check_sparse_tensor_invariants.is_enabled() == enabled
