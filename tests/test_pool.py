"""`PoolView` gives what the estimator gives, in one pass, and leaves no trace."""

import random
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset, default_collate

from skal.models import ConvNet, ResNet18
from skal.pool import PoolView
from skal.posterior import MCDropout

N_ROWS, N_FEATURES, N_CLASSES = 45, 6, 3


class Net(nn.Module):
    """Body, head and a nonlinearity on top."""

    def __init__(self, top=None, bias=True, n_outputs=N_CLASSES):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(N_FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(8, n_outputs, bias=bias)
        self.top = top

    def forward(self, x):
        z = self.head(self.body(x))
        return z if self.top is None else self.top(z)


class Auxiliary(Net):
    """A second Linear of the same shape runs after the head."""

    def __init__(self, as_tuple=False):
        super().__init__()
        self.auxiliary = nn.Linear(8, N_CLASSES)
        self.as_tuple = as_tuple

    def forward(self, x):
        h = self.body(x)
        z, extra = self.head(h), self.auxiliary(h)
        return (z, extra) if self.as_tuple else z


class Tokens(Net):
    """The head reads the first of many tokens, a view of a large tensor."""

    def __init__(self, n_tokens=50):
        super().__init__()
        self.n_tokens = n_tokens
        self.buffers_alive = []

    def forward(self, x):
        tokens = np.repeat(self.body(x).numpy(force=True)[None], self.n_tokens, axis=0)
        self.buffers_alive.append(weakref.ref(tokens))
        return self.head(torch.from_numpy(tokens)[0])


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.head = nn.Linear(4, N_CLASSES)

    def forward(self, x):
        return self.head(self.embedding(x).mean(1))


class AllConv(nn.Module):
    """No Linear anywhere."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3)
        self.conv2 = nn.Conv2d(4, N_CLASSES, 1)

    def forward(self, x):
        return self.conv2(F.relu(self.conv1(x))).mean((2, 3))


class InPlace(Net):
    def forward(self, x):
        return F.relu_(self.head(self.body(x)))


class Overwriting(Net):
    """Changes its input in place."""

    def forward(self, x):
        return super().forward(x.mul_(2))


class HalfInside(Net):
    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            z = super().forward(x)
        return z.float()


class Unused(Net):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(3, 3)


class Shared(nn.Module):
    """One Linear is called twice; its last call is the head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(N_FEATURES, N_FEATURES)

    def forward(self, x):
        return self.head(F.relu(self.head(x)))


def untrained(module, net_class=NeuralNetClassifier, seed=0, **params):
    """An initialized net whose BatchNorm statistics are not the initial ones."""
    torch.manual_seed(seed)
    defaults = dict(criterion=nn.CrossEntropyLoss, batch_size=16, verbose=0)
    if net_class is NeuralNetBinaryClassifier:
        del defaults["criterion"]
    else:
        params.setdefault("classes", list(range(N_CLASSES)))
    net = net_class(module, train_split=None, **{**defaults, **params}).initialize()
    for part in net.module_.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return net


def rows(n=N_ROWS, shape=(N_FEATURES,), seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(dtype)


def labels(n=N_ROWS):
    return np.arange(n) % N_CLASSES


def count_rows(net):
    """Numbers of rows of the batches that go through a network from now on."""
    seen = []
    net.module_.register_forward_pre_hook(lambda part, args: seen.append(len(args[0])))
    return seen


def assert_consistent(pool):
    """The outputs of one pool say the same thing."""
    assert len(pool.proba) == len(pool.logits) == len(pool.embeddings) == len(pool)
    torch.testing.assert_close(pool.logits.softmax(1), pool.proba)
    torch.testing.assert_close(pool.log_proba.exp(), pool.proba)
    logits = pool.embeddings @ pool.head_weight.T
    if pool.head_bias is not None:
        logits = logits + pool.head_bias
    for scores in (logits, pool.rescore(pool.embeddings)):
        error = (scores - pool.logits).abs().max() / pool.logits.abs().max()
        assert error < 1e-5


def assert_same_proba(pool, estimator, X):
    expected = estimator.predict_proba(X)
    assert pool.proba.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(pool.proba.numpy(), expected)


# -- containers of rows -------------------------------------------------------------


def _memmap(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


def _read_only(X, folder):
    X = X.copy()
    X.flags.writeable = False
    return X


CONTAINERS = {
    "array": lambda X, folder: X,
    "tensor": lambda X, folder: torch.from_numpy(X),
    "fortran": lambda X, folder: np.asfortranarray(X),
    "every_second": lambda X, folder: np.repeat(X, 2, axis=0)[::2],
    "transposed": lambda X, folder: np.ascontiguousarray(X.T).T,
    "reversed_columns": lambda X, folder: X[:, ::-1].copy()[:, ::-1],
    "big_endian": lambda X, folder: X.astype(">f4"),
    "read_only": _read_only,
    "memmap": _memmap,
    "list": lambda X, folder: X.tolist(),
    "frame": lambda X, folder: pd.DataFrame(X),
    "csr": lambda X, folder: sparse.csr_array(X),
    "csr_matrix": lambda X, folder: sparse.csr_matrix(X),
    "dok": lambda X, folder: sparse.dok_array(X),
    "float64": lambda X, folder: X.astype(np.float64),
    "dataset": lambda X, folder: TensorDataset(torch.from_numpy(X), torch.ones(len(X))),
}


@pytest.mark.parametrize("some", [False, True], ids=["all", "of_rows"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_proba_is_that_of_predict_proba(container, some, tmp_path):
    net, X = untrained(Net), rows()
    held = CONTAINERS[container](X, tmp_path)
    if some:
        chosen = np.random.default_rng(1).permutation(N_ROWS)[:20]
        pool, X = PoolView.of_rows(net, held, chosen), X[chosen]
    else:
        pool = PoolView(net, held)
    assert_same_proba(pool, net, X)
    assert_consistent(pool)


@pytest.mark.parametrize("size", [1, 7, 1000, -1])
@pytest.mark.parametrize("module", [Net, ConvNet], ids=["flat", "images"])
def test_batch_size_of_the_net_is_kept(module, size):
    if module is Net:
        net, X = untrained(Net, iterator_valid__batch_size=size), rows()
    else:
        X = rows(20, (1, 12, 12))
        net = untrained(
            ConvNet,
            module__n_channels=1,
            module__n_classes=N_CLASSES,
            module__image_size=12,
            iterator_valid__batch_size=size,
        )
    seen = count_rows(net)
    pool = PoolView(net, X)
    assert_consistent(pool)
    assert max(seen) == (len(X) if size in (-1, 1000) else size)
    assert_same_proba(pool, net, X)


IMAGE_CONTAINERS = {
    "array": lambda X: X,
    "tensor": torch.from_numpy,
    "fortran": np.asfortranarray,
    "channels_last_array": lambda X: (
        X.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    ),
    "channels_last": lambda X: torch.from_numpy(X).to(
        memory_format=torch.channels_last
    ),
    "dataset": lambda X: TensorDataset(torch.from_numpy(X), torch.ones(len(X))),
}


@pytest.mark.parametrize("some", [False, True], ids=["all", "of_rows"])
@pytest.mark.parametrize("container", IMAGE_CONTAINERS)
def test_image_tensors_go_through_a_conv_net(container, some):
    X = rows(20, (3, 12, 12))
    net = untrained(
        ConvNet,
        module__n_channels=3,
        module__n_classes=N_CLASSES,
        module__image_size=12,
        batch_size=7,
    )
    held = IMAGE_CONTAINERS[container](X)
    if some:
        chosen = np.arange(15, 3, -1)
        pool, X = PoolView.of_rows(net, held, chosen), X[chosen]
    else:
        pool = PoolView(net, held)
    assert_same_proba(pool, net, X)
    assert_consistent(pool)
    assert pool.embeddings.ndim == 2


@pytest.mark.parametrize("small", [True, False], ids=["skal", "torchvision"])
def test_resnet18(small):
    if small:
        net = untrained(ResNet18, module__n_channels=3, module__n_classes=N_CLASSES)
    else:
        resnet18 = pytest.importorskip("torchvision.models").resnet18
        net = untrained(resnet18, module__num_classes=N_CLASSES)
    X = rows(6, (3, 16, 16))
    pool = PoolView(net, X)
    assert pool.embeddings.shape == (6, 512)
    assert_same_proba(pool, net, X)
    assert_consistent(pool)


def test_pipeline_transforms_once_and_casts():
    X, calls = rows(dtype=np.float64), []
    scaler, net = StandardScaler().fit(X), untrained(Net)

    def note(Z):
        calls.append(len(Z))
        return Z

    pipeline = make_pipeline(scaler, FunctionTransformer(note), net)
    pool = PoolView(pipeline, X)
    assert_consistent(pool)
    assert calls == [N_ROWS]
    Z = scaler.transform(X)
    assert_same_proba(pool, net, Z.astype(np.float32))
    np.testing.assert_array_equal(pool.features, Z)


def test_pipeline_over_a_frame():
    frame = pd.DataFrame(rows(), columns=list("abcdef"))
    scaler = StandardScaler().set_output(transform="pandas").fit(frame)
    net = untrained(Net)
    pool = PoolView.of_rows(make_pipeline(scaler, net), frame, [3, 1, 2])
    Z = scaler.transform(frame.iloc[[3, 1, 2]]).to_numpy(copy=True)
    assert_same_proba(pool, net, Z)


@pytest.mark.parametrize("inside", ["net", "pipeline", "around", "nested"])
def test_search_objects(inside):
    X, y = rows(), labels()
    net = NeuralNetClassifier(
        Net, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    )
    if inside == "net":
        search = GridSearchCV(net, {"lr": [0.1, 0.01]}, cv=2)
    elif inside == "pipeline":
        inner = make_pipeline(FunctionTransformer(np.negative), net)
        search = GridSearchCV(inner, {"neuralnetclassifier__lr": [0.1]}, cv=2)
    else:
        inner = GridSearchCV(net, {"lr": [0.1]}, cv=2)
        search = make_pipeline(FunctionTransformer(np.negative), inner)
        if inside == "nested":
            search = make_pipeline(FunctionTransformer(np.square), search)
    search.fit(X, y)
    pool = PoolView(search, X)
    assert_same_proba(pool, search, X)
    assert_consistent(pool)


class Loading(Dataset):
    """Items made when they are asked for, in one of three shapes."""

    def __init__(self, X, kind="tuple"):
        self.X, self.kind, self.loaded = X, kind, []

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        assert isinstance(row, int)
        self.loaded.append(row)
        x = torch.from_numpy(self.X[row])
        return {"tuple": (x, 7), "list": [x, 7], "alone": x}[self.kind]


@pytest.mark.parametrize("kind", ["tuple", "list", "alone"])
def test_dataset_items_are_loaded_once_and_lazily(kind):
    net, X = untrained(Net), rows()
    dataset = Loading(X, kind)
    pool = PoolView.of_rows(net, dataset, np.arange(40, 10, -1))
    assert len(pool.features) == 30
    assert dataset.loaded == []
    assert_same_proba(pool, net, X[40:10:-1])
    assert_consistent(pool)
    assert dataset.loaded == list(range(40, 10, -1))


class Doubled(Dataset):
    """A dataset class of the user, which changes the rows."""

    def __init__(self, X, y=None, factor=2.0):
        self.X, self.factor = X, factor

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return self.X[row] * np.float32(self.factor), 0


class DoublingNet(NeuralNetClassifier):
    def get_dataset(self, X, y=None):
        return Doubled(X)


def centred(items):
    x, y = default_collate(items)
    return x - x.mean(), y


@pytest.mark.parametrize(
    "params",
    [
        {"dataset": Doubled},
        {"dataset": Doubled, "dataset__factor": 3.0},
        {"net_class": DoublingNet},
        {"iterator_valid__collate_fn": centred},
        {"iterator_valid__num_workers": 0},
        {"predict_nonlinearity": lambda z: (z / 3).softmax(1)},
    ],
    ids=["dataset", "dataset_params", "get_dataset", "collate", "workers", "nonlinear"],
)
def test_the_users_own_way_of_reading_rows_is_kept(params):
    net, X = untrained(Net, **params), rows()
    assert_same_proba(PoolView(net, X), net, X)
    pool = PoolView.of_rows(net, X, np.arange(5, 30))
    assert_same_proba(pool, net, X[5:30])


def test_augmentation_of_training_rows_never_reaches_the_pool():
    calls = []

    def noisy(items):
        calls.append(len(items))
        x, y = default_collate(items)
        return x + torch.randn_like(x), y

    X = rows()
    net = NeuralNetClassifier(
        Net,
        criterion=nn.CrossEntropyLoss,
        max_epochs=1,
        train_split=None,
        verbose=0,
        iterator_train__collate_fn=noisy,
    ).fit(X, labels())
    n_calls = len(calls)
    assert n_calls > 0
    for held in (X, TensorDataset(torch.from_numpy(X))):
        assert_same_proba(PoolView(net, held), net, X)
    assert len(calls) == n_calls


# -- heads --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"module": Net},
        {"module": Net, "module__bias": False},
        {"module": Net, "module__top": nn.Softmax(dim=1), "criterion": nn.NLLLoss},
        {
            "module": Net,
            "module__top": nn.LogSoftmax(dim=1),
            "criterion": nn.NLLLoss,
            "predict_nonlinearity": torch.exp,
        },
        {"module": Net, "module__top": nn.LogSoftmax(dim=1)},
        {"module": Net, "module__top": nn.Identity()},
        {"module": Net, "module__top": torch.clone},
        {"module": Auxiliary},
        {"module": Auxiliary, "module__as_tuple": True},
        {"module": Unused},
    ],
    ids=[
        "logits",
        "no_bias",
        "softmax",
        "log_softmax_exp",
        "log_softmax_cross_entropy",
        "identity",
        "clone",
        "auxiliary_head_last",
        "tuple",
        "unused_layer",
    ],
)
def test_the_head_gives_the_logits(params):
    net, X = untrained(**params), rows()
    pool = PoolView(net, X)
    assert_same_proba(pool, net, X)
    assert_consistent(pool)
    head = net.module_.head
    assert torch.equal(pool.head_weight, head.weight)
    assert (pool.head_bias is None) == (head.bias is None)
    assert not pool.head_weight.requires_grad
    net.module_.eval()
    with torch.no_grad():
        by_hand = net.module_.body(torch.from_numpy(X))
    torch.testing.assert_close(pool.embeddings, by_hand)
    assert not pool.embeddings.requires_grad


def test_the_root_module_may_be_the_head():
    net = untrained(
        nn.Linear, module__in_features=N_FEATURES, module__out_features=N_CLASSES
    )
    X = rows()
    pool = PoolView(net, X)
    assert_same_proba(pool, net, X)
    assert_consistent(pool)
    np.testing.assert_array_equal(pool.embeddings, X)


def test_outputs_do_not_share_memory_with_the_rows():
    net = untrained(
        nn.Linear,
        module__in_features=N_FEATURES,
        module__out_features=N_CLASSES,
        iterator_valid__batch_size=-1,
    )
    X = rows()
    PoolView(net, X).embeddings.zero_()
    assert X.any()


def test_a_linear_that_is_called_twice():
    net, X = untrained(Shared, classes=list(range(N_FEATURES))), rows()
    pool = PoolView(net, X)
    assert_consistent(pool)
    by_hand = F.relu(net.module_.head(torch.from_numpy(X))).detach()
    torch.testing.assert_close(pool.embeddings, by_hand)


@pytest.mark.parametrize(
    ("module", "criterion"),
    [(None, None), (nn.Sigmoid(), nn.BCELoss), (nn.Flatten(0), None)],
    ids=["logits", "sigmoid", "flat"],
)
def test_binary_nets_have_two_columns(module, criterion):
    params = {} if criterion is None else {"criterion": criterion}
    net = untrained(
        Net,
        net_class=NeuralNetBinaryClassifier,
        module__n_outputs=1,
        module__top=module,
        **params,
    )
    X = rows()
    pool = PoolView(net, X, classes=[0, 1])
    assert_same_proba(pool, net, X)
    assert_consistent(pool)
    assert pool.head_weight.shape == (2, 8)
    assert pool.head_bias.shape == (2,)
    assert not pool.logits[:, 0].any()


def test_autocast_inside_the_network():
    net, X = untrained(HalfInside), rows()
    pool = PoolView(net, X)
    assert_same_proba(pool, net, X)
    torch.testing.assert_close(pool.logits.softmax(1), pool.proba)
    assert torch.equal(pool.head_weight, net.module_.head.weight)
    again = pool.embeddings.float() @ pool.head_weight.T + pool.head_bias
    torch.testing.assert_close(again, pool.logits, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("module", "layer", "shape"),
    [
        (Net, "head", (8,)),
        (Net, "body.0", (N_FEATURES,)),
        (Net, "body.2", (8,)),
        (Auxiliary, "auxiliary", (8,)),
        (InPlace, "head", (8,)),
        (AllConv, "conv2", (4 * 10 * 10,)),
    ],
)
def test_a_named_layer(module, layer, shape):
    X = rows(N_ROWS, (2, 12, 12)) if module is AllConv else rows()
    net = untrained(module)
    pool = PoolView(net, X, embedding_layer=layer)
    inputs = []
    part = net.module_.get_submodule(layer)
    with part.register_forward_pre_hook(
        lambda part, args: inputs.append(args[0].flatten(1).clone())
    ):
        expected = net.predict_proba(X)
    np.testing.assert_array_equal(pool.proba.numpy(), expected)
    assert pool.embeddings.shape == (N_ROWS, *shape)
    torch.testing.assert_close(pool.embeddings, torch.cat(inputs))
    if layer == "head" and module is Net:
        assert_consistent(pool)
    else:
        assert pool.head_weight is None
        assert pool.head_bias is None
        with pytest.raises(ValueError, match=f"embedding_layer='{layer}'.*nn.Linear"):
            pool.rescore(pool.embeddings)


def test_an_unknown_layer_name():
    pool = PoolView(untrained(Net), rows(), embedding_layer="fc9")
    with pytest.raises(ValueError, match=r"embedding_layer='fc9'.*body\.0.*head"):
        pool.embeddings  # noqa: B018


def test_a_named_layer_that_does_not_run():
    net = untrained(Unused)
    pool = PoolView(net, rows(), embedding_layer="spare")
    with pytest.raises(ValueError, match="embedding_layer='spare' did not run"):
        pool.embeddings  # noqa: B018
    assert not any(part._forward_hooks for part in net.module_.modules())


@pytest.mark.parametrize(
    ("module", "shape"), [(AllConv, (2, 12, 12)), (InPlace, (N_FEATURES,))]
)
def test_no_head_leaves_predictions_and_says_what_to_name(module, shape):
    net, X = untrained(module), rows(N_ROWS, shape)
    pool = PoolView(net, X)
    assert_same_proba(pool, net, X)
    torch.testing.assert_close(pool.logits.softmax(1), pool.proba)
    for name in ("embeddings", "head_weight", "head_bias"):
        with pytest.raises(ValueError, match="embedding_layer"):
            getattr(pool, name)


# -- one pass, no trace -------------------------------------------------------------

READS = ["proba", "logits", "embeddings", "log_proba", "head_weight", "head_bias"]


@pytest.mark.parametrize("first", READS)
@pytest.mark.parametrize("prefetch", [None, ("proba", "embeddings"), ("head_bias",)])
@pytest.mark.parametrize("container", ["array", "dataset"])
def test_every_row_goes_through_the_network_once(container, prefetch, first):
    net, X = untrained(Net), rows()
    seen = count_rows(net)
    pool = PoolView(net, CONTAINERS[container](X, None))
    if prefetch:
        pool.prefetch(prefetch)
    for name in [first, *READS, *READS]:
        getattr(pool, name)
    assert sum(seen) == N_ROWS
    assert pool.proba is pool.proba


@pytest.mark.parametrize("names", [(), ("proba",), ("log_proba", "logits")])
def test_prefetch_of_predictions_keeps_no_embeddings(names):
    net = untrained(Net)
    pool, whole = PoolView(net, rows()), PoolView(net, rows())
    seen = count_rows(net)
    pool.prefetch(names)
    assert torch.equal(pool.proba, whole.proba)
    assert "embeddings" not in pool._cache
    assert sum(seen) == 2 * N_ROWS
    # Asked for all the same, they are computed, in one more pass.
    assert torch.equal(pool.embeddings, whole.embeddings)
    assert_consistent(pool)
    assert sum(seen) == 3 * N_ROWS


@pytest.mark.parametrize("names", [(), ("proba",)])
@pytest.mark.parametrize("read", ["embeddings", "head_weight", "head_bias"])
def test_embeddings_after_the_prefetch_of_others(names, read):
    net = untrained(Net)
    seen = count_rows(net)
    pool = PoolView(net, rows())
    pool.prefetch(names)
    assert getattr(pool, read) is not None
    assert_consistent(pool)
    assert sum(seen) == N_ROWS


def test_prefetch_adds_up_over_strategies():
    net = untrained(Net)
    seen = count_rows(net)
    pool = PoolView(net, rows())
    pool.prefetch(())
    pool.prefetch(("proba", "embeddings"))
    assert pool.proba is not None
    assert_consistent(pool)
    assert sum(seen) == N_ROWS


def test_prefetch_reaches_the_labelled_rows():
    net = untrained(Net)
    pool = PoolView(net, rows(), X_labeled=rows(7), y_labeled=labels(7))
    pool.prefetch(("labeled.proba",))
    assert pool.labeled.proba is not None
    assert "embeddings" not in pool.labeled._cache
    pool = PoolView(net, rows(), X_labeled=rows(7), y_labeled=labels(7))
    pool.prefetch(("labeled.embeddings",))
    seen = count_rows(net)
    assert_consistent(pool.labeled)
    assert sum(seen) == 7


class Drawing(Net):
    """Draws from every global generator in its forward pass."""

    def forward(self, x):
        random.random()
        np.random.random()
        return F.dropout(super().forward(x), training=True)


def _states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def test_global_generators_are_left_alone():
    def draw(Z):
        return Z + np.random.random()

    pipeline = make_pipeline(FunctionTransformer(draw), untrained(Drawing))
    before = _states()
    first, second, third = (
        PoolView(pipeline, rows(), random_state=s) for s in (1, 1, 2)
    )
    assert torch.equal(first.proba, second.proba)
    assert not torch.equal(first.proba, third.proba)
    after = _states()
    assert before[0] == after[0]
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert torch.equal(before[2], after[2])


class Critical(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__()
        self.inner = nn.Dropout()


@pytest.mark.parametrize("fails", [False, True])
def test_weights_flags_hooks_and_rows_are_left_alone(fails):
    net, X = untrained(Net, criterion=Critical), rows()
    net.module_.train()
    net.module_.body[1].eval()
    net.criterion_.train()
    if fails:
        net.module_.head.bias.data[0] = np.nan
    copy = X.copy()
    parts = [*net.module_.modules(), *net.criterion_.modules()]
    flags = [part.training for part in parts]
    state = {k: v.clone() for k, v in net.module_.state_dict().items()}
    pool = PoolView(net, X)
    if fails:
        with pytest.raises(ValueError, match="NaN"):
            pool.proba  # noqa: B018
    else:
        assert_consistent(pool)
    assert [part.training for part in parts] == flags
    for name, value in net.module_.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    assert all(p.grad is None for p in net.module_.parameters())
    assert not any(p._forward_hooks or p._forward_pre_hooks for p in parts)
    np.testing.assert_array_equal(X, copy)


@pytest.mark.parametrize("container", ["array", "tensor", "frame", "fortran"])
def test_a_network_that_writes_to_its_input_cannot_change_the_rows(container):
    net, X = untrained(Overwriting), rows()
    held = CONTAINERS[container](X, None)
    assert_same_proba(PoolView(net, held), untrained(Net), 2 * rows())
    np.testing.assert_array_equal(held, rows())


def test_dropout_is_off_and_batch_norm_uses_its_statistics():
    net = untrained(Net, iterator_valid__batch_size=1)
    net.module_.train()
    X = rows()
    alone = PoolView(net, X)
    together = PoolView(untrained(Net, iterator_valid__batch_size=-1), X)
    torch.testing.assert_close(alone.proba, together.proba)


def test_a_view_keeps_no_large_tensor_alive():
    net = untrained(Tokens)
    buffers = net.module_.buffers_alive
    alive = []
    net.module_.register_forward_pre_hook(
        lambda part, args: alive.append(sum(ref() is not None for ref in buffers))
    )
    pool = PoolView(net, rows(160))
    embeddings = pool.embeddings
    assert len(buffers) == 10
    assert max(alive) <= 1
    assert embeddings.untyped_storage().nbytes() == embeddings.nbytes


class CountingArray(np.ndarray):
    """Notes how many rows each look-up copies."""

    def __getitem__(self, key):
        value = super().__getitem__(key)
        if isinstance(value, np.ndarray) and not np.may_share_memory(value, self):
            self.copied.append(len(value))
        return value

    def __array_finalize__(self, other):
        self.copied = getattr(other, "copied", None)


def test_of_rows_copies_no_more_than_a_batch():
    net = untrained(Net)
    X = rows().view(CountingArray)
    X.copied = []
    chosen = np.random.default_rng(0).permutation(N_ROWS)[:30]
    pool = PoolView.of_rows(net, X, chosen, labeled_rows=[0, 1], y_labeled=[1, 2])
    assert_consistent(pool)
    assert X.copied == [16, 14]
    np.testing.assert_array_equal(pool.indices, chosen)


# -- types --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_of_a_float64_net_are_float64(dtype):
    net = untrained(Net)
    net.module_.double()
    X = rows(dtype=dtype)
    pool = PoolView(net, X)
    assert_same_proba(pool, net, X.astype(np.float64))
    assert_consistent(pool)
    assert pool.embeddings.dtype == pool.logits.dtype == torch.float64


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, bool])
@pytest.mark.parametrize("as_dataset", [False, True])
def test_rows_are_cast_where_the_net_infers(as_dataset, dtype):
    net = untrained(Net)
    X = np.random.default_rng(0).integers(0, 9, (N_ROWS, N_FEATURES)).astype(dtype)
    pool = PoolView(net, TensorDataset(torch.from_numpy(X)) if as_dataset else X)
    assert_same_proba(pool, net, X.astype(np.float32))


def test_integers_reach_a_network_that_looks_them_up():
    net = untrained(Words)
    X = np.random.default_rng(0).integers(0, 20, (N_ROWS, 5))
    pool = PoolView(net, X)
    assert_same_proba(pool, net, X)
    assert_consistent(pool)


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Net()

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("how", ["net", "part", "in_place", "part_in_place"])
def test_compiled_networks(how):
    X = rows()
    compiled = {"compile": True, "compile__backend": "eager"} if how == "net" else {}
    net = untrained(Wrapped, **compiled)
    if how == "part":
        net.module_.inner = torch.compile(net.module_.inner, backend="eager")
    elif how == "in_place":
        net.module_.compile(backend="eager")
    elif how == "part_in_place":
        net.module_.inner.compile(backend="eager")
    expected = net.predict_proba(X)  # compiled before the hooks come
    pool = PoolView(net, X)
    np.testing.assert_allclose(pool.proba, expected, rtol=1e-5)
    assert_consistent(pool)
    layer = "inner._orig_mod.head" if how == "part" else "inner.head"
    named = PoolView(net, X, embedding_layer=layer)
    assert torch.equal(named.embeddings, pool.embeddings)


# -- outputs that cannot be used ----------------------------------------------------


def test_outputs_that_are_no_distribution():
    net = untrained(Net, criterion=nn.MultiMarginLoss)
    with pytest.raises(ValueError, match="predict_nonlinearity"):
        PoolView(net, rows()).proba  # noqa: B018


def test_outputs_of_more_than_two_dimensions():
    net = untrained(Net, module__top=nn.Unflatten(1, (3, 1)), criterion=nn.NLLLoss)
    with pytest.raises(ValueError, match=r"\(16, 3, 1\)"):
        PoolView(net, rows()).proba  # noqa: B018


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite(value):
    net = untrained(Net)
    net.module_.head.bias.data[1] = value
    with pytest.raises(ValueError, match="NaN"):
        PoolView(net, rows()).proba  # noqa: B018


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_whose_outputs_are_not_finite_is_named(value):
    X = rows()
    X[[12, 30], 2] = value
    pool = PoolView.of_rows(untrained(Net), Loading(X), np.arange(40, 10, -1))
    with pytest.raises(ValueError, match="row 30 of X.* Clean it"):
        pool.proba  # noqa: B018
    with pytest.raises(ValueError, match="row 30 of X.* Clean it"):
        pool.sample_proba(MCDropout(n_draws=3), random_state=0)


def test_fewer_outputs_than_classes():
    pool = PoolView(untrained(Net), rows(), classes=np.arange(5))
    with pytest.raises(ValueError, match="3 outputs, but there are 5 classes"):
        pool.proba  # noqa: B018


class OneMore(Net):
    """Gives a row too many, which is not finite."""

    def forward(self, x):
        return F.pad(super().forward(x), (0, 0, 0, 1), value=torch.nan)


class FirstRow(Net):
    def forward(self, x):
        return super().forward(x)[:1]


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"iterator_valid__drop_last": True}, 32),
        ({"iterator_valid__sampler": range(3)}, 3),
        ({"iterator_valid__sampler": [*range(N_ROWS), 0]}, 46),
        ({"module": FirstRow}, 3),
        ({"module": OneMore, "iterator_valid__batch_size": N_ROWS}, 46),
    ],
)
def test_outputs_of_fewer_or_more_rows(params, count):
    net = untrained(**{"module": Net, **params})
    pool, said = PoolView(net, rows()), f"{count} rows of outputs for a pool of 45"
    with pytest.raises(ValueError, match=said):
        pool.proba  # noqa: B018
    with pytest.raises(ValueError, match=said):
        pool.sample_proba(MCDropout(n_draws=3), random_state=0)


