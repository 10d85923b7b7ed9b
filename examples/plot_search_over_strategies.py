"""
A search over strategies
========================

The loop is a scikit-learn meta-estimator, so GridSearchCV can compare strategies,
batch sizes, and parameters of the network inside.
"""

# %%
# Each candidate runs a whole loop on the training part of a split: three folds, three
# paired comparisons. The default scoring counts labelled rows only.
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, BadgeQuery, MarginQuery, RandomQuery
from skal.models import MLP

torch.set_num_threads(2)
X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")

net = NeuralNetClassifier(
    MLP,
    module__n_inputs=64,
    module__n_classes=10,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    max_epochs=20,
    batch_size=32,
    verbose=0,
)
loop = ActiveLearningLoop(net, RandomQuery(), batch_size=20, n_rounds=3, random_state=0)

# %%
# Nested parameters reach the strategy and the net; a list of grids keeps combinations
# apart that make no sense together.
search = GridSearchCV(
    loop,
    [
        {"strategy": [RandomQuery(), MarginQuery()], "estimator__lr": [0.002, 0.01]},
        {
            "strategy": [BadgeQuery()],
            "strategy__first": ["norm", "uniform"],
            "estimator__lr": [0.01],
        },
    ],
    cv=3,
)
search.fit(X, y)

# %%
# Means over three folds; the standard deviation says how much of a difference is noise.
results = pd.DataFrame(search.cv_results_)
columns = ["param_strategy", "param_estimator__lr", "param_strategy__first"]
print(results[[*columns, "mean_test_score", "std_test_score"]].to_string())
