"""A strategy that trains a variational autoencoder and a discriminator on its code.

References
----------
.. [Sinha2019] Sinha, Ebrahimi and Darrell, "Variational adversarial active learning",
   ICCV 2019.
"""

import warnings
from dataclasses import dataclass
from typing import Self

import torch

from skal.models import AdversarialVAE
from skal.net.auxiliary import device_of
from skal.net.auxiliary_rows import N_AT_ONCE, AuxiliaryRows
from skal.pool import PoolView
from skal.query._base import AuxiliaryQuery, ScoreQuery
from skal.utils.validation import StrOptions, check_is_fitted

# A posterior has collapsed where no mean of its code deviates more over the rows.
LEAST_SPREAD = 0.1


@dataclass(kw_only=True, eq=False, repr=False)
class VaalQuery(AuxiliaryQuery, ScoreQuery):
    """Take rows that look least like the labelled ones to a discriminator.

    A variational autoencoder learns a code of all rows, and a discriminator ``D`` to
    tell the codes of labelled and unlabelled rows apart; the rows with the smallest
    ``D`` are taken [1]_ (algorithm 2). The estimator plays no part.

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
    random_state : int, default=None
        Seeds the networks, too, and breaks ties; see `QueryStrategy`.

    Attributes
    ----------
    aux_ : AdversarialVAE
        The net of the last `fit`, with its `history`.
    seed_ : int
        Its seed.
    center_, scale_ : float64 tensors
        Rows are encoded as ``(rows - center_) / scale_``.

    Warns
    -----
    UserWarning
        Where the posterior of the autoencoder collapsed, so that all codes are nearly
        alike.

    Notes
    -----
    The error of the reconstruction is summed over a row, as the divergence is over a
    code. The authors' code has its mean, whereby the divergence wins and all codes
    collapse into one.

    Rows are standardised: an image by the mean of each pixel and one deviation, flat
    rows column by column. Both kinds of rows go through BatchNorm in one pass, so that
    training and scoring see the same statistics. One step of the discriminator follows
    each step of the autoencoder, as in the paper's algorithm 1; the authors' code has
    one for two. Of their 100 epochs 300 steps are left, for time, and because the
    discriminator learns few labelled rows by heart: from 100 images of 10,000 it tells
    novel classes better after 300 steps than after 500.

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
    >>> query = VaalQuery().set_params(aux__max_epochs=20).fit(pool)
    >>> query.query(pool, 3).shape, len(query.aux_.history)
    ((3,), 20)
    """

    aux: AdversarialVAE | None = None
    input: str = "rows"
    random_state: int | None = None

    _parameter_constraints = {
        **AuxiliaryQuery._parameter_constraints,
        "aux": [AdversarialVAE, None],
        "input": [StrOptions({"rows", "embedding"})],
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
        if bool((std > 0).any()):
            self._check_spread(rows)
        return self

    def _read(self, pool):
        return pool.features if self.input == "rows" else pool.embeddings

    def _check_spread(self, rows):
        some = torch.linspace(0, len(rows) - 1, min(len(rows), N_AT_ONCE)).long()
        codes, _ = self.aux_.outputs(rows.__getitems__(some)[0])
        spread = float(codes.std(0, correction=0).max())
        if spread < LEAST_SPREAD:
            warnings.warn(
                f"the posterior of the VAE collapsed: the codes of the rows deviate by "
                f"{spread:.2g} at most, so the picks mean little; lower "
                f"aux__beta={self.aux_.beta}, or train longer.",
                UserWarning,
                stacklevel=3,
            )

    def _score(self, pool):
        check_is_fitted(self, "aux_")
        rows = AuxiliaryRows(self._read(pool)).scaled(self.center_, self.scale_)
        logits = rows.outputs(lambda x: self.aux_.outputs(x)[1])
        # Rounded, so that equal rows tie wherever they stand.
        return -(logits * 4096).round()
