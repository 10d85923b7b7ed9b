"""What parameters say of classes, they say of the caller's labels."""

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, RandomQuery
from skal.loop.class_params import coded_params

RNG = np.random.default_rng(0)
CODES = np.arange(90) % 3
X = (RNG.normal(size=(90, 3)) + CODES[:, None] * 0.7).astype(np.float32)
NAMES = np.array(["a", "b", "c"])[CODES]


def make_loop(estimator, **kwargs):
    options = {"n_initial": 90, "n_rounds": 0, "random_state": 0}
    return ActiveLearningLoop(estimator, RandomQuery(), **(options | kwargs))


@pytest.mark.parametrize(
    ("weights", "labels"),
    [
        ({2: 50.0}, CODES + 1),
        ({1: 1.0, 2: 1.0, 3: 50.0}, CODES + 1),
        ({"c": 50.0}, NAMES),
        ({np.int64(20): 9}, CODES * 10),
        ({2.0: 9}, CODES + 1),
        ("balanced", NAMES),
        (None, NAMES),
    ],
)
def test_class_weights_are_those_of_the_labels(weights, labels):
    plain = LogisticRegression(class_weight=weights)
    loop = make_loop(plain).fit(X, labels)
    assert (loop.predict(X) == plain.fit(X, labels).predict(X)).all()
    assert plain.class_weight is weights


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: make_pipeline(StandardScaler(), inner),
        lambda inner: GridSearchCV(inner, {"C": [1.0]}, cv=2),
        lambda inner: GridSearchCV(
            LogisticRegression(), {"class_weight": [inner.class_weight]}, cv=2
        ),
        lambda inner: GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression()),
            [{"logisticregression__class_weight": (inner.class_weight,)}],
            cv=2,
        ),
        lambda inner: CalibratedClassifierCV(inner, cv=2),
    ],
)
def test_class_weights_inside_other_estimators(wrap):
    wrapped = wrap(LogisticRegression(class_weight={"b": 50.0}))
    loop = make_loop(wrapped).fit(X, NAMES)
    assert (loop.predict(X) == wrapped.fit(X, NAMES).predict(X)).all()


@pytest.mark.parametrize("names", [np.array([1, 2]), np.array(["no", "yes"])])
@pytest.mark.parametrize("code", [0, 1])
def test_the_class_of_a_threshold_is_a_label(names, code):
    """Of labels 1 and 2 the code 1 would be that of the other one."""
    y = names[CODES % 2]
    plain = FixedThresholdClassifier(
        LogisticRegression(), threshold=0.8, pos_label=names[code].item()
    )
    loop = make_loop(plain).fit(X, y)
    assert (loop.predict(X) == plain.fit(X, y).predict(X)).all()
    with pytest.raises(ValueError, match="pos_label=.*the classes are"):
        make_loop(plain.set_params(pos_label="other")).fit(X, y)


def test_a_class_that_is_not_bought_yet_may_have_a_weight():
    forest = RandomForestClassifier(3, class_weight={"c": 9})
    loop = make_loop(forest, initial=[0, 1, 3, 4]).fit(X, NAMES)
    assert loop.estimator_.class_weight == {0: 1, 1: 1}
    loop = make_loop(forest, initial=[0, 1, 2]).fit(X, NAMES)
    assert loop.estimator_.class_weight == {0: 1, 1: 1, 2: 9}


def test_weights_of_missing_classes_where_the_estimator_refuses_them():
    lightgbm = pytest.importorskip("lightgbm")
    forest = lightgbm.LGBMClassifier(n_estimators=2, class_weight={"c": 9}, verbose=-1)
    loop = make_loop(forest, initial=[0, 1, 3, 4]).fit(X, NAMES)
    assert loop.predict_proba(X).shape == (90, 3)


@pytest.mark.parametrize(
    ("weights", "options"),
    [
        ({"d": 2}, {}),
        ({0: 2}, {}),
        ({"d": 2}, {"oracle": "ask", "classes": ["a", "b", "c"]}),
        ({0: 2}, {"oracle": "ask"}),
    ],
)
def test_labels_that_are_no_classes_are_named(weights, options):
    pipe = make_pipeline(StandardScaler(), LogisticRegression(class_weight=weights))
    with pytest.raises(ValueError, match=f"class_weight=.*names .{[*weights][0]!r}"):
        make_loop(pipe, **options).fit(X, NAMES)


def test_a_class_to_come_may_have_a_weight():
    y = np.where(CODES < 2, NAMES.astype(object), -1)
    loop = make_loop(LogisticRegression(class_weight={"c": 9, "b": 2})).fit(X, y)
    assert loop.estimator_.class_weight == {0: 1, 1: 2}


def make_net(weight):
    return NeuralNetClassifier(
        nn.Linear,
        module__in_features=3,
        module__out_features=3,
        criterion=nn.CrossEntropyLoss,
        criterion__weight=weight,
        max_epochs=1,
        verbose=0,
    )


def test_weights_of_a_criterion_are_in_sorted_order():
    weight = torch.tensor([1.0, 2.0, 30.0])
    loop = make_loop(make_net(weight)).fit(X, NAMES)
    assert loop.estimator_.criterion_.weight.tolist() == [1, 2, 30]
    with pytest.raises(ValueError, match="criterion__weight has 3 entries.*classes"):
        make_loop(make_net(weight)).fit(X, np.where(CODES < 2, CODES, -1))
    with pytest.raises(ValueError, match="sorted order"):
        make_loop(make_net(weight), classes=["c", "b", "a"]).fit(X, NAMES)


def test_order_of_classes_that_appeared_later():
    classes = np.array(["a", "c", "b"])
    assert coded_params(make_net(None), classes) == {}
    with pytest.raises(ValueError, match="sorted order"):
        coded_params(make_net(torch.ones(3)), classes)
    weighted = make_pipeline(LogisticRegression(class_weight={"c": 5}))
    params = coded_params(weighted, classes)
    assert params == {"logisticregression__class_weight": {0: 1, 1: 5, 2: 1}}