@pytest.mark.parametrize("name", ["proba", "logits", "embeddings"])
def test_an_empty_pool(name):
    pool = PoolView(untrained(Net), rows(0))
    assert len(pool) == 0
    with pytest.raises(ValueError, match="empty"):
        getattr(pool, name)


@pytest.mark.parametrize("model", [None, LogisticRegression().fit(rows(), labels())])
def test_an_empty_pool_without_a_network(model):
    with pytest.raises(ValueError, match="the pool is empty"):
        PoolView(model, rows(0)).embeddings  # noqa: B018


def test_no_estimator_knows_rows_only():
    pool = PoolView(None, rows())
    np.testing.assert_array_equal(pool.embeddings, rows())
    with pytest.raises(ValueError, match="proba needs a fitted estimator"):
        pool.proba  # noqa: B018


# -- estimators without a network ---------------------------------------------------


@pytest.mark.parametrize("seen", [[0, 1, 2], [0, 2], [2, 0]])
@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize(
    "model", [LogisticRegression(), RandomForestClassifier(5, random_state=0)]
)
def test_columns_are_scattered_to_the_classes(model, strings, seen):
    X, names = rows(dtype=np.float64), np.array(["a", "b", "c"])
    y = np.array(seen)[np.arange(N_ROWS) % len(seen)]
    classes = names if strings else np.arange(3)
    model.fit(X, names[y] if strings else y)
    pool = PoolView(model, X, classes=classes)
    expected = model.predict_proba(X)
    columns = np.searchsorted(classes, model.classes_)
    np.testing.assert_array_equal(pool.proba[:, columns], expected)
    assert pool.proba.dtype == torch.float64
    torch.testing.assert_close(pool.proba.sum(1), torch.ones(N_ROWS).double())
    torch.testing.assert_close(pool.logits.softmax(1), pool.proba)
    np.testing.assert_array_equal(pool.embeddings, X)
    assert pool.head_weight is None
    assert pool.head_bias is None


