"""Private clones, and fits that leave no trace."""

import copy
import pickle
import random
import signal
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    LRScheduler,
    ParamMapper,
)
from skorch.dataset import ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import (
    DataLoader,
    SequentialSampler,
    TensorDataset,
)

from skal.net import training
from skal.net.training import (
    BatchLoader,
    CastInputs,
    TrainLoader,
    extend_net,
    final_estimator,
    fit_isolated,
    is_net,
    label_dtype,
    net_to_prepare,
    private_clone,
    warn_of_instances,
)


class Small(nn.Module):
    def __init__(self, n_outputs=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_outputs)
        )

    def forward(self, x):
        return self.layers(x)


class UsersNet(NeuralNetClassifier):
    """A net class of the user, with a parameter of its own."""

    def __init__(self, *args, extra=1, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = extra


class Own(Callback):
    """Reads validation scores in a way that no parameter tells."""

    def on_epoch_end(self, net, **kwargs):
        net.history[-1, "valid_loss"]


class OwnStopping(EarlyStopping):
    pass


class Louder:
    def shout(self):
        return "loud"


def make_net(net_class=NeuralNetClassifier, module=Small, **params):
    defaults = dict(criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0)
    if net_class is NeuralNetBinaryClassifier:
        del defaults["criterion"]
    return net_class(module, **{**defaults, **params})


def data(n=20, dtype=np.float32):
    X = np.random.default_rng(0).standard_normal((n, 4)).astype(dtype)
    return X, np.arange(n) % 3


def test_a_net_trains_on_every_row_but_never_on_one_alone():
    X, y = data(9)
    net = private_clone(make_net(batch_size=4), 3)
    fit_isolated(net, X, y, 0)
    assert [b["train_batch_size"] for b in net.history[-1, "batches"]] == [4, 5]
    net = private_clone(make_net(batch_size=100, iterator_train__drop_last=True), 3)
    with pytest.raises(ValueError, match="drop_last"):
        fit_isolated(net, X, y, 0)


# -- private clones -------------------------------------------------------------------


@pytest.mark.parametrize("net_class", [NeuralNetClassifier, NeuralNetBinaryClassifier])
def test_the_default_train_split_is_gone(net_class):
    net = make_net(net_class)
    assert private_clone(net, 2).train_split is None
    assert net.train_split is not None
    assert type(net) is net_class


@pytest.mark.parametrize(
    "split", [ValidSplit(3), ValidSplit(0.2), ValidSplit(0.2, random_state=0), None]
)
def test_an_explicit_split_is_kept(split):
    private = private_clone(make_net(train_split=split), 3)
    assert type(private.train_split) is type(split)
    if split is not None:
        assert private.train_split.cv == split.cv


def test_a_predefined_split_is_kept():
    split = predefined_split(TensorDataset(torch.ones(2, 4), torch.zeros(2)))
    assert callable(private_clone(make_net(train_split=split), 3).train_split)


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, False),
        ({"callbacks": None}, False),
        ({"callbacks": "disable"}, False),
        ({"callbacks": [EarlyStopping()]}, True),
        ({"callbacks": [EarlyStopping]}, True),
        ({"callbacks": [("stop", EarlyStopping(monitor="valid_acc"))]}, True),
        ({"callbacks": [EarlyStopping(monitor="train_loss")]}, False),
        ({"callbacks": [Checkpoint()]}, True),
        ({"callbacks": [Checkpoint(monitor=None)]}, False),
        ({"callbacks": [EpochScoring("f1_macro")]}, True),
        ({"callbacks": [EpochScoring("f1_macro", on_train=True)]}, False),
        ({"callbacks": [LRScheduler("StepLR", step_size=1)]}, False),
        (
            {"callbacks": [LRScheduler("ReduceLROnPlateau", monitor="valid_loss")]},
            True,
        ),
        (
            {
                "callbacks": [("stop", EarlyStopping(monitor="train_loss"))],
                "callbacks__stop__monitor": "valid_loss",
            },
            True,
        ),
        ({"callbacks": [Callback()]}, False),
        ({"callbacks": [Own()]}, True),
        ({"callbacks": [OwnStopping(monitor="train_loss")]}, True),
        ({"callbacks": [Checkpoint(monitor=lambda net: True)]}, True),
        ({"callbacks": [ParamMapper("*", schedule=lambda net: None)]}, True),
        ({"callbacks": [("stop", EarlyStopping())], "callbacks__stop": None}, True),
    ],
)
def test_a_split_that_callbacks_watch_is_kept(params, kept):
    private = private_clone(make_net(**params), 3)
    assert (private.train_split is not None) == kept


