"""A strategy that trains a variational autoencoder and a discriminator on its code.

References
----------
.. [Sinha2019] Sinha, Ebrahimi and Darrell, "Variational adversarial active learning",
   ICCV 2019.
"""

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Self

import numpy as np

from skal.models import AdversarialVAE
from skal.net.auxiliary import device_of
from skal.net.auxiliary_rows import N_AT_ONCE, AuxiliaryRows
from skal.pool import PoolView
from skal.query._base import SubsetQuery
from skal.utils.validation import Interval, StrOptions, check_is_fitted

# A posterior has collapsed where no mean of its code deviates more over the rows.
LEAST_SPREAD = 0.1
# Rows of a kind that are held out, at most.
N_HELD_OUT = 256


@dataclass(kw_only=True, eq=False, repr=False)
class VaalQuery(SubsetQuery):
    """Take rows that look least like the labelled ones to a discriminator.

    A variational autoencoder learns a code of all rows, and a discriminator ``D`` to
    tell the codes of labelled and unlabelled rows apart; of a random subset of the
    pool, the rows with the smallest ``D`` are taken [1]_ (algorithm 2). The estimator
    plays no part.

    Parameters
    ----------
    aux : AdversarialVAE, default=None
        Autoencoder and discriminator, trained afresh by each `fit`. None is small
        enough for a CPU: convolutions for images, fully connected layers for flat rows,
        at most 300 steps or 100 epochs. Set its parameters as in
        ``aux__max_iter=300``, ``aux__lr``, ``aux__beta``, ``aux__module__width=128``
        (the paper's) or ``aux__discriminator__hidden=(512, 512)``; see
        `skal.models.AdversarialVAE`, also for modules of your own. Trained on the
        device of the estimator, unless `device` is another than "cpu".
    input : {"rows", "embedding"}, default="rows"
        What is encoded: the rows, after the transformers of a Pipeline, or the
        estimator's embeddings of them, which is cheap where rows are large.
    subset : int, "auto" or None, default="auto"
        Choose among so many rows of the pool, drawn at random, but at least as many as
        are asked for; None is all. "auto" is ten times as many where the discriminator
        tells rows held out apart without a mistake, and the fewer the less it knows,
        down to as many, which are random rows. It is all that makes a batch diverse.
    held_out : float, default=0.2
        This share of the labelled and of the unlabelled rows, 256 of either at most,
        trains nothing: training ends where the discriminator tells them apart no
        better, and its `aux_.aucs_` say how well it does. Less than 5 rows are none.
    random_state : int, default=None
        Seeds the networks, too, the rows held out and the subset, and breaks ties; see
        `QueryStrategy`.

    Attributes
    ----------
    aux_ : AdversarialVAE
        The net of the last `fit`, with its `history` and `aucs_`.
    seed_ : int
        Its seed.
    told_ : tuple of str
        How the warnings begin that come once.
    center_, scale_ : float64 tensors
        Rows are encoded as ``(rows - center_) / scale_``.

    Warns
    -----
    UserWarning
        Where the posterior of the autoencoder collapsed, so that all codes are nearly
        alike. Once, where the discriminator tells labelled from unlabelled rows held
        out no better than chance may, so that the picks are hardly better than random,
        as where the labelled rows are a random draw; and where there are too few to
        hold out.

    Notes
    -----
    It stays within half a point of random: at 500 + 4 x 500 labels of Fashion-MNIST,
    pool 20,000, the mean accuracy of five seeds was -.001, +.004, -.001, +.002 and
    +.002 from random's (`MarginQuery` .012 to .019 above it), at 2,000 + 4 x 1,000
    -.002, +.002, +.003, +.003 and -.001 (`MarginQuery` .009 to .014), and at 1,000 + 4
    x 500 of letter -.006 to +.002. Of use where the pool has kinds of rows that no
    label shows.

    The error of the reconstruction is summed over a row, as the divergence is over a
    code. The authors' code has its mean, whereby the divergence wins and all codes
    collapse into one.

    Rows are standardised: an image by the mean of each pixel and one deviation, flat
    rows column by column. Both kinds of rows go through BatchNorm in one pass, so that
    training and scoring see the same statistics. One step of the discriminator follows
    each step of the autoencoder, as in the paper's algorithm 1; the authors' code has
    one for two.

    The authors train for 100 epochs and hold nothing out. A discriminator learns few
    labelled rows by heart: with 100 images of Fashion-MNIST it told them from the pool
    with an AUC of .99, and labelled rows that it had not seen with one of .50. The pool
    as a whole then gave batches of one class.

    References
    ----------
    .. [1] Sinha, Ebrahimi and Darrell, "Variational adversarial active learning",
       ICCV 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skal import PoolView, VaalQuery
    >>> X, y = load_digits(return_X_y=True)
    >>> pool = PoolView(None, X[50:300], X_labeled=X[:50], random_state=0)
    >>> query = VaalQuery(held_out=0.0).set_params(aux__max_epochs=20).fit(pool)
    >>> query.query(pool, 3).shape, len(query.aux_.history)
    ((3,), 20)
    """

    aux: AdversarialVAE | None = None
    input: str = "rows"
    subset: int | str | None = "auto"
    held_out: float = 0.2
    random_state: int | None = None

    told_ = ()
    _parameter_constraints = {
        **SubsetQuery._parameter_constraints,
        "aux": [AdversarialVAE, None],
        "input": [StrOptions({"rows", "embedding"})],
        "held_out": [Interval(Real, 0, 1, closed="left")],
    }

    @property
    def requires(self) -> tuple[str, ...]:
        """The outputs of a pool that are read: the rows or their embeddings."""
        name = "features" if self.input == "rows" else "embeddings"
        return (name, f"labeled.{name}")

    def _default_aux(self):
        return AdversarialVAE()

    def fit(self, pool: PoolView) -> Self:
        """Train autoencoder and discriminator.

        Parameters
        ----------
        pool : PoolView
            With labelled rows.

        Returns
        -------
        self : VaalQuery

        Raises
        ------
        ValueError
            Where a parameter is wrong, there are no labelled rows, rows are no finite
            numbers, or a loss is not finite.
        """
        self.seed_ = self._begin(pool)
        rows = AuxiliaryRows(self._read(pool), self._read(pool.labeled), paired=True)
        rng = np.random.default_rng(self.seed_)
        holds = rows.hold_out(self.held_out, N_HELD_OUT, rng)
        mean, std, _, _ = rows.statistics()
        is_image = len(rows.shape) == 3
        scale = std.square().mean().sqrt() if is_image else std
        rows.scaled(mean, scale)
        self.center_, self.scale_ = rows.center, rows.scale
        self._fit_aux(
            rows,
            seed=self.seed_,
            device=device_of(pool.estimator),
            defaults={
                "module__shape": rows.shape,
                "discriminator__hidden": (512, 512) if is_image else (64, 64),
            },
        )
        if self.held_out and not holds:
            self._warn_once(
                f"VaalQuery holds out none of {len(pool.labeled)} labelled rows, which "
                "are too few, so nothing says whether its discriminator knows more "
                "than these by heart."
            )
        if bool((std > 0).any()):
            self._check_spread(rows)
            self._check_held_out(rows)
        return self

    def _read(self, pool):
        return pool if self.input == "rows" else pool.embeddings

    @property
    def _ratio(self):
        """From 1 to 10, as the AUC of rows held out goes from 0.5 to 1."""
        check_is_fitted(self, "aux_")
        auc = self.aux_.aucs_.get("held_out", 1)
        return 1 + 9 * max(0, 2 * auc - 1)

    def _warn_once(self, message):
        if message[:20] not in self.told_:
            self.told_ = (*self.told_, message[:20])
            warnings.warn(message, UserWarning, stacklevel=4)

    def _check_held_out(self, rows):
        is_labeled = rows.is_labeled[rows.held_out]
        if not len(is_labeled):
            return
        auc, n_labeled = self.aux_.aucs_["held_out"], int(is_labeled.sum())
        # Of an AUC of rows that do not differ.
        n_unlabeled = len(is_labeled) - n_labeled
        variance = (len(is_labeled) + 1) / (12 * n_labeled * n_unlabeled)
        if auc < 0.5 + 2 * variance**0.5:
            self._warn_once(
                "the discriminator of VaalQuery tells labelled from unlabelled rows "
                "that it has not seen no better than chance may (see strategy.aux_"
                ".aucs_), so its picks are hardly better than random ones; that is as "
                "it should be while the labelled rows are a random draw."
            )

    def _check_spread(self, rows):
        some = np.unique(np.linspace(0, len(rows) - 1, N_AT_ONCE).astype(int))
        codes = rows.outputs(lambda x: self.aux_.outputs(x)[0], some)
        spread = float(codes.std(0, correction=0).max())
        if spread < LEAST_SPREAD:
            warnings.warn(
                f"the posterior of the VAE collapsed: the codes of the rows deviate by "
                f"{spread:.2g} at most, so the picks mean little; lower "
                f"aux__beta={self.aux_.beta}, or train longer.",
                UserWarning,
                stacklevel=3,
            )

    def _score(self, pool, positions=None):
        check_is_fitted(self, "aux_")
        rows = AuxiliaryRows(self._read(pool)).scaled(self.center_, self.scale_)
        return self._score_of(rows, positions)

    def _score_of(self, rows, positions):
        return -rows.outputs(lambda x: self.aux_.outputs(x)[1], positions)
