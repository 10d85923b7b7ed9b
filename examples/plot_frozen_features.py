"""
Features of a frozen backbone
=============================

Labels last longest on the features of a pretrained network. It sees each image once;
each round trains a linear model only, and strategies choose among the features.
"""

# %%
# A pretrained network is a name, such as ``"torchvision:resnet18"``, whose weights are
# downloaded on first use. Here a small network of our own stands for it, so that this
# page needs no network.
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from torch import nn

from skal import ActiveLearningLoop, MarginQuery
from skal.models import FrozenFeatures

torch.manual_seed(0)
images, y = load_digits(return_X_y=True)
images = images.reshape(-1, 1, 8, 8).astype("float32")
X_train, X_test, y_train, y_test = train_test_split(images, y, random_state=0)
backbone = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())

# %%
# With ``cache="features"`` the features would be kept in a folder of that name: the
# next run reads them, and goes on where one was killed.
model = make_pipeline(
    FrozenFeatures(backbone), Normalizer(), LogisticRegression(C=100, max_iter=1000)
)
loop = ActiveLearningLoop(
    model, MarginQuery(), n_initial=10, n_rounds=5, random_state=0
).fit(X_train, y_train, X_test=X_test, y_test=y_test)

# %%
# The first ten labels were chosen among the features, too: they cover the pool.
for n_labeled, score in zip(
    loop.history_["n_labeled"], loop.history_["test_score"], strict=True
):
    print(f"{n_labeled} labels: accuracy {score:.3f}")

# %%
# New images run through the whole Pipeline.
print(loop.predict(X_test[:10]))