def test_early_stopping_on_validation_loss_works():
    X, y = data(60)
    stop = EarlyStopping(patience=1, threshold=10.0, sink=lambda text: None)
    net = private_clone(make_net(callbacks=[stop], max_epochs=50), 3)
    fit_isolated(net, X, y, 0)
    assert len(net.history) < 50


@pytest.mark.parametrize(
    ("given", "shuffle"),
    [
        ({}, True),
        ({"iterator_train__shuffle": False}, False),
        ({"iterator_train__sampler": SequentialSampler(range(9))}, None),
        ({"iterator_train__batch_size": 5}, True),
    ],
)
def test_training_rows_are_shuffled_unless_the_user_chose(given, shuffle):
    private = private_clone(make_net(**given), 3)
    assert private.get_params_for("iterator_train").get("shuffle") == shuffle
    assert private.iterator_train is TrainLoader
    assert private.iterator_valid is BatchLoader


def test_a_loader_of_the_user_is_kept():
    class Mine(DataLoader):
        pass

    private = private_clone(make_net(iterator_train=Mine), 3)
    assert private.iterator_train is Mine
    assert "shuffle" not in private.get_params_for("iterator_train")


def test_classes_are_set_and_the_callers_net_is_not_touched():
    net = make_net()
    before = net.get_params(deep=False)
    private = private_clone(net, 7)
    assert private.classes == list(range(7))
    assert net.get_params(deep=False) == before
    assert private is not net


@pytest.mark.parametrize("wrap", ["pipeline", "search", "both"])
def test_the_net_inside_is_reached(wrap):
    estimator = make_net()
    if wrap != "search":
        estimator = make_pipeline(StandardScaler(), estimator)
    if wrap != "pipeline":
        estimator = GridSearchCV(estimator, {}, cv=2)
    final = final_estimator(private_clone(estimator, 3))
    assert final.train_split is None
    assert isinstance(final, CastInputs)
    assert not isinstance(final_estimator(estimator), CastInputs)


def test_search_objects_clone_the_extended_net():
    X, y = data(30, np.float64)
    search = private_clone(GridSearchCV(make_net(), {"lr": [0.1, 0.01]}, cv=2), 3)
    fit_isolated(search, X, y, 0)
    assert isinstance(search.best_estimator_, CastInputs)
    assert search.best_estimator_.train_split is None
    assert final_estimator(search) is search.best_estimator_
    assert search.predict_proba(X).shape == (30, 3)


def test_other_estimators_are_only_cloned():
    model = LogisticRegression(C=3.0)
    private = private_clone(model, 3)
    assert private is not model
    assert private.get_params() == model.get_params()
    assert not is_net(private)


def test_warm_start():
    assert private_clone(make_net(), 3, warm_start=True).warm_start
    assert private_clone(SGDClassifier(), 3, warm_start=True).warm_start
    with pytest.raises(ValueError, match="GaussianNB has none"):
        private_clone(GaussianNB(), 3, warm_start=True)
    with pytest.raises(ValueError, match="old trees"):
        private_clone(RandomForestClassifier(), 3, warm_start=True)


def test_a_module_instance_warns():
    with pytest.warns(UserWarning, match="module is an instance"):
        warn_of_instances(make_net(module=Small()))
    with pytest.warns(UserWarning, match="module is an instance"):
        warn_of_instances(make_pipeline(StandardScaler(), make_net(module=Small())))
    warn_of_instances(make_net())
    warn_of_instances(LogisticRegression())


def test_label_dtype():
    assert label_dtype(make_net()) is np.int64
    assert label_dtype(make_net(NeuralNetBinaryClassifier)) is np.float32
    assert label_dtype(make_pipeline(make_net(NeuralNetBinaryClassifier))) is np.float32
    assert label_dtype(LogisticRegression()) is np.int64


# -- extended nets --------------------------------------------------------------------


def extended():
    return extend_net(
        extend_net(make_net(UsersNet, extra=4, lr=0.5), CastInputs), Louder
    )