@pytest.mark.parametrize("model", [LogisticRegression(), SGDClassifier()])
def test_rescored_embeddings_without_a_network(model):
    """Those of other rows have the scores of these rows, without names of columns."""
    frame = pd.DataFrame(rows(), columns=[f"c{i}" for i in range(N_FEATURES)])
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, model).fit(frame, labels())
    pool = PoolView(model, frame, classes=[0, 1, 2, 3])
    other = PoolView(model, frame[::-1], classes=[0, 1, 2, 3])
    values = other.decision_values
    expected = other.log_proba if values is None else values
    assert torch.equal(pool.rescore(other.embeddings), expected)


def test_embeddings_without_a_network_are_the_transformed_rows():
    X = rows(dtype=np.float64)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, labels())
    pool = PoolView(model, X)
    expected = model[0].transform(X)
    np.testing.assert_array_equal(pool.embeddings, expected)
    np.testing.assert_array_equal(pool.proba, model.predict_proba(X))


def test_embeddings_of_sparse_and_image_rows():
    X = sparse.random(N_ROWS, 5, density=0.5, format="csr", random_state=0)
    model = LogisticRegression().fit(X, labels())
    np.testing.assert_array_equal(PoolView(model, X).embeddings, X.toarray())
    assert PoolView(None, rows(9, (2, 3, 3))).embeddings.shape == (9, 18)


