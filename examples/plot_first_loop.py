"""
A first loop
============

BADGE against random sampling on the digits of scikit-learn: the same network, the same
first ten labels, ten more labels a round.
"""

# %%
# A network, any network: its last layer is found by skal itself.
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, BadgeQuery, RandomQuery

torch.set_num_threads(2)
X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.2, stratify=y, random_state=0
)


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
    max_epochs=40,
    batch_size=32,
    verbose=0,
)

# %%
# One loop per strategy. The test rows are scored after each round, never trained on.
histories = {}
for name, strategy in {"BADGE": BadgeQuery(), "random": RandomQuery()}.items():
    loop = ActiveLearningLoop(net, strategy, n_rounds=8, random_state=0)
    loop.fit(X_train, y_train, X_test=X_test, y_test=y_test)
    histories[name] = loop.history_
    print(name, loop.history_["test_score"].round(3))

# %%
# One seed proves little; see the README for ten.
try:
    import matplotlib.pyplot as plt
except ImportError:
    print('pip install "skal[plot]" for the picture')
else:
    for name, history in histories.items():
        plt.plot(history["n_labeled"], history["test_score"], "o-", label=name)
    plt.xlabel("labels")
    plt.ylabel("test accuracy")
    plt.legend()
    plt.show()
