"""A strategy that generates rows of high entropy, and takes the real ones near them.

References
----------
.. [Mayer2020] Mayer and Timofte, "Adversarial sampling for active learning", WACV 2020.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skal.models import WassersteinGAN
from skal.net.auxiliary import auxiliary_state, device_of, restore_auxiliary
from skal.net.auxiliary_rows import N_AT_ONCE, AuxiliaryRows, rows_at_once
from skal.net.gradients import check_differentiable
from skal.net.training import final_estimator
from skal.pool import PoolView
from skal.query._base import AuxiliaryQuery, same_rows
from skal.selection import nearest_distinct
from skal.utils.validation import (
    Interval,
    StrOptions,
    check_is_fitted,
    check_params,
)


@dataclass(kw_only=True, eq=False, repr=False)
class AsalQuery(AuxiliaryQuery):
    """Take the real rows nearest to generated ones of high entropy.

    A generator ``G`` learns from all rows, once. For each row wanted a draw ``z`` of
    the normal distribution ascends the entropy of the prediction for ``G(z)``, and the
    row of the pool nearest to ``G(z)`` is taken, no row twice [1]_.

    Parameters
    ----------
    aux : WassersteinGAN, default=None
        Generator and critic, and the autoencoder of `space="code"`; trained by the
        first `fit`, until their distance falls no more, and kept. None is small enough
        for a CPU: at most 15,000 steps of the critic, for images 3,000, which take
        about four minutes. Set its parameters as in ``aux__max_iter=50_000``,
        ``aux__lr``, ``aux__module__width=64``, ``aux__module__n_latent``; see
        `skal.models.WassersteinGAN`, also for modules of your own. Trained on the
        device of the estimator, unless `device` is another than "cpu".
    space : {"auto", "code", "rows", "embedding"}, default="auto"
        Where nearness is measured: in the code of an autoencoder, among the rows, or in
        the estimator's embeddings. "auto" is "code" for images and "rows" for others.
    n_steps : int, default=100
        Steps of the ascent.
    step_size : float, default=0.05
        Learning rate of the ascent, by Adam.
    prior_weight : float, default=0.1
        Weight of ``(|z| - sqrt(d))^2 / 2`` of the `d` values of ``z``, against the
        logarithm of the entropy; it holds ``z`` where the generator was trained, which
        is at about that distance from 0.
    random_state : int, default=None
        Seeds the nets, too, the draws, and breaks ties; see `QueryStrategy`.

    Attributes
    ----------
    aux_ : WassersteinGAN
        The nets, with their `history`.
    rows_ : int64 array of shape (n_rows,)
        Numbers of the rows they were trained on: the `indices` of pool and labelled
        rows, ascending.
    center_, scale_ : float64 tensors
        Nets see rows as ``(rows - center_) / scale_``.
    shape_ : tuple of int
        Of a row as the nets take it.
    seed_ : int
        Seed of the nets.

    Notes
    -----
    Needs a skorch net whose input is one tensor of floating-point numbers. Images are
    generated within the range of all their pixels, flat rows within that of each
    column, standardised.

    The nets are kept while the pool loses rows, and an interrupted experiment goes on
    with them; they are trained again where the pool has other rows, or for a `PoolView`
    of its own, whose rows are numbered from 0, where their number changes. Use a clone
    for another data set. A Pipeline's transformers should not depend on the labels:
    where they change from round to round, by more than a shift and scale of each
    column, the generated rows are of the first round.

    The logarithm of the entropy ascends, which has the same maximum, but also a
    gradient where the prediction is certain, and of each draw the best on its way is
    kept: the last may have less entropy than the first, where the generator collapsed.

    What else differs from the paper: the critic is linear at its end and has a gradient
    penalty, as the authors' best, but with 3 steps for one of the generator, and all
    nets are small and trained by Adam, for the steps above; an autoencoder of its own
    gives the code. The nets are stored with each round of an experiment, because to
    train them again takes minutes.

    Worth its time where two classes meet and the network is linear: with T-shirts
    against shirts, 10 + 9 x 10 labels and nine seeds the mean accuracy was +.005 to
    +.029 from random's (95 % interval; `MarginQuery` +.012 to +.032, in no time). Five
    of these seeds were without `prior_weight`, too: +.016, +.036, +.026, +.012 and
    +.015, against +.038, +.034, -.002, +.010 and +.024.

    Entropy is easily maximal between classes where no rows are, and the nearest row has
    less: expect a gain where classes meet in few dimensions, and little over random on
    images. The paper's number of steps could not be found; `n_steps` and `step_size`
    are our measured choice. Nearest rows come by matrix products, exactly, so there is
    neither a tree nor a projection to few dimensions.

    References
    ----------
    .. [1] Mayer and Timofte, "Adversarial sampling for active learning", WACV 2020.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from skorch import NeuralNetClassifier
    >>> from skal import AsalQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Linear,
    ...     module__in_features=4,
    ...     module__out_features=3,
    ...     criterion=torch.nn.CrossEntropyLoss,
    ...     verbose=0,
    ... ).fit(X.astype("float32"), y)
    >>> pool = PoolView(net, X, random_state=0)
    >>> query = AsalQuery().set_params(aux__max_epochs=20).fit(pool)
    >>> query.query(pool, 3).shape
    (3,)
    """

    aux: WassersteinGAN | None = None
    space: str = "auto"
    n_steps: int = 100
    step_size: float = 0.05
    prior_weight: float = 0.1
    random_state: int | None = None

    _parameter_constraints = {
        **AuxiliaryQuery._parameter_constraints,
        "aux": [WassersteinGAN, None],
        "space": [StrOptions({"auto", "code", "rows", "embedding"})],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither")],
        "prior_weight": [Interval(Real, 0, None, closed="left")],
    }

    @property
    def requires(self) -> tuple[str, ...]:
        """The outputs of a pool that are read."""
        read = ("features", "labeled.features", "input_gradients")
        return (*read, "embeddings") if self.space == "embedding" else read

    def _default_aux(self):
        return WassersteinGAN()

    def fit(self, pool: PoolView) -> Self:
        """Train generator, critic and autoencoder, where this has not been done.

        Parameters
        ----------
        pool : PoolView
            The nets learn from its rows and the labelled ones.

        Returns
        -------
        self : AsalQuery

        Raises
        ------
        ValueError
            Where a parameter is wrong, the estimator's output has no gradient with
            respect to its input, rows are no finite numbers, or a loss is not finite.
        """
        check_params(self)
        aux = self.aux
        if self.space == "code" and aux is not None and aux.autoencoder is None:
            raise ValueError(
                "space='code' needs the autoencoder of aux, which is None; give it "
                "one, or pass space='rows'."
            )
        pool.prefetch(self.requires)
        self.seed_ = int(self._generator(pool, of_run=True).integers(2**32))
        rows, numbers = _all_rows(pool)
        self._check_rows(pool, rows)
        self._scale(rows)
        options = {
            "device": device_of(pool.estimator),
            "defaults": {"module__shape": rows.shape},
        }
        if self._space(rows.shape) != "code":
            options["autoencoder"] = None
        state = self.__dict__.pop("state_", None)
        if state is not None:
            self.aux_ = restore_auxiliary(self._active_aux, state, **options)
            self.rows_, self.shape_ = state["rows_"], rows.shape
        known = hasattr(self, "aux_") and rows.shape == self.shape_
        if not known or not same_rows(numbers, self.rows_):
            self._fit_aux(rows, seed=self.seed_, **options)
            self.rows_, self.shape_ = numbers, rows.shape
        return self

    def _check_rows(self, pool, rows):
        """Raise, before nets are trained, what a query would raise."""
        check_differentiable(final_estimator(pool.estimator))
        with pool.input_gradients() as (batches, logits):
            some = next(batches)
            if some.shape[1:] != rows.row_shape:
                raise ValueError(
                    f"the network takes rows of shape {tuple(some.shape[1:])}, but "
                    f"they come as {rows.row_shape}; do what changes them in the "
                    "transformers of a Pipeline, or in the network."
                )
            logits(some[:1].requires_grad_())

    def _scale(self, rows):
        """Say how rows are scaled, and between which bounds they are generated."""
        mean, std, low, high = rows.statistics()
        if len(rows.shape) == 3:
            low, high = low.min(), high.max()
            mean, std = (low + high) / 2, (high - low) / 2
        rows.scaled(mean, std)
        self.center_, self.scale_ = rows.center, rows.scale
        bounds = ((bound - self.center_) / self.scale_ for bound in (low, high))
        self.low_, self.high_ = (bound.float().flatten() for bound in bounds)

    def _space(self, shape):
        if self.space != "auto":
            return self.space
        return "code" if len(shape) == 3 else "rows"

    def _query(self, pool, n_samples, rng):
        check_is_fitted(self, "aux_")
        noise = rng.standard_normal((n_samples, self.aux_.module_.n_latent))
        noise = torch.from_numpy(noise).float()
        with pool.input_gradients() as (batches, logits):
            some = next(batches)
            as_input = partial(self._as_input, like=some)
            x = [self._ascend(z, logits, as_input) for z in noise.split(N_AT_ONCE)]
        x = torch.cat(x)
        targets, points_of = self._in_space(pool, x, as_input)
        near = _nearest(points_of, len(pool), targets, rng)
        return near[nearest_distinct(points_of(near), targets, random_state=rng)]

    def _ascend(self, z, logits, as_input):
        """Generate rows from noise that ascends the entropy of the prediction.

        For each row the best noise on the way, as the last may have less.
        """
        self.aux_._set_training(False)
        z = z.clone().to(self.aux_.device).requires_grad_()
        best, least = z.detach().clone(), torch.full_like(z[:, 0].detach(), torch.inf)
        optimizer = torch.optim.Adam([z], lr=self.step_size)
        for _ in range(self.n_steps + 1):
            with torch.enable_grad():
                log_proba = logits(as_input(self._generate(z))).log_softmax(1)
                beyond = z.norm(dim=1) - z.shape[1] ** 0.5
                prior = self.prior_weight / 2 * beyond.square()
                losses = prior.to(log_proba) - _log_entropy(log_proba)
                (z.grad,) = torch.autograd.grad(losses.sum(), z)
            losses, better = losses.detach(), losses < least
            least = torch.where(better, losses, least)
            best = torch.where(better[:, None], z.detach(), best)
            optimizer.step()
        if not bool(torch.isfinite(z).all()):
            raise ValueError(
                "the noise is not finite, because gradients of the network are not; "
                f"lower step_size={self.step_size}."
            )
        with torch.no_grad():
            return self._generate(best)

    def _generate(self, z):
        x = self.aux_.module_(z)
        low, high = self.low_.to(x.device), self.high_.to(x.device)
        within = x.detach().flatten(1).clamp(low, high).reshape(x.shape)
        return within + (x - x.detach())  # beyond the bounds, too, z has a gradient

    def _as_input(self, x, like):
        """Give generated rows the scale, shape and type of those the network takes."""
        x = x.reshape(-1, *like.shape[1:]).to(like)
        return x * self.scale_.to(like) + self.center_.to(like)

    def _in_space(self, pool, x, as_input):
        """Give generated rows where nearness is measured, and what gives the pool's."""
        space = self._space(tuple(x.shape[1:]))
        if space == "embedding":
            final = final_estimator(pool.estimator)
            view = PoolView(final, as_input(x), embedding_layer=pool.embedding_layer)
            return view.embeddings, lambda positions: pool.embeddings[positions]
        encode = self.aux_.encode if space == "code" else nn.Flatten()
        rows = AuxiliaryRows(pool).scaled(self.center_, self.scale_)
        return encode(x), lambda positions: rows.outputs(encode, positions)

    def get_state(self) -> dict[str, NDArray]:
        """Give the weights of the nets and `rows_`, or nothing before the first fit."""
        if hasattr(self, "aux_"):
            return {"rows_": self.rows_, **auxiliary_state(self.aux_)}
        return getattr(self, "state_", {})

    def set_state(self, state: Mapping[str, NDArray]) -> None:
        """Let the next `fit` take over the nets of another one's `get_state`.

        Parameters
        ----------
        state : dict of str to ndarray
        """
        if state["rows_"].dtype != np.int64 or "history" not in state:
            raise ValueError("rows_ must be an int64 array, and history be there.")
        self.__dict__.pop("aux_", None)
        self.state_ = dict(state)