def test_rows_of_text_are_no_embeddings():
    pool = PoolView(None, np.array([["a"], ["b"]], dtype=object))
    with pytest.raises(ValueError, match="not numeric"):
        pool.embeddings  # noqa: B018
    with pytest.raises(ValueError, match="Dataset"):
        PoolView(None, Loading(rows())).embeddings  # noqa: B018


def test_no_predict_proba():
    model = LinearSVC().fit(rows(), labels())
    with pytest.raises(ValueError, match="LinearSVC has no predict_proba.*Calibrated"):
        PoolView(model, rows()).proba  # noqa: B018
    calibrated = CalibratedClassifierCV(LinearSVC(), cv=2).fit(rows(), labels())
    assert PoolView(calibrated, rows()).proba.shape == (N_ROWS, N_CLASSES)


@pytest.mark.parametrize("model", [LinearSVC(), SGDClassifier(), SVC()], ids=str)
def test_decision_values_where_there_are_no_probabilities(model):
    X, y = rows(dtype=np.float64), labels()
    model.fit(X, y)
    pool = PoolView(make_pipeline(FunctionTransformer(), model), X)
    np.testing.assert_array_equal(pool.decision_values, model.decision_function(X))
    assert pool.decision_values is pool.decision_values
    more = PoolView(model, X, classes=[-1, *range(N_CLASSES)]).decision_values
    assert (more[:, 0] == -np.inf).all()
    np.testing.assert_array_equal(more[:, 1:], model.decision_function(X))


