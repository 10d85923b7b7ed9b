"""
How the kernels work, and why they are exact
============================================

The kernels of :mod:`skal.selection` make greedy choices, one row at a time, as their
papers define them. Done plainly, each pick costs a pass over all rows. Here is how
blocks of picks share a pass and still give the same rows, each claim checked here.
"""

# %%
# Three ideas of what a good batch is
# -----------------------------------
#
# **k-center**: the farthest row from all chosen ones, so that no row is far from a
# choice. **k-means++**: rows at random, with probability proportional to the squared
# distance, so that dense regions count, too. **Herding**: the row that adds most to the
# coverage of all rows by a kernel, so that typical rows come first and outliers last.
import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import make_blobs

from skal.selection import batch_bald, herding, k_center_greedy, kmeans_plusplus

torch.set_num_threads(2)
points, _ = make_blobs(
    600, centers=5, cluster_std=[0.5, 0.5, 1.2, 0.3, 0.8], random_state=3
)
points = points.astype("float32")
picks = {
    "k_center_greedy": k_center_greedy(points, 12, random_state=0),
    "kmeans_plusplus": kmeans_plusplus(points, 12, random_state=0),
    "herding": herding(points, 12, random_state=0),
}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharex=True, sharey=True)
for axis, (name, rows) in zip(axes, picks.items(), strict=True):
    axis.scatter(*points.T, s=6, color="0.75")
    axis.scatter(*points[rows].T, s=90, color="#0072B2", edgecolor="white")
    for number, row in enumerate(rows, 1):
        style = {"ha": "center", "va": "center", "color": "white", "fontsize": 7}
        axis.annotate(str(number), points[row], **style)
    axis.set(title=name, xticks=[], yticks=[])
figure.tight_layout()
plt.show()

# %%
# Stale distances are bounds
# --------------------------
#
# The distance of a row to its nearest centre only *shrinks* when centres are added. So
# the distances of some picks ago are upper bounds of the present ones.
# `k_center_greedy` looks at the few rows with the largest stale distances, makes exact
# picks among them, and stops as soon as the best is below the largest stale distance of
# all other rows: until then no other row can be the farthest. One matrix product then
# refreshes all rows.
#
# A product in float32 is rounded. It is used with its rounding error added, so it stays
# a bound; rows that may be the best are compared by sums of squared *differences* in
# double precision. So the picks are those of the plain loop in float64:


def plain_k_center(x, n_select, centers):
    x, centers = x.astype(float), centers.astype(float)
    distance = ((x[:, None] - centers) ** 2).sum(2).min(1)
    rows = []
    for _ in range(n_select):
        rows.append(int(distance.argmax()))
        distance = np.minimum(distance, ((x - x[rows[-1]]) ** 2).sum(1))
    return rows


rng = np.random.default_rng(0)
x = rng.normal(size=(3000, 32)).astype("float32") + 100  # far from 0: hard for products
assert k_center_greedy(x[20:], 200, centers=x[:20]).tolist() == plain_k_center(
    x[20:], 200, x[:20]
)
print("k-center: 200 picks equal those of the plain loop")

# %%
# A draw can be proposed and refused
# ----------------------------------
#
# k-means++ draws at random, so "the same rows" means the same *distribution*. Stale
# squared distances propose a row; it is accepted with probability (present distance) /
# (stale distance). That is rejection sampling: what is accepted has exactly the
# probability of sequential D² sampling. Here the second of two draws from five points,
# first one known:
line = np.array([[0.0], [1.0], [2.0], [4.0], [7.0]], dtype="float32")
draws = [
    kmeans_plusplus(line, 2, first="norm", random_state=seed)[1] for seed in range(4000)
]
found = np.bincount(draws, minlength=5) / len(draws)
expected = (line[:, 0] - 7) ** 2 / ((line[:, 0] - 7) ** 2).sum()
print("expected", expected.round(3), "\nfound   ", found.round(3))
assert abs(found - expected).max() < 0.03

# %%
# Outer products need not be formed
# ---------------------------------
#
# The point of BADGE is the gradient of the last layer, an outer product ``a x h`` of
# n_classes times n_features numbers a row. But the inner product of two of them is
# ``(a_i . a_j) (h_i . h_j)``: distances follow from the two factors, so a pair of
# factors gives the same draws as the products, without their memory.
a = rng.normal(size=(500, 10)).astype("float32")
h = rng.normal(size=(500, 64)).astype("float32")
products = (a[:, :, None] * h[:, None, :]).reshape(500, -1)
assert (
    kmeans_plusplus((a, h), 50, random_state=0).tolist()
    == kmeans_plusplus(products, 50, random_state=0).tolist()
)
print("factors:", a.nbytes + h.nbytes, "bytes; products:", products.nbytes, "bytes")

# %%
# Gains shrink, too
# -----------------
#
# Coverage is *submodular*: what a row adds only shrinks as others are chosen. So the
# lazy trick works for herding as well: stale gains are upper bounds, and only rows
# whose bound exceeds the best present gain are looked at again.


def plain_herding(x, n_select, width):
    x = x.astype(float)
    kernel = np.exp(-((x[:, None] - x) ** 2).sum(2) / width**2)
    covered, rows = np.zeros(len(x)), []
    for _ in range(n_select):
        gains = np.maximum(kernel - covered, 0).sum(1)
        rows.append(int(gains.argmax()))
        covered = np.maximum(covered, kernel[rows[-1]])
    return rows


assert herding(points, 30, width=1.0).tolist() == plain_herding(points, 30, 1.0)
print("herding: 30 picks equal those of the plain loop")

# %%
# Joint entropies of a batch
# --------------------------
#
# BatchBALD wants the batch whose labels *together* tell most about the model: the joint
# entropy over all combinations of labels, as long as they fit (`max_configurations`),
# else an estimate on drawn ones. Upper bounds on the entropy that a row can add leave
# most rows out without changing the choice. Two copies of one row tell hardly more than
# one:
logits = rng.normal(size=(40, 100, 3)) * 2
proba = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
twice = np.concatenate([proba, proba])  # every row has a copy, 40 rows further
chosen = batch_bald(twice, 4, random_state=0)
print("rows:", chosen % 40)
assert len(set((chosen % 40).tolist())) == 4

# %%
# What remains is the floor: the matrix products that any exact method needs. How near
# the kernels come to it is on the page of speeds.
