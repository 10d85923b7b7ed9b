"""What is measured of each library: a call that picks rows, given all it needs.

Nothing is fitted and no network runs in a choice, but for a linear layer where a
library asks the classifier itself. `prepare` makes what a user has at hand before the
choice; the function that it returns is timed.
"""

import warnings

import numpy as np

N_FEATURES, N_CLASSES, N_LABELED, N_DRAWS = 512, 10, 100, 20
N_CONFIGURATIONS = 10_000  # Monte Carlo samples of BatchBALD, for each library.
WIDTH = 1.0  # Of the kernel of herding, on rows of length 1, as in the paper.
CELLS = {}


def cell(peer, job):
    def register(prepare):
        CELLS[peer, job] = prepare
        return prepare

    return register


class Pool:
    """Embeddings as after a ReLU, the linear layer on them, and labelled rows."""

    def __init__(self, n):
        rng = np.random.default_rng(n)
        shape = (n + N_LABELED, N_FEATURES)
        rows = np.maximum(rng.standard_normal(shape, dtype=np.float32), 0)
        self.rows, self.labeled = rows[:n], rows[n:]
        self.y = np.arange(N_LABELED) % N_CLASSES
        shape = (N_CLASSES, N_FEATURES)
        self.weight = 0.15 * rng.standard_normal(shape, dtype=np.float32)
        self.proba = self.predict_proba(self.rows)

    def predict_proba(self, rows):
        logits = rows @ self.weight.T
        proba = np.exp(logits - logits.max(1, keepdims=True))
        return proba / proba.sum(1, keepdims=True)

    def unit(self, rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def samples(n):
    """Predictions of a linear layer under dropout masks that all rows share.

    A tenth of the rows lies between two classes; the others are mostly sure.
    """
    rng, width = np.random.default_rng(n), 64
    head = rng.normal(size=(N_CLASSES, width))
    first, second = head[rng.integers(N_CLASSES, size=(2, n))]
    between = 0.5 * rng.random((n, 1)) * (rng.random((n, 1)) < 0.1)
    rows = (1 - between) * first + between * second + rng.normal(size=(n, width))
    masks = 2 * (rng.random((N_DRAWS, width)) < 0.5)
    logits = np.einsum("nw,kw,cw->nkc", rows, masks, head / 4, optimize=True)
    proba = np.exp(logits - logits.max(2, keepdims=True))
    return (proba / proba.sum(2, keepdims=True)).astype(np.float32)


# skal


def skal_cell(job, make):
    @cell("skal", job)
    def prepare(n, k):
        import torch
        from skorch import NeuralNetClassifier

        from skal import PoolView

        pool = Pool(n)
        net = NeuralNetClassifier(
            torch.nn.Linear,
            module__in_features=N_FEATURES,
            module__out_features=N_CLASSES,
            module__bias=False,
            criterion=torch.nn.CrossEntropyLoss,
            classes=range(N_CLASSES),
            batch_size=1024,
        ).initialize()
        with torch.no_grad():
            net.module_.weight.copy_(torch.from_numpy(pool.weight))
        labeled = {"X_labeled": pool.labeled, "y_labeled": pool.y}
        view = PoolView(net, pool.rows, random_state=0, **labeled)
        known = view.log_proba, view.logits, view.embeddings, view.labeled.embeddings
        assert all(len(each) for each in known)
        return lambda: make().query(view, k)


def skal_strategy(name, **params):
    def make():
        import skal

        return getattr(skal, name)(**params)

    return make


skal_cell("BADGE", skal_strategy("BadgeQuery"))
skal_cell("k-center", skal_strategy("KCenterGreedyQuery"))
skal_cell("MaxHerding", skal_strategy("MaxHerdingQuery", width=WIDTH))
skal_cell("TypiClust", skal_strategy("TypiClustQuery"))
skal_cell("Falcun", skal_strategy("FalcunQuery"))
skal_cell("margin", skal_strategy("MarginQuery"))


@cell("skal", "BatchBALD")
def skal_batch_bald(n, k):
    import torch

    from skal.selection import batch_bald

    draws = torch.from_numpy(samples(n))
    options = {"max_configurations": N_CONFIGURATIONS, "n_particles": N_CONFIGURATIONS}
    return lambda: batch_bald(draws, k, random_state=0, **options)


# scikit-activeml


def skactiveml_cell(job, make):
    @cell("scikit-activeml", job)
    def prepare(n, k):
        from skactiveml.base import SkactivemlClassifier

        class Ready(SkactivemlClassifier):
            def fit(self, X, y):
                return self

            def predict_proba(self, X):
                return pool.predict_proba(X)

        pool = Pool(n)
        X = np.concatenate([pool.rows, pool.labeled])
        y = np.concatenate([np.full(n, np.nan), pool.y])
        strategy, needs_classifier = make()
        more = {}
        if needs_classifier:
            more = {"clf": Ready(classes=range(N_CLASSES)), "fit_clf": False}
        return lambda: strategy.query(X, y, batch_size=k, **more)


def skactiveml_strategy(name, needs_classifier=False, **params):
    def make():
        import skactiveml.pool

        return getattr(skactiveml.pool, name)(
            random_state=0, **params
        ), needs_classifier

    return make


skactiveml_cell("BADGE", skactiveml_strategy("Badge", True))
skactiveml_cell("k-center", skactiveml_strategy("CoreSet"))
skactiveml_cell(
    "MaxHerding",
    skactiveml_strategy("MaxHerding", metric_dict={"gamma": 1 / WIDTH**2}),
)
skactiveml_cell("TypiClust", skactiveml_strategy("TypiClust"))
skactiveml_cell("Falcun", skactiveml_strategy("Falcun", True))
skactiveml_cell(
    "margin", skactiveml_strategy("UncertaintySampling", True, method="margin_sampling")
)


@cell("scikit-activeml", "BatchBALD")
def skactiveml_batch_bald(n, k):
    from skactiveml.pool import batch_bald

    draws = np.ascontiguousarray(samples(n).swapaxes(0, 1), dtype=np.float64)

    def query():
        utilities = batch_bald(draws, k, N_CONFIGURATIONS, random_state=0)
        return np.nanargmax(utilities, axis=1)

    return query


# small-text


class ReadyForText:
    """What small-text asks of a classifier in a choice."""

    def __init__(self, pool):
        self.pool = pool

    def predict_proba(self, rows):
        return self.pool.predict_proba(rows)


def small_text_cell(job, make):
    @cell("small-text", job)
    def prepare(n, k):
        pool = Pool(n)
        X = np.concatenate([pool.rows, pool.labeled])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            strategy = make()
        places = np.arange(n), np.arange(n, n + N_LABELED), pool.y
        more = {} if job == "margin" else {"embeddings": X, "pbar": None}
        return lambda: strategy.query(ReadyForText(pool), X, *places, n=k, **more)


def small_text_badge():
    from small_text.integrations.pytorch.query_strategies import BADGE

    return BADGE(N_CLASSES)


def small_text_coreset():
    from small_text import GreedyCoreset

    return GreedyCoreset(normalize=False)


def small_text_margin():
    from small_text import BreakingTies

    return BreakingTies()


small_text_cell("BADGE", small_text_badge)
small_text_cell("k-center", small_text_coreset)
small_text_cell("margin", small_text_margin)


# modAL, baal, batchbald_redux


@cell("modAL", "margin")
def modal_margin(n, k):
    from modAL.uncertainty import margin_sampling

    pool = Pool(n)

    def query():
        picks = margin_sampling(pool, pool.rows, n_instances=k)
        return picks[0] if isinstance(picks, tuple) else picks

    return query


@cell("baal", "margin")
def baal_margin(n, k):
    from baal.active.heuristics import Margin

    pool = Pool(n)
    return lambda: Margin()(pool.predict_proba(pool.rows))[:k]


@cell("baal", "BatchBALD")
def baal_batch_bald(n, k):
    from baal.active.heuristics import BatchBALD

    draws = np.ascontiguousarray(samples(n).swapaxes(1, 2))
    return lambda: BatchBALD(k, num_draw=N_CONFIGURATIONS // N_DRAWS)(draws)[:k]


@cell("batchbald_redux", "BatchBALD")
def redux_batch_bald(n, k):
    import torch
    from batchbald_redux.batchbald import get_batchbald_batch

    draws = torch.from_numpy(samples(n)).double().clamp(min=1e-7).log()
    return lambda: get_batchbald_batch(draws, k, N_CONFIGURATIONS).indices


# Public code of papers, written anew: it is no package, or has no licence.


@cell("public code", "BADGE")
def public_badge(n, k):
    """The loop of JordanAsh/badge, a2d18ac: factors, a pick at a time, rv_discrete."""
    from scipy.stats import rv_discrete

    pool = Pool(n)
    residual = -pool.proba
    residual[np.arange(n), pool.proba.argmax(1)] += 1
    h_norms, r_norms = (pool.rows**2).sum(1), (residual**2).sum(1)

    def distances(pick):
        square = r_norms * h_norms + r_norms[pick] * h_norms[pick]
        square -= 2 * (residual @ residual[pick]) * (pool.rows @ pool.rows[pick])
        return np.sqrt(np.clip(square, 0, None)).astype(float)

    def query():
        rng = np.random.RandomState(0)
        picked = [int((r_norms * h_norms).argmax())]
        nearest = distances(picked[0])
        nearest[picked] = 0
        while len(picked) < k:
            law = nearest**2 / sum(nearest**2)
            drawn = rv_discrete(values=(np.arange(n), law), seed=rng)
            pick = drawn.rvs(size=1)[0]
            while pick in picked:
                pick = drawn.rvs(size=1)[0]
            picked.append(int(pick))
            nearest = np.minimum(nearest, distances(pick))
            nearest[picked] = 0
        return picked

    return query


@cell("public code", "k-center")
def public_k_center(n, k):
    """The furthest-first loop of JordanAsh/badge: the minimum, row by row in Python."""
    from sklearn.metrics import pairwise_distances

    pool = Pool(n)

    def query():
        nearest = pairwise_distances(pool.rows, pool.labeled).min(1)
        picked = []
        for _ in range(k):
            pick = int(nearest.argmax())
            picked.append(pick)
            distances = pairwise_distances(pool.rows, pool.rows[[pick]])
            for i in range(n):
                nearest[i] = min(nearest[i], distances[i, 0])
        return picked

    return query


# A whole loop on digits: margin, the same network, 20 labels and five times 20 more.


class Digits:
    def __init__(self):
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        X = (X / 16).astype(np.float32)
        self.X, self.y = X[:1500], y[:1500].astype(np.int64)
        self.X_test, self.y_test = X[1500:], y[1500:].astype(np.int64)
        self.initial, self.n_rounds, self.batch_size = np.arange(20), 5, 20

    def accuracy(self, predictions):
        return float((np.asarray(predictions) == self.y_test).mean())


EPOCHS, LEARNING_RATE, BATCH_SIZE = 40, 0.005, 128


def network():
    import torch

    layers = torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    return torch.nn.Sequential(*layers)


def training():
    import torch

    return {
        "criterion": torch.nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": LEARNING_RATE,
        "max_epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
    }


def skorch_net(cls=None):
    import torch
    from skorch import NeuralNetClassifier

    torch.manual_seed(0)
    return (cls or NeuralNetClassifier)(network, **training())


@cell("skal", "loop")
def skal_loop(n, k):
    from skal import ActiveLearningLoop, MarginQuery

    data, net = Digits(), skorch_net()

    def run():
        loop = ActiveLearningLoop(
            net,
            MarginQuery(),
            initial=data.initial,
            batch_size=data.batch_size,
            n_rounds=data.n_rounds,
            random_state=0,
        ).fit(data.X, data.y)
        return loop.labeled_indices_, data.accuracy(loop.predict(data.X_test))

    return run


@cell("scikit-activeml", "loop")
def skactiveml_loop(n, k):
    import torch
    from skactiveml.classifier import SkorchClassifier
    from skactiveml.pool import UncertaintySampling

    data, options = Digits(), training()
    criterion = options.pop("criterion")

    def run():
        torch.manual_seed(0)
        net = SkorchClassifier(
            network,
            criterion=criterion,
            classes=range(10),
            neural_net_param_dict=options,
            random_state=0,
        )
        strategy = UncertaintySampling(method="margin_sampling", random_state=0)
        y = np.full(len(data.y), np.nan)
        y[data.initial] = data.y[data.initial]
        for _ in range(data.n_rounds):
            net.fit(data.X, y)
            picks = strategy.query(
                data.X, y, clf=net, fit_clf=False, batch_size=data.batch_size
            )
            y[picks] = data.y[picks]
        net.fit(data.X, y)
        return np.flatnonzero(~np.isnan(y)), data.accuracy(net.predict(data.X_test))

    return run


@cell("modAL", "loop")
def modal_loop(n, k):
    from modAL.models import ActiveLearner
    from modAL.uncertainty import margin_sampling

    data = Digits()

    def run():
        learner = ActiveLearner(
            skorch_net(),
            query_strategy=margin_sampling,
            X_training=data.X[data.initial],
            y_training=data.y[data.initial],
        )
        pool = np.setdiff1d(np.arange(len(data.X)), data.initial)
        for _ in range(data.n_rounds):
            picks, _ = learner.query(data.X[pool], n_instances=data.batch_size)
            learner.teach(data.X[pool[picks]], data.y[pool[picks]])
            pool = np.delete(pool, picks)
        labeled = np.setdiff1d(np.arange(len(data.X)), pool)
        return labeled, data.accuracy(learner.predict(data.X_test))

    return run


@cell("baal", "loop")
def baal_loop(n, k):
    from copy import deepcopy

    import structlog
    import torch
    from baal.active import ActiveLearningDataset, ActiveLearningLoop
    from baal.active.heuristics import Margin
    from baal.modelwrapper import ModelWrapper, TrainingArgs
    from torch.utils.data import TensorDataset

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    data = Digits()

    def run():
        torch.manual_seed(0)
        net = network()
        pairs = TensorDataset(torch.from_numpy(data.X), torch.from_numpy(data.y))
        dataset = ActiveLearningDataset(pairs)
        dataset.label(data.initial.tolist())
        options = TrainingArgs(
            optimizer=torch.optim.Adam(net.parameters(), lr=LEARNING_RATE),
            criterion=torch.nn.CrossEntropyLoss(),
            batch_size=BATCH_SIZE,
            epoch=EPOCHS,
            use_cuda=False,
            workers=0,
        )
        wrapper = ModelWrapper(net, options)
        fresh = deepcopy(net.state_dict()), deepcopy(options.optimizer.state_dict())

        def fit():
            net.load_state_dict(fresh[0])
            options.optimizer.load_state_dict(fresh[1])
            wrapper.train_on_dataset(dataset)

        loop = ActiveLearningLoop(
            dataset,
            wrapper.predict_on_dataset,
            Margin(),
            query_size=data.batch_size,
            iterations=1,
        )
        for _ in range(data.n_rounds):
            fit()
            loop.step()
        fit()
        with torch.no_grad():
            predictions = net.eval()(torch.from_numpy(data.X_test)).argmax(1)
        return np.flatnonzero(dataset.labelled), data.accuracy(predictions)

    return run


@cell("small-text", "loop")
def small_text_loop(n, k):
    from skorch import NeuralNetClassifier
    from small_text import (
        BreakingTies,
        PoolBasedActiveLearner,
        SklearnClassifierFactory,
        SklearnDataset,
    )

    data = Digits()

    class Unweighted(NeuralNetClassifier):
        def fit(self, X, y, sample_weight=None):
            return super().fit(X, y)

    def run():
        pool = SklearnDataset(data.X, data.y, target_labels=np.arange(10))
        learner = PoolBasedActiveLearner(
            SklearnClassifierFactory(skorch_net(Unweighted), 10), BreakingTies(), pool
        )
        learner.initialize_data(data.initial, data.y[data.initial])
        for _ in range(data.n_rounds):
            picks = learner.query(data.batch_size)
            learner.update(data.y[picks])
        test = SklearnDataset(data.X_test, data.y_test, target_labels=np.arange(10))
        predictions = learner.classifier.predict(test)
        return learner.indices_labeled, data.accuracy(predictions)

    return run
