"""Stopping rules: by hand, by brute force, at the edges, and in the loop."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import TensorDataset

from skal import ActiveLearningLoop, EntropyQuery, MarginQuery, PoolView, RandomQuery
from skal.callbacks import (
    ExpectedGain,
    LabelBudget,
    MaximumUncertainty,
    OverallUncertainty,
    Round,
    ScorePlateau,
    StabilizingPredictions,
    StoppingRule,
)
from skal.callbacks._score_rules import cross_validated, expected_gain
from skal.callbacks._stopping import agreement

X, Y = load_digits(return_X_y=True)
X, Y = (X[:300] / 16).astype(np.float32), Y[:300]
ROWS = np.arange(20)


def make_round(number, n_labeled=5, **options):
    return Round(
        number=number, labeled=ROWS[:n_labeled], rows=ROWS[n_labeled:], **options
    )


def make_loop(estimator=None, strategy=None, **options):
    options = {"n_initial": 20, "n_rounds": 30, "random_state": 0} | options
    estimator = LogisticRegression(max_iter=500) if estimator is None else estimator
    return ActiveLearningLoop(estimator, strategy or MarginQuery(), **options)


# -- agreement ----------------------------------------------------------------------


def test_kappa_by_hand():
    # Of 20 rows 15 agree. By chance it would be .5 * .45 + .5 * .55.
    first = np.repeat([0, 1], 10)
    second = np.repeat([0, 1, 0, 1], [7, 3, 2, 8])
    rows = np.arange(20)
    kappa = (0.75 - 0.5) / (1 - 0.5)
    assert agreement(rows, first, rows, second) == pytest.approx(kappa)


def test_kappa_is_over_common_rows_wherever_they_stand():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows, others = (rng.permutation(30)[:20] for _ in range(2))
        first, second = (rng.integers(0, 3, 20) for _ in range(2))
        a, b = (
            dict(zip(*pair, strict=True)) for pair in [(rows, first), (others, second)]
        )
        pairs = [(a[row], b[row]) for row in a if row in b]
        p = np.mean([i == j for i, j in pairs])
        chance = sum(
            np.mean([i == k for i, _ in pairs]) * np.mean([j == k for _, j in pairs])
            for k in range(3)
        )
        expected = (p - chance) / (1 - chance)
        assert agreement(rows, first, others, second) == pytest.approx(expected)


def test_f_measures_of_models_that_agree_are_close():
    """Bloodgood and Grothendieck (2013): at most 4 (1 - T) / T apart."""
    rng = np.random.default_rng(1)
    truth, rows = rng.integers(0, 2, 200), np.arange(200)

    def f_measure(guesses):
        return 2 * (guesses & truth).sum() / (guesses.sum() + truth.sum())

    for share in np.repeat([0.01, 0.05, 0.1, 0.2], 25):
        first = np.where(rng.random(200) < 0.3, 1 - truth, truth)
        second = np.where(rng.random(200) < share, 1 - first, first)
        kappa = agreement(rows, first, rows, second)
        assert abs(f_measure(first) - f_measure(second)) <= 4 * (1 - kappa) / kappa


def test_one_class_only_is_no_agreement():
    rule = StabilizingPredictions(patience=1)
    for number in range(3):
        assert not rule.update(make_round(number, guesses=np.zeros(15, dtype=int)))
    assert rule.values_[1:] == [0.0, 0.0]
    empty = np.empty(0, dtype=int)
    assert agreement(empty, empty, ROWS, ROWS) == 0.0


def test_last_comparisons_are_averaged():
    rule, guesses = StabilizingPredictions(0.6, patience=2), np.arange(15) % 2
    other = guesses.copy()
    other[:3] = 1 - other[:3]
    assert not rule.update(make_round(0, guesses=guesses))
    assert not rule.update(make_round(1, guesses=1 - guesses))
    assert rule.values_[1] < 0
    assert not rule.update(make_round(2, guesses=1 - guesses))
    assert rule.update(make_round(3, guesses=1 - other))
    kappa = agreement(ROWS[5:], guesses, ROWS[5:], other)
    assert rule.values_[2:] == pytest.approx([1.0, kappa])
    assert f"{(1 + kappa) / 2:.3f} on average over 2 of 2" in rule.reason_


def test_the_same_round_is_compared_with_the_one_before():
    first, rng = np.arange(15) % 3, np.random.default_rng(0)
    rule, second = StabilizingPredictions(patience=1), rng.permutation(first)
    rule.update(make_round(0, guesses=first))
    for _ in range(3):
        assert not rule.update(make_round(1, guesses=second))
    assert len(rule.values_) == 2
    kappa = agreement(ROWS[5:], first, ROWS[5:], second)
    assert rule.values_[1] == pytest.approx(kappa)
    rule.update(make_round(0, guesses=second))  # begins anew
    assert np.isnan(rule.values_) and rule.rounds_ == [0]


def test_names_of_classes_are_compared_as_codes_are():
    rule, names = StabilizingPredictions(patience=1), np.array(["ant", "bee", "cat"])
    for number in range(2):
        rule.update(make_round(number, guesses=names[np.arange(15) % 3]))
    assert rule.values_[1] == 1.0 and rule.stopped_


# -- uncertainty --------------------------------------------------------------------


def test_entropy_is_of_all_classes_alike_at_most():
    proba = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]])
    seen = Round(number=0, labeled=ROWS[:2], rows=ROWS[2:5], proba=proba)
    for cls, value in [(OverallUncertainty, 0.5), (MaximumUncertainty, 1.0)]:
        assert cls(value).update(seen)
        rule = cls(value - 0.01)
        assert not rule.update(seen)
        assert rule.values_ == [pytest.approx(value)]


def test_nan_probabilities_are_an_error():
    proba = np.full((15, 2), np.nan)
    for rule in (OverallUncertainty(), StabilizingPredictions()):
        with pytest.raises(ValueError, match="NaN"):
            rule.update(make_round(0, proba=proba))


def test_a_model_of_one_class_is_not_sure():
    rule = OverallUncertainty()
    assert not rule.update(make_round(0, proba=np.ones((15, 1))))


# -- budgets ------------------------------------------------------------------------


@pytest.mark.parametrize("budget, n_labels", [(20, 20), (29, 20), (55, 50), (5, 20)])
def test_no_batch_exceeds_the_budget(budget, n_labels):
    loop = make_loop().set_callbacks(LabelBudget(budget)).fit(X, Y)
    assert len(loop.labeled_indices_) == n_labels
    assert loop.termination_condition_ == "LabelBudget"


def test_costs_are_those_of_the_rows():
    costs = np.random.default_rng(0).integers(1, 9, len(X))
    rule = LabelBudget(200, costs=costs)
    loop = make_loop(batch_size=5).set_callbacks(rule).fit(X, Y)
    spent = costs[loop.labeled_indices_].sum()
    assert rule.values_[-1] == spent <= 200
    dearest = np.sort(costs[loop.labeled_iter_ < 0])[-5:].sum()
    assert spent + dearest > 200 and f"cost {dearest}" in rule.reason_
    with pytest.raises(ValueError, match="one entry for each row"):
        make_loop().set_callbacks(LabelBudget(200, costs=costs[:9])).fit(X, Y)
    with pytest.raises(ValueError, match="negative"):
        make_loop().set_callbacks(LabelBudget(9, costs=-costs)).fit(X, Y)


# -- scores -------------------------------------------------------------------------


def test_plateau_counts_rounds_since_the_best():
    scores = [0.5, 0.7, 0.6, 0.71, 0.715, 0.7, 0.72]
    for min_gain, patience, end in [(0, 2, None), (0, 1, 2), (0.02, 3, 4), (0.1, 2, 3)]:
        rule = ScorePlateau("s", min_gain=min_gain, patience=patience)
        met = [
            number
            for number, score in enumerate(scores)
            if rule.update(make_round(number, scores={"s": score}))
        ]
        assert (met or [None])[0] == end


def test_unknown_column_is_named():
    rule = ScorePlateau()
    with pytest.raises(ValueError, match="'test_score' is no column .*give fit X_test"):
        make_loop().set_callbacks(rule).fit(X, Y)


@pytest.mark.parametrize("c", [0.1, 0.5, 1.0, 3.0])
def test_power_law_is_found_again(c):
    n = np.arange(10, 110, 10)
    gain = expected_gain(n, 0.9 - 0.8 * n**-c, 20)
    assert gain == pytest.approx(0.8 * (100**-c - 120**-c), rel=0.02, abs=1e-6)


def test_no_gain_is_expected_of_a_curve_that_does_not_rise():
    n = np.array([10, 20, 30, 40, 50])
    assert expected_gain(n, np.full(5, 0.8), 10) == pytest.approx(0, abs=1e-9)
    assert expected_gain(n, np.linspace(0.9, 0.5, 5), 10) == 0.0


def test_gain_is_that_of_the_batch_size():
    n = np.arange(1, 8) * 10
    for batch_size, ends in [(1, True), (1000, False)]:
        rule = ExpectedGain("s", min_gain=0.002, min_rounds=7)
        for number, n_labeled in enumerate(n):
            rows = np.arange(200)
            labeled, left = rows[:n_labeled], rows[n_labeled:]
            seen = Round(
                number=number,
                labeled=labeled,
                rows=left,
                batch_size=batch_size,
                scores={"s": 0.9 - 2 / n_labeled},
            )
            met = rule.update(seen)
            assert met == (ends and number == 6)


def test_cross_validated_accuracy_is_that_of_plain_folds():
    model = LogisticRegression(max_iter=500).fit(X[:60], Y[:60])
    pool = PoolView(model, X[60:], X_labeled=X[:60], y_labeled=Y[:60], random_state=7)
    folds = StratifiedKFold(3, shuffle=True, random_state=7).split(X[:60], Y[:60])
    n_right = 0
    for train, test in folds:
        fitted = LogisticRegression(max_iter=500).fit(X[train], Y[train])
        n_right += (fitted.predict(X[test]) == Y[test]).sum()
    assert cross_validated(pool, 3) == n_right / 60
    few = PoolView(model, X, X_labeled=X[:9], y_labeled=np.arange(9), random_state=7)
    assert np.isnan(cross_validated(few, 3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(64, 16), nn.Linear(16, 10)
        self.n_rows = 0

    def forward(self, x):
        self.n_rows += len(x)
        return self.head(torch.relu(self.hidden(x)))


def make_net(**options):
    loss, adam = nn.CrossEntropyLoss, torch.optim.Adam
    return NeuralNetClassifier(
        Net, criterion=loss, optimizer=adam, lr=0.01, max_epochs=2, verbose=0, **options
    )


@pytest.mark.parametrize("rows", [X, TensorDataset(torch.from_numpy(X))])
def test_a_net_is_cross_validated(rows):
    rule = ScorePlateau(cv=2, patience=1, min_gain=1.0)
    loop = make_loop(make_net(), n_rounds=3).set_callbacks(rule).fit(rows, Y)
    assert loop.termination_condition_ == "ScorePlateau" and loop.n_iter_ == 1
    assert all(0 <= value <= 1 for value in rule.values_)


# -- in the loop --------------------------------------------------------------------


def test_the_rule_that_ended_the_run_is_named():
    never, soon = OverallUncertainty(0), StabilizingPredictions(0.7, patience=2)
    loop = make_loop().set_callbacks(never, soon).fit(X, Y)
    assert loop.termination_condition_ == "StabilizingPredictions"
    assert loop.n_iter_ == len(soon.values_) - 1 < 30
    assert np.mean(soon.values_[-2:]) >= 0.7 and soon.stopped_ and not never.stopped_
    again = make_loop().fit(X, Y)  # what was bought is not changed by being watched
    n_labels = len(loop.labeled_indices_)
    assert np.array_equal(again.labeled_indices_[:n_labels], loop.labeled_indices_)
    loop.fit(X, Y)  # the rule begins anew
    assert loop.termination_condition_ == "StabilizingPredictions"
    assert loop.n_iter_ == len(soon.values_) - 1
    assert loop.pool_ is None


def test_agreement_is_of_the_rows_left():
    rule = StabilizingPredictions(1.0, patience=9)
    loop = make_loop(n_rounds=1).set_callbacks(rule).fit(X, Y)
    earlier = make_loop(n_rounds=0).fit(X, Y)
    left = np.flatnonzero(loop.labeled_iter_ < 0)
    guesses = [each.predict(X[left]) for each in (earlier, loop)]
    assert rule.values_[1] == agreement(left, guesses[0], left, guesses[1])


def test_own_rule():
    class Enough(StoppingRule):
        def _measure(self, seen):
            return len(seen.labeled)

        def _reached(self):
            return self.values_[-1] >= 40

    loop = make_loop().set_callbacks(Enough()).fit(X, Y)
    assert loop.termination_condition_ == "Enough" and loop.n_iter_ == 2


@pytest.mark.parametrize("strategy", [EntropyQuery(), RandomQuery()])
def test_rules_read_the_pass_of_the_strategy(strategy):
    n_rows = []
    for rules in ([], [StabilizingPredictions(1.0), OverallUncertainty(0.0)]):
        loop = make_loop(make_net(warm_start=True), strategy, n_rounds=2)
        loop.set_params(warm_start=True).set_callbacks(*rules).fit(X, Y)
        n_rows.append(loop.estimator_.module_.n_rows)
    plain, watched = n_rows
    pools = 0 if isinstance(strategy, EntropyQuery) else 280 + 270 + 260
    # Entropy makes no pass over the last pool, since nothing is bought from it.
    pools = 260 if isinstance(strategy, EntropyQuery) else pools
    assert watched - plain == pools


def test_the_pool_may_run_out():
    rules = [StabilizingPredictions(1.0), OverallUncertainty(0), ExpectedGain(cv=2)]
    rules[2].min_gain = 0.0
    loop = make_loop(n_rounds=None, batch_size=50)
    loop.set_callbacks(*rules).fit(X[:100], Y[:100])
    assert loop.termination_condition_ == "pool_exhausted"
    assert len(loop.labeled_indices_) == 100


def test_without_probabilities_predictions_are_compared():
    rule = StabilizingPredictions(0.01, patience=1)
    model = make_pipeline(StandardScaler(), LinearSVC())
    loop = make_loop(model, RandomQuery(), n_rounds=3).set_callbacks(rule).fit(X, Y)
    assert loop.n_iter_ == 1 and rule.values_[1] > 0


def test_in_ask_mode_the_rule_goes_on_over_fits():
    rule = StabilizingPredictions(0.5, patience=2)
    loop, y = make_loop(oracle="ask", classes=range(10)).set_callbacks(rule), None
    y = np.where(np.arange(300) < 30, Y, -1)
    for number in range(3):
        for _ in range(2):  # asked again, it is the same round
            loop = pickle.loads(pickle.dumps(loop)).fit(X, y)
            (rule,) = loop._skl_callbacks
            assert len(rule.values_) == number + 1
        ended = loop.termination_condition_ == "StabilizingPredictions"
        assert ended == rule.stopped_ == (number == 2)
        assert len(loop.next_query_) == 10  # a person may go on
        y = loop.label(y, loop.next_query_, Y[loop.next_query_])


def test_state_is_given_and_taken():
    rules = [StabilizingPredictions(1.0, patience=2), ExpectedGain("s", min_rounds=3)]
    for rule in rules:
        for number in range(3):
            guesses = np.roll(np.arange(15) % 3, number // 2)
            seen = make_round(number, number + 5, scores={"s": number / 9})
            seen.guesses = guesses[: 15 - number]
            rule.update(seen)
        state = rule.get_state()
        other = type(rule)(**rule.get_params())
        other.set_state(state)
        seen = make_round(3, 9, scores={"s": 0.4}, guesses=np.arange(11) % 3)
        assert rule.update(seen) == other.update(seen)
        np.testing.assert_equal(other.values_, rule.values_)
        assert not any(array.dtype.hasobject for array in state.values())


@pytest.mark.parametrize(
    "rule, match",
    [
        (StabilizingPredictions(1.5), "threshold"),
        (StabilizingPredictions(patience=0), "patience"),
        (LabelBudget(-1), "budget"),
        (OverallUncertainty(2), "threshold"),
        (ScorePlateau(cv=1), "cv"),
        (ExpectedGain(min_rounds=2), "min_rounds"),
    ],
)
def test_bad_parameters_are_named_before_anything_is_trained(rule, match):
    class Untrained(LogisticRegression):
        def fit(self, X, y):
            raise AssertionError

    with pytest.raises(ValueError, match=match):
        make_loop(Untrained()).set_callbacks(rule).fit(X, Y)


def test_rules_are_for_the_loop():
    callback = pytest.importorskip("sklearn.callback")
    assert isinstance(LabelBudget(1), callback.FitCallback)
    with pytest.raises(TypeError, match="callback of an ActiveLearningLoop"):
        LabelBudget(1).setup(LogisticRegression(), None)
