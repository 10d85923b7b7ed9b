"""
Your own network
================

Any skorch net works as it is: skal finds the last layer and takes its input as the
embedding. Here an image network, and a network inside a Pipeline.
"""

# %%
# An ordinary convolutional network; nothing in it knows of skal.
import torch
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, BadgeQuery, KCenterGreedyQuery, PoolView
from skal.models import MLP

torch.set_num_threads(2)
X, y = load_digits(return_X_y=True)
images = (X / 16).reshape(-1, 1, 8, 8).astype("float32")


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.fc = nn.Linear(16 * 16, 10)

    def forward(self, x):
        return self.fc(self.features(x))


training = {
    "criterion": nn.CrossEntropyLoss,
    "optimizer": torch.optim.Adam,
    "lr": 0.01,
    "max_epochs": 15,
    "batch_size": 32,
    "verbose": 0,
}
loop = ActiveLearningLoop(
    NeuralNetClassifier(Convolutional, **training),
    BadgeQuery(),
    batch_size=20,
    n_rounds=4,
    random_state=0,
)
loop.fit(images[:1400], y[:1400], X_test=images[1400:], y_test=y[1400:])
print("images  ", loop.history_["test_score"].round(3))

# %%
# What a strategy sees: one forward pass gives probabilities, logits and embeddings.
pool = PoolView(loop.estimator_, images[1400:])
print(tuple(pool.proba.shape), tuple(pool.logits.shape), tuple(pool.embeddings.shape))

# %%
# Another layer than the last one: name it.
pool = PoolView(loop.estimator_, images[1400:], embedding_layer="features.3")
print("input of the pooling:", tuple(pool.embeddings.shape))

# %%
# A Pipeline: its transformers run once a round, the strategy sees the network inside.
pipe = make_pipeline(
    StandardScaler(),
    NeuralNetClassifier(
        MLP, module__n_inputs=64, module__n_classes=10, **training | {"max_epochs": 30}
    ),
)
loop = ActiveLearningLoop(
    pipe, KCenterGreedyQuery(), batch_size=20, n_rounds=4, random_state=0
)
loop.fit(X[:1400], y[:1400], X_test=X[1400:], y_test=y[1400:])
print("pipeline", loop.history_["test_score"].round(3))
