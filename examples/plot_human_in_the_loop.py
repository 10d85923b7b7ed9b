"""
A person in the loop
====================

Without a complete `y` the loop asks. It trains on what is labelled, says which rows to
label next, and stops. All state is in `y`: save it, and nothing can be lost.
"""

# %%
# Nothing is labelled yet: -1 everywhere.
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from skal import ActiveLearningLoop, MarginQuery

X, truth = load_digits(return_X_y=True)
X = X / 16
y = np.full(len(X), -1)


def ask_a_person(row):
    """Show `X[row].reshape(8, 8)` and wait for an answer; here we know it."""
    return truth[row]


# %%
# Ask, label, tell: `label` writes the answers into a copy of `y`, by position, and a
# further `fit` goes on. Rows that nobody can decide go into ``fit(X, y, skip=rows)``.
# Until two classes are labelled no model is trained, and `next_query_` comes from the
# initial set.
loop = ActiveLearningLoop(
    LogisticRegression(max_iter=1000),
    MarginQuery(),
    batch_size=10,
    n_initial=20,
    classes=range(10),
    oracle="ask",
    random_state=0,
)
for _ in range(6):
    loop.fit(X, y)
    rows = loop.next_query_
    y = loop.label(y, rows, [ask_a_person(row) for row in rows])
    print(f"{(y >= 0).sum():3d} labels")

# %%
# Unlabelled rows are left out of the score.
loop.fit(X, y)
print("labels by round:", loop.history_["n_labeled"])
print("accuracy on all rows:", round(loop.score(X, truth), 3))

# %%
# Or let a function answer, for a labelling service: it gets row numbers, and may skip a
# row by answering `missing_label`. What was bought stays in `transduction_`, whatever
# happens.


def service(rows):
    return [-1 if row % 50 == 0 else truth[row] for row in rows]


loop = ActiveLearningLoop(
    LogisticRegression(max_iter=1000),
    MarginQuery(),
    n_initial=20,
    n_rounds=5,
    classes=range(10),
    oracle=service,
    random_state=0,
)
loop.fit(X)
print(loop.history_["n_labeled"], "accuracy:", round(loop.score(X, truth), 3))