def test_decision_values_of_two_classes_differ_by_the_value():
    X, y = rows(dtype=np.float64), labels() > 0
    model = LinearSVC().fit(X, y)
    values = PoolView(model, X).decision_values
    np.testing.assert_array_equal(
        values[:, 1] - values[:, 0], model.decision_function(X)
    )
    np.testing.assert_array_equal(values.argmax(1) == 1, model.predict(X))
    proba = values.softmax(1)[:, 1]
    np.testing.assert_allclose(proba, 1 / (1 + np.exp(-model.decision_function(X))))


def test_no_decision_values_beside_probabilities():
    X, y = rows(), labels()
    for model in (LogisticRegression().fit(X, y), untrained(Net), None):
        assert PoolView(model, X).decision_values is None


def test_decision_values_that_cannot_be_taken():
    X, y = rows(dtype=np.float64), labels()
    pairs = SVC(decision_function_shape="ovo").fit(X, y)
    with pytest.raises(ValueError, match="set decision_function_shape='ovr'"):
        PoolView(pairs, X).decision_values  # noqa: B018
    model = LinearSVC().fit(X, y)
    model.coef_[0, 0] = np.inf
    with pytest.raises(ValueError, match="LinearSVC gives NaN or infinite decision"):
        PoolView(model, X).decision_values  # noqa: B018


