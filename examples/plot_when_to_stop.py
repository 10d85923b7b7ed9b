"""
When to stop, and how to go on
==============================

Labels cost money, so a fit should end when more of them change little, and it should
survive whatever happens to the machine meanwhile. Stopping rules are callbacks of the
loop; a checkpoint is a file.
"""

# %%
# Half of the digits are to be labelled, the others tell how good the models are.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from skal import ActiveLearningLoop, MarginQuery
from skal.callbacks import (
    ExpectedGain,
    LabelBudget,
    OverallUncertainty,
    ScorePlateau,
    StabilizingPredictions,
)

X, y = load_digits(return_X_y=True)
X = X / 16
X, y, X_test, y_test = X[:900], y[:900], X[900:], y[900:]


def make_loop(**options):
    return ActiveLearningLoop(
        LogisticRegression(C=10, max_iter=1000),
        MarginQuery(),
        n_initial=20,
        batch_size=20,
        classes=range(10),
        random_state=0,
        **options,
    )


# %%
# A fit that buys nearly all there is shows what further labels were worth.
whole = make_loop(n_rounds=35).fit(X, y, X_test=X_test, y_test=y_test)
print(whole.termination_condition_, "after", len(whole.labeled_indices_), "labels")

# %%
# Each rule ends a fit of its own; `termination_condition_` names it, and `reason_` says
# why. A budget knows costs, not the model. Agreement of successive models and their
# uncertainty need no label beside those bought. The score of test rows is for
# simulations; with people at work, ``cv=5`` cross-validates on what is labelled.
rules = [
    LabelBudget(300),
    StabilizingPredictions(0.99, patience=3),
    OverallUncertainty(0.15),
    ScorePlateau(patience=5),
    ExpectedGain(min_gain=0.001, min_rounds=4),
]
stops = {}
for rule in rules:
    loop = make_loop(n_rounds=35).set_callbacks(rule)
    loop.fit(X, y, X_test=X_test, y_test=y_test)
    history = loop.history_
    stops[loop.termination_condition_] = (
        history["n_labeled"][-1],
        history["test_score"][-1],
    )
    print(f"{loop.termination_condition_}: {rule.reason_}")

# %%
# Stopping late costs labels, stopping early accuracy.
figure, axes = plt.subplots(layout="constrained")
axes.plot(whole.history_["n_labeled"], whole.history_["test_score"], color="0.6")
for (name, point), marker in zip(stops.items(), "osD^v", strict=False):
    axes.plot(*point, marker, label=name, markersize=8)
axes.set(xlabel="labels", ylabel="accuracy on other rows")
axes.legend(loc="lower right")

# %%
# Now labels come from a service, which breaks down. With a checkpoint each answer is
# on the disk before the next question is asked.
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "digits.npz"
asked: list = []


def service(rows):
    if len(asked) == 3:
        asked.append([])
        raise ConnectionError("the service is down")
    asked.append(rows)
    return y[rows]


try:
    make_loop(oracle=service, n_rounds=4, checkpoint=path).fit(X)
except ConnectionError as error:
    print(error, "after", sum(map(len, asked)), "answers")

# %%
# The same call goes on, in another process, too, if this one was killed: nothing is
# asked again, and the model is that of a fit without interruption, bit for bit.
loop = make_loop(oracle=service, n_rounds=4, checkpoint=path).fit(X)
rows = np.concatenate(asked)
print(len(rows), "answers, of", len(np.unique(rows)), "rows")

quiet = make_loop(oracle=lambda rows: y[rows], n_rounds=4).fit(X)
print(np.array_equal(loop.predict_proba(X_test), quiet.predict_proba(X_test)))

# %%
# With other data or parameters it is refused, since the answers would not fit.
try:
    make_loop(oracle=service, n_rounds=4, checkpoint=path).fit(X_test)
except ValueError as error:
    print(error)
folder.cleanup()
