"""
Log rounds and epochs
=====================

Two things repeat in a loop over a network: *rounds*, each with more labels, and in each
round the *epochs* of a fit from the start. Each has callbacks of its own:

===========  =================================  ===================================
..           callback of the loop               callback of skorch
===========  =================================  ===================================
acts         after each round                   after each batch or epoch of a fit
is given to  ``loop.set_callbacks``             ``NeuralNetClassifier(callbacks=)``
knows        the whole loop: labels bought,     the network in training, and its
             ``history_``, ``estimator_``       own ``history``
lives        as long as the loop                one round: it is cloned for each
stops        the loop, by returning True        the fit, as ``EarlyStopping`` does
base class   `skal.callbacks.RoundCallback`     `skorch.callbacks.Callback`
===========  =================================  ===================================

A log of accuracy against labels is one of the loop's. skorch's loggers log training
curves, a new one each round.
"""

# %%
# To a file
# ---------
# :class:`~skal.callbacks.CSVLogger` appends a line after each round. Several fits may
# share a file, as each line names strategy and seed: it is what the tools read that
# compare them.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochScoring
from torch import nn

from skal import ActiveLearningLoop
from skal.callbacks import CSVLogger, RoundCallback
from skal.plotting import LearningCurveDisplay

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
folder = Path(tempfile.mkdtemp())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x)))


net = NeuralNetClassifier(
    Net,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=0.005,
    max_epochs=30,
    verbose=0,
    # Of skorch: after each epoch, on the rows of the round.
    callbacks=[EpochScoring("accuracy", name="train_acc", on_train=True)],
)


def fit(strategy, seed, *callbacks):
    loop = ActiveLearningLoop(
        net, strategy, n_initial=20, batch_size=20, n_rounds=4, random_state=seed
    )
    loop.set_callbacks(*callbacks)  # Of the loop: after each round.
    return loop.fit(X[:1200], y[:1200], X_test=X[1200:], y_test=y[1200:])


for strategy in ("margin", "random"):
    for seed in range(2):
        loop = fit(strategy, seed, CSVLogger(folder / "rounds.csv"))
table = pd.read_csv(folder / "rounds.csv")
LearningCurveDisplay.from_records(table, score_name="test_score")
plt.show()

# %%
table.tail(3)

# %%
# What skorch's callback saw is in the history of the last round's network, by epoch.
loop.estimator_.history[-3:, ("epoch", "train_loss", "train_acc")]

# %%
# To a tracker
# ------------
# TensorBoard, MLflow and Weights & Biases are written by their own libraries, which
# ``pip install "skal[tensorboard]"`` and the like bring. The step is the number of
# labels:
#
# .. code-block:: python
#
#     from torch.utils.tensorboard import SummaryWriter
#
#     with SummaryWriter("runs/margin") as writer:
#         fit("margin", 0, TensorBoardLogger(writer))
#     # tensorboard --logdir runs
#
#     with mlflow.start_run():
#         fit("margin", 0, MLflowLogger())
#
#     with wandb.init(project="digits") as run:
#         fit("margin", 0, WandbLogger(run))
#
# For the epochs of each round give the loggers of skorch, such as
# ``skorch.callbacks.TensorBoard(writer)``, to the network, with the same writer.

# %%
# One of your own
# ---------------
# A subclass of :class:`~skal.callbacks.RoundCallback` writes `on_round`; returning True
# ends the loop. `skal.callbacks` has rules of when to stop, each with its paper.


class GoodEnough(RoundCallback):
    def on_round(self, loop):
        score = loop.history_["test_score"][-1]
        print(f"{len(loop.labeled_indices_)} labels: {score:.3f}")
        return score > 0.75


loop = fit("margin", 0, GoodEnough())
print(loop.termination_condition_)
