"""
Pictures of a loop
==================

What :mod:`skal.plotting` draws of a loop: the curve, where in the pool the purchases
lie and what is asked for now, and the images themselves. Every picture keeps its
numbers, which `frame` gives.
"""

# %%
# A few rounds on digits, with two strategies and three seeds. Colours and dashes are
# those of the reports of ``skal report``: told apart by the colour-blind, and in grey.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from skal import ActiveLearningLoop
from skal.plotting import LearningCurveDisplay, QueryMapDisplay, QuerySheetDisplay

X, y = load_digits(return_X_y=True)
X = X / 16
X_pool, y_pool, X_test, y_test = X[:1200], y[:1200], X[1200:], y[1200:]


def make_loop(strategy, seed, **options):
    options = {"n_initial": 15, "batch_size": 15, "n_rounds": 5, **options}
    return ActiveLearningLoop(
        LogisticRegression(max_iter=1000), strategy, random_state=seed, **options
    )


parts = []
for strategy in ("margin", "u-herding", "random"):
    for seed in range(3):
        loop = make_loop(strategy, seed)
        loop.fit(X_pool, y_pool, X_test=X_test, y_test=y_test)
        run = {"strategy": strategy, "seed": seed}
        parts.append(pd.DataFrame(loop.history_).assign(**run))
records = pd.concat(parts)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
display = LearningCurveDisplay.from_records(records, score_name="test_score", ax=left)
display.plot(right, gain=True)

# %%
# On the left means and their 95 % intervals over seeds; ``bands=False`` leaves those
# out, as several of them hide each other. On the right the same as differences from
# random, paired by seed: where an interval leaves out 0, the two differ there.
display.frame().round(3).head()

# %%
# Where the purchases lie
# -----------------------
# A person is asked, so there is a next query. The map has the two main axes of the
# rows; embeddings of your network, or coordinates of t-SNE, do as well.
answers = np.full(len(y_pool), -1)
loop = make_loop("u-herding", 0, oracle="ask", classes=range(10))
for _ in range(4):
    loop.fit(X_pool, answers)
    answers = loop.label(answers, loop.next_query_, y_pool[loop.next_query_])
loop.fit(X_pool, answers)
QueryMapDisplay.from_embeddings(X_pool, loop.labeled_iter_, next_query=loop.next_query_)

# %%
# What is asked for
# -----------------
# The images of the next query, with what the model takes them for and, as this is an
# example, the right answer. Wrong predictions are bold, their images framed.
rows = loop.next_query_
proba = loop.predict_proba(X_pool[rows])
QuerySheetDisplay.from_purchase(
    X_pool.reshape(-1, 8, 8),
    rows,
    y=y_pool,
    prediction=proba.argmax(axis=1),
    score=proba.max(axis=1),
)
plt.show()