def _nearest(points_of, n_points, targets, rng):
    """Positions of the as many points nearest to each target as there are targets.

    Others cannot be taken, so the points of the pool need not be there at once. In
    random order, which breaks ties.
    """
    targets = targets.double()
    best = targets.new_empty(len(targets), 0)
    places = best.long()
    order, step = rng.permutation(n_points), rows_at_once(targets.shape[1])
    for block in np.split(order, range(step, n_points, step)):
        distances = torch.cdist(targets, points_of(block).double())
        block = torch.from_numpy(block).to(places).expand(len(targets), -1)
        best, places = torch.cat([best, distances], 1), torch.cat([places, block], 1)
        n_kept = min(len(targets), best.shape[1])
        best, kept = best.topk(n_kept, largest=False)
        places = places.gather(1, kept)
    return places.unique().cpu().numpy()


def _log_entropy(log_proba):
    """Logarithm of the entropy, with a gradient also where it is nearly 0."""
    uncertain = log_proba < 0
    surprise = torch.where(uncertain, -log_proba, 1).log()
    terms = torch.where(uncertain, log_proba + surprise, -torch.inf)
    return terms.logsumexp(1)


def _all_rows(pool):
    """All rows of pool and labelled set in the order of their numbers, and those."""
    views = [pool, pool.labeled] if pool.has_labeled else [pool]
    numbers = np.concatenate([view.indices for view in views])
    if len(np.unique(numbers)) < len(numbers):  # stand-alone, both begin with 0
        numbers = np.arange(len(numbers))
    order = np.argsort(numbers)
    rows = AuxiliaryRows(*views, order=order)
    return rows, numbers[order]