def doubled_in_place(X):
    X *= 2
    return X


@pytest.mark.parametrize(
    "transformer",
    [StandardScaler(copy=False), FunctionTransformer(doubled_in_place)],
    ids=["scaler", "function"],
)
@pytest.mark.parametrize("container", ["array", "frame", "memmap", "sparse"])
@pytest.mark.parametrize("net", [True, False])
def test_transformers_that_write_to_their_input_change_no_rows(
    transformer, container, net, tmp_path
):
    X, y = rows(), labels()
    if container == "sparse" and isinstance(transformer, StandardScaler):
        transformer = MaxAbsScaler(copy=False)
    final = untrained(Net) if net else LogisticRegression().fit(X, y)
    model = make_pipeline(transformer.fit(X.copy()), final)
    held = X.copy()
    if container == "frame":
        held = pd.DataFrame(held)
    elif container == "sparse":
        held = sparse.csr_matrix(held)
    elif container == "memmap":
        X.tofile(tmp_path / "X.bin")
        held = np.memmap(tmp_path / "X.bin", np.float32, "r", shape=X.shape)
    expected = final.predict_proba(transformer.transform(X.copy()))
    pool = PoolView(model, held, X_labeled=held, y_labeled=y)
    some = PoolView.of_rows(model, held, [3, 1])
    np.testing.assert_allclose(pool.proba, expected, rtol=1e-5)
    np.testing.assert_allclose(pool.labeled.proba, expected, rtol=1e-5)
    np.testing.assert_allclose(some.proba, expected[[3, 1]], rtol=1e-5)
    after = held.toarray() if container == "sparse" else np.asarray(held)
    np.testing.assert_array_equal(after, X)


# -- labelled rows, row numbers, seeds ----------------------------------------------


def test_labelled_rows_and_their_codes():
    net, classes = untrained(Net), np.array(["ant", "bee", "cat"])
    y = ["cat", "ant", "cat", "bee"]
    pool = PoolView(net, rows(), X_labeled=rows(4), y_labeled=y, classes=classes)
    assert pool.labeled is pool.labeled
    assert pool.labeled.y.dtype == np.int64
    np.testing.assert_array_equal(pool.labeled.y, [2, 0, 2, 1])
    assert pool.y is None
    assert_same_proba(pool.labeled, net, rows(4))
    assert_consistent(pool.labeled)


def test_labels_outside_the_classes():
    pool = PoolView(untrained(Net), rows(), X_labeled=rows(2), y_labeled=[0, 9])
    pool._classes = np.arange(3)
    with pytest.raises(ValueError, match=r"y_labeled.*\[9\]"):
        pool.labeled  # noqa: B018