def test_an_extended_net_is_still_the_users():
    net = extended()
    assert isinstance(net, UsersNet)
    assert isinstance(net, CastInputs)
    assert isinstance(net, Louder)
    assert type(net).__name__ == "UsersNet"
    assert type(net) is type(extended())
    assert type(extend_net(net, Louder)) is type(extended())
    assert net.get_params()["extra"] == 4
    assert net.get_params().keys() == make_net(UsersNet).get_params().keys()


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(
    "duplicate",
    [lambda net: pickle.loads(pickle.dumps(net)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)
def test_an_extended_net_can_be_duplicated(duplicate, fitted):
    X, y = data()
    net = extended()
    if fitted:
        net.set_params(train_split=None).fit(X, y)
    other = duplicate(net)
    assert type(other) is type(net)
    assert other.shout() == "loud"
    assert (other.extra, other.lr) == (4, 0.5)
    if fitted:
        np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))


def test_an_extended_net_can_be_cloned_and_set():
    net = clone(extended())
    assert type(net) is type(extended())
    assert net.set_params(extra=5, module__n_outputs=7).extra == 5
    assert net.initialize().module_.layers[3].out_features == 7


def test_fewer_outputs_than_classes():
    X, y = data()
    net = private_clone(make_net(module__n_outputs=2), 3)
    with pytest.raises(ValueError, match="2 outputs, but there are 3 classes"):
        fit_isolated(net, X, y % 2, 0)


# -- casts ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8])
def test_a_private_net_casts_its_rows(dtype):
    X, y = data()
    X = (8 * X).astype(dtype)
    net = fit_isolated(private_clone(make_net(), 3), X, y, 0)
    np.testing.assert_array_equal(
        net.predict_proba(X), net.predict_proba(X.astype(np.float32))
    )


# -- fits -----------------------------------------------------------------------------


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def test_fits_are_seeded_and_leave_global_generators_alone():
    X, y = data()
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first, second, third = (
        weights(fit_isolated(private_clone(make_net(batch_size=4), 3), X, y, seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert states[0] == random.getstate()
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])
    assert torch.equal(states[2], torch.get_rng_state())


def test_fit_parameters_pass():
    X, y = data()
    model = fit_isolated(LogisticRegression(), X, y, 0, sample_weight=(y != 1) * 1.0)
    assert model.predict_proba(X)[:, 1].max() < 0.5


class Interrupting(Callback):
    """Sends a Ctrl-C in the second epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_raised_again():
    X, y = data()
    handler = signal.getsignal(signal.SIGINT)
    net = private_clone(make_net(callbacks=[Interrupting()], max_epochs=9), 3)
    with pytest.raises(KeyboardInterrupt):
        fit_isolated(net, X, y, 0)
    assert len(net.history) == 2
    assert signal.getsignal(signal.SIGINT) is handler


def test_early_stopping_is_no_ctrl_c():
    X, y = data()
    stop = EarlyStopping(
        monitor="train_loss", patience=1, threshold=10.0, sink=lambda text: None
    )
    net = private_clone(make_net(callbacks=[stop], max_epochs=50), 3)
    fit_isolated(net, X, y, 0)
    assert len(net.history) < 50


def test_a_handler_of_the_user_is_left_alone():
    X, y = data()
    hits = []
    old = signal.signal(signal.SIGINT, lambda signum, frame: hits.append(signum))
    try:
        net = private_clone(make_net(callbacks=[Interrupting()], max_epochs=4), 3)
        fit_isolated(net, X, y, 0)
    finally:
        signal.signal(signal.SIGINT, old)
    assert len(hits) == 1
    assert len(net.history) == 4


def test_handlers_and_generators_are_restored_after_an_error():
    X, y = data()
    handler, state = signal.getsignal(signal.SIGINT), torch.get_rng_state()
    with pytest.raises(ValueError, match="inconsistent"):
        fit_isolated(LogisticRegression(), X, y[1:], 0)
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.equal(torch.get_rng_state(), state)


def test_fits_in_other_threads():
    X, y = data()
    fitted = []
    thread = threading.Thread(
        target=lambda: fitted.append(
            fit_isolated(private_clone(make_net(), 3), X, y, 0)
        )
    )
    thread.start()
    thread.join()
    assert fitted[0].predict(X).shape == y.shape


def test_extended_classes_are_cached():
    extended()
    n_classes = len(training._EXTENDED)
    extended()
    assert len(training._EXTENDED) == n_classes


def test_a_net_to_prepare_is_found_and_not_compiled():
    net = NeuralNetClassifier(nn.Linear, compile=True)
    assert net_to_prepare(make_pipeline(StandardScaler(), net), "MyQuery") is net
    assert net.compile is False
    with pytest.raises(ValueError, match="MyQuery .* GridSearchCV"):
        net_to_prepare(GridSearchCV(net, {"lr": [0.1]}), "MyQuery")