def test_classes_are_those_of_the_estimator():
    model = LogisticRegression().fit(rows(), np.array(["a", "b", "c"])[labels()])
    pool = PoolView(model, rows(), X_labeled=rows(3), y_labeled=["c", "b", "a"])
    assert pool.classes.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(pool.labeled.y, [2, 1, 0])


def test_no_labelled_rows():
    pool = PoolView(untrained(Net), rows())
    assert not pool.has_labeled
    with pytest.raises(ValueError, match="X_labeled"):
        pool.labeled  # noqa: B018


def test_indices():
    pool = PoolView(untrained(Net), rows())
    np.testing.assert_array_equal(pool.indices, np.arange(N_ROWS))
    assert pool.indices.dtype == np.int64
    some = PoolView.of_rows(
        None,
        rows(),
        [5, 3],
        labeled_rows=[9, 2, 7],
        y_labeled=[0, 1, 0],
        classes=[0, 1],
    )
    assert len(some) == 2
    some.indices[:] = 0
    np.testing.assert_array_equal(some.indices, [5, 3])
    np.testing.assert_array_equal(some.labeled.indices, [9, 2, 7])
    np.testing.assert_array_equal(some.labeled.embeddings, rows()[[9, 2, 7]])
    np.testing.assert_array_equal(some.features, rows()[[5, 3]])


def test_random_state():
    net = untrained(Net)

    def seed(random_state):
        return PoolView(net, rows(), random_state=random_state).random_state

    assert seed(None) is None
    assert seed(3) == 3
    assert isinstance(seed(np.int64(3)), int)
    assert seed(np.random.default_rng(0)) == seed(np.random.default_rng(0))
    assert seed(np.random.RandomState(0)) == seed(np.random.RandomState(0))
    for bad in (-1, 1.5, "a"):
        with pytest.raises(ValueError, match="random_state"):
            seed(bad)
    pool = PoolView(net, rows(), X_labeled=rows(3), random_state=5)
    assert pool.labeled.random_state == pool.run_seed == 5
    pool = PoolView.of_rows(net, rows(), [1], random_state=5, run_seed=7)
    assert (pool.random_state, pool.run_seed) == (5, 7)


# -- gradients with respect to the input --------------------------------------------


def gradients(pool):
    """Rows as the network sees them, logits, and the gradient of each logit."""
    inputs, outputs, slopes = [], [], []
    with pool.input_gradients() as (batches, logits):
        for x in batches:
            z = logits(x.requires_grad_())
            parts = z.sum(0).unbind()
            g = [torch.autograd.grad(part, x, retain_graph=True)[0] for part in parts]
            inputs.append(x.detach())
            outputs.append(z.detach())
            slopes.append(torch.stack(g, dim=1))
    return torch.cat(inputs), torch.cat(outputs), torch.cat(slopes)


def gradients_by_hand(net, X):
    """As `gradients`, for a `Net` without a nonlinearity on top, row by row."""
    module = net.module_.eval()
    X = torch.from_numpy(X)

    def of_row(x):
        return module.head(module.body(x[None]))[0]

    slopes = [torch.autograd.functional.jacobian(of_row, x) for x in X]
    with torch.no_grad():
        return X, module.head(module.body(X)), torch.stack(slopes)


def assert_gradients(pool, net, X):
    for found, expected in zip(gradients(pool), gradients_by_hand(net, X), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("some", [False, True], ids=["all", "of_rows"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_gradients_by_rows_of_any_container(container, some, tmp_path):
    net, X = untrained(Net), rows()
    held = CONTAINERS[container](X, tmp_path)
    chosen = np.random.default_rng(1).permutation(N_ROWS)[:20]
    pool = PoolView.of_rows(net, held, chosen) if some else PoolView(net, held)
    assert_gradients(pool, net, X[chosen] if some else X)
    np.testing.assert_array_equal(X, rows())


@pytest.mark.parametrize(
    "params",
    [
        {"module__top": nn.Softmax(dim=1), "criterion": nn.NLLLoss},
        {"module__top": nn.LogSoftmax(dim=1)},
        {"module": Auxiliary, "module__as_tuple": True},
        {"compile": True, "compile__backend": "eager"},
    ],
    ids=["softmax", "log_softmax", "tuple", "compiled"],
)
def test_gradients_are_those_of_the_head(params):
    net, X = untrained(**{"module": Net} | params), rows()
    assert_gradients(PoolView(net, X), net, X)


class NoLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return (self.factor * x[:, :N_CLASSES]).softmax(1)


def test_gradients_of_log_probabilities_where_there_are_no_logits():
    net, X = untrained(NoLinear, criterion=nn.NLLLoss), rows()
    pool = PoolView(net, X)
    x, z, slopes = gradients(pool)
    torch.testing.assert_close(z, pool.log_proba)
    p = pool.proba
    by_hand = 3 * (torch.eye(N_CLASSES) - p[:, None])  # of log softmax(3 x)
    torch.testing.assert_close(slopes[:, :, :N_CLASSES], by_hand)
    assert not slopes[:, :, N_CLASSES:].any()


@pytest.mark.parametrize("criterion", [nn.BCEWithLogitsLoss, nn.BCELoss])
def test_gradients_of_binary_nets_have_two_columns(criterion):
    top = None if criterion is nn.BCEWithLogitsLoss else nn.Sigmoid()
    net = untrained(
        Net,
        NeuralNetBinaryClassifier,
        criterion=criterion,
        module__n_outputs=1,
        module__top=top,
    )
    _, z, slopes = gradients(PoolView(net, rows()))
    _, one, slope = gradients_by_hand(net, rows())
    torch.testing.assert_close(z, torch.cat([0 * one, one], dim=1))
    torch.testing.assert_close(slopes, torch.cat([0 * slope, slope], dim=1))


def test_gradients_are_taken_behind_the_transformers():
    X = (5 + 3 * rows()).astype(np.float64)
    scaler, net = StandardScaler().fit(X), untrained(Net)
    pool = PoolView(make_pipeline(scaler, net), X)
    assert_gradients(pool, net, scaler.transform(X).astype(np.float32))


def test_gradients_of_a_network_that_writes_to_its_input():
    net, X = untrained(Overwriting), rows()
    x, z, slopes = gradients(PoolView(net, X))
    _, expected, half = gradients_by_hand(net, 2 * X)
    np.testing.assert_array_equal(x, X)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(slopes, 2 * half)


@pytest.mark.parametrize("fails", [False, True])
def test_differentiating_leaves_no_trace(fails):
    net, X = untrained(Net), rows()
    module = net.module_
    for i, part in enumerate(module.modules()):
        part.training = i % 2 == 0
    module.head.bias.requires_grad_(False)
    module.head.weight.grad = torch.ones_like(module.head.weight)

    def state():
        values = [*module.state_dict().values(), module.head.weight.grad]
        return (
            [value.numpy().tobytes() for value in values],
            [part.training for part in module.modules()],
            [p.requires_grad for p in module.parameters()],
            [p.grad is None for p in module.parameters()],
            [len(part._forward_hooks) for part in module.modules()],
            random.getstate(),
            torch.get_rng_state().tolist(),
        )

    before = state()
    if fails:
        with (
            pytest.raises(RuntimeError, match="within"),
            PoolView(net, X).input_gradients() as (batches, logits),
        ):
            logits(next(batches))
            raise RuntimeError("within")
    else:
        gradients(PoolView(net, X))
    assert state() == before


class Named(Dataset):
    """Rows that reach the network by name."""

    def __len__(self):
        return N_ROWS

    def __getitem__(self, row):
        return {"x": rows()[row]}, 0


@pytest.mark.parametrize(
    "estimator, X, message",
    [
        (LogisticRegression().fit(rows(), labels()), rows(), "LogisticReg.*skorch net"),
        (None, rows(), "needs a fitted estimator"),
        (untrained(Words), np.ones((9, 5), dtype=int), "Words takes torch.int64"),
        (untrained(Net), Named(), "Net takes dict"),
        (untrained(Tokens), rows(), "Tokens do not depend.*differentiable"),
        (untrained(Net), rows(0), "empty"),
    ],
    ids=["no_net", "none", "integers", "dict", "numpy_inside", "empty"],
)
def test_what_cannot_be_differentiated_is_said(estimator, X, message):
    with pytest.raises(ValueError, match=message):
        gradients(PoolView(estimator, X))


# -- mixed precision ----------------------------------------------------------------


class ConvMaps(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(6 * 36, N_CLASSES)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.head(self.drop(x.flatten(1)))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_is_close_and_outputs_are_float32(precision):
    net, X = untrained(ConvMaps), rows(shape=(1, 8, 8))
    seen = []
    net.module_.conv.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    whole, pool = PoolView(net, X), PoolView(net, X, precision=precision)
    posterior = MCDropout(n_draws=5)
    for name in READS:
        one, other = getattr(whole, name), getattr(pool, name)
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, one, atol=0.1, rtol=0.02)
    assert set(seen) == {torch.float32, getattr(torch, precision)}
    assert (pool.proba != whole.proba).any()
    torch.testing.assert_close(pool.logits.softmax(1), pool.proba)
    torch.testing.assert_close(pool.proba.sum(1), torch.ones(N_ROWS))
    seen.clear()
    samples = [p.sample_proba(posterior, random_state=0) for p in (whole, pool)]
    torch.testing.assert_close(*samples, atol=0.02, rtol=0)
    assert samples[1].dtype == torch.float32
    assert set(seen) == {torch.float32, getattr(torch, precision)}
    means = pool.hidden_means(["conv"])["conv"]
    assert means.dtype == torch.float32
    torch.testing.assert_close(
        means, whole.hidden_means(["conv"])["conv"], atol=0.02, rtol=0.02
    )
    assert not torch.is_autocast_enabled("cpu")


def test_mixed_precision_goes_with_a_view():
    net, X = untrained(Net), rows()
    pool = PoolView(net, X, X_labeled=X[:5], y_labeled=labels(5), precision="bfloat16")
    assert torch.equal(pool.labeled.proba, pool.of_others(X[:5]).proba)
    assert (pool.labeled.proba != PoolView(net, X[:5]).proba).any()
    before = PoolView(net, X).proba
    with pool.input_gradients() as (batches, logits):
        assert logits(next(batches)).dtype == torch.float32
    assert torch.equal(PoolView(net, X).proba, before)


def test_mixed_precision_leaves_double_nets_and_other_estimators():
    X = rows()
    net = untrained(Net)
    net.module_.double()
    forest = RandomForestClassifier(5, random_state=0).fit(X, labels())
    for estimator in (net, forest):
        pool = PoolView(estimator, X, precision="bfloat16")
        assert pool.proba.dtype == torch.float64
        assert pool.log_proba.dtype == torch.float64


@pytest.mark.parametrize("precision", ["half", 16, torch.bfloat16])
def test_precision_that_is_none(precision):
    with pytest.raises(ValueError, match="precision must be None, 'bfloat16' or"):
        PoolView(untrained(Net), rows(), precision=precision)


# -- GPU ----------------------------------------------------------------------------


@pytest.mark.gpu
def test_outputs_lie_on_the_device_of_the_net():
    net, X = untrained(Net, device="cuda"), rows()
    pool = PoolView(net, X)
    np.testing.assert_array_equal(pool.proba.cpu(), net.predict_proba(X))
    for name in READS:
        assert getattr(pool, name).device.type == "cuda"
    assert_consistent(pool)
    state = torch.cuda.get_rng_state()
    assert PoolView(untrained(Drawing, device="cuda"), X).proba is not None
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [None, "bfloat16", "float16"])
def test_a_gpu_gives_what_the_cpu_gives(precision):
    here, there = (untrained(ConvMaps, device=device) for device in ("cpu", "cuda"))
    there.module_.load_state_dict(here.module_.state_dict())
    X = rows(shape=(1, 8, 8))
    expected, pool = PoolView(here, X), PoolView(there, X, precision=precision)
    close = {"rtol": 1e-3, "atol": 1e-4} if precision is None else {"atol": 0.1}
    close = {"rtol": 0.02, **close}
    for name in ("proba", "logits", "embeddings", "log_proba"):
        found = getattr(pool, name)
        assert found.is_cuda
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.cpu(), getattr(expected, name), **close)
    draws = [p.sample_proba(MCDropout(5), random_state=0) for p in (pool, expected)]
    assert draws[0].is_cuda
    torch.testing.assert_close(draws[0].cpu(), draws[1], **close)


def test_head_is_a_copy(fitted_net, pool):
    """A strategy that scales what it reads must not scale the network."""
    before = pool.head_weight.clone()
    pool.head_weight.mul_(2)
    assert torch.equal(pool.head_weight, before)


def test_marks_beside_names_are_no_classes():
    """An array of both would be text, and the mark a class."""
    pool = PoolView(None, rows(), X_labeled=rows(3), y_labeled=["a", -1, "b"])
    with pytest.raises(ValueError, match="mixes labels"):
        pool.labeled  # noqa: B018
