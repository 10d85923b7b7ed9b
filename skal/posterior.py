"""Sources of sampled predictions: MC dropout and deep ensembles.

References
----------
.. [Gal2016] Gal and Ghahramani, "Dropout as a Bayesian approximation: representing
   model uncertainty in deep learning", ICML 2016.
.. [Lakshminarayanan2017] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable
   predictive uncertainty estimation using deep ensembles", NIPS 2017.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils.metaestimators import available_if
from torch import nn

from skal.net.dropout import active_dropouts
from skal.net.pickling import Parcel, learned_bytes
from skal.net.training import final_estimator, fit_isolated, is_net
from skal.utils.seeds import derive_seed, isolated_rng
from skal.utils.validation import N_JOBS, Interval, StrOptions, check_params


@dataclass(eq=False, repr=False)
class MCDropout(BaseEstimator):
    """Sampled predictions by dropout at prediction time.

    Each draw is one set of dropout masks, the same for every row of the pool, as if
    one network had been drawn [1]_ (consistent masks: [2]_, section 4.2). Without that,
    BatchBALD could not see that two rows tell the same.

    Parameters
    ----------
    n_draws : int, default=20
        Number of sets of masks, at least 2.

    Notes
    -----
    Only modules of `torch.nn` named Dropout (also 1d, 2d, 3d, Alpha, FeatureAlpha) with
    p > 0 drop; functional dropout and that inside recurrent layers stay off, as does
    everything else that training switches on. What runs before the first of them runs
    once for all draws.

    The masks follow from the seed alone: neither from the batch size nor from the
    device. Rows of different shapes in one pool get different masks.

    References
    ----------
    .. [1] Gal and Ghahramani, "Dropout as a Bayesian approximation: representing model
       uncertainty in deep learning", ICML 2016.
    .. [2] Kirsch, van Amersfoort and Gal, "BatchBALD: efficient and diverse batch
       acquisition for deep Bayesian active learning", NeurIPS 2019.

    Examples
    --------
    >>> from skal import EntropyQuery
    >>> from skal.posterior import MCDropout
    >>> EntropyQuery(posterior=MCDropout(n_draws=50))
    EntropyQuery(posterior=MCDropout(n_draws=50))
    """

    n_draws: int = 20

    _parameter_constraints = {"n_draws": [Interval(Integral, 2, None, closed="left")]}

    def check(self, estimator: BaseEstimator) -> None:
        """Raise where an estimator cannot have this posterior.

        Parameters
        ----------
        estimator : estimator
            Fitted or not; never touched.

        Raises
        ------
        ValueError
            Where `n_draws` is below 2, or the estimator has no network with dropout.
        """
        check_params(self)
        final = final_estimator(estimator)
        if not is_net(final):
            raise ValueError(
                f"MCDropout needs a skorch net with dropout, got a "
                f"{type(final).__name__}; use DeepEnsemble, or posterior=None where "
                "the strategy can do without."
            )
        net = final
        if not hasattr(net, "module_"):
            with isolated_rng(0):
                net = clone(final).initialize()
        if not active_dropouts(net.module_):
            raise ValueError(
                f"the network {type(net.module_).__name__} has no active dropout: give "
                "it a torch.nn.Dropout module with p > 0, before its last layer for "
                "instance (functional dropout cannot be sampled), or use DeepEnsemble."
            )

    def prepare(self, estimator: BaseEstimator) -> BaseEstimator:
        """Return the estimator as it is: this posterior needs no other training."""
        return estimator

    def sample(self, pool: Any, seed: int, each: Callable[..., None]) -> None:
        """Hand on the predictions of a network under each draw.

        Parameters
        ----------
        pool : PoolView
        seed : int
        each : callable
            As for `skal.PoolView.sample_proba`.
        """
        pool.sample_dropout(self.n_draws, seed, each)


@dataclass(eq=False, repr=False)
class DeepEnsemble(BaseEstimator):
    """Sampled predictions of several models trained alike from different seeds [1]_.

    Works with any classifier whose training is random. In an `ActiveLearningLoop` the
    loop's own model is the first member, so it costs `n_members` - 1 further fits a
    round, with the same rows, parameters and callbacks.

    Parameters
    ----------
    n_members : int, default=5
        Number of models, at least 2.
    n_jobs : int, default=None
        Processes that train them, as in joblib; the number does not change the bits.
    predict : {None, "mean"}, default=None
        What the loop predicts with: None with its own model, as if there were no
        ensemble; "mean" with the mean of the members' probabilities, so that its test
        scores are those of the ensemble.

    Notes
    -----
    The adversarial training of [1]_ is left out: the members are trained like the
    loop's model, whatever that is.

    Memory: all members of a round are kept with the loop's model.

    References
    ----------
    .. [1] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive
       uncertainty estimation using deep ensembles", NIPS 2017; for active learning
       Beluch, Genewein, Nuernberger and Koehler, CVPR 2018.

    Examples
    --------
    >>> from skal import EntropyQuery
    >>> from skal.posterior import DeepEnsemble
    >>> EntropyQuery(posterior=DeepEnsemble(n_members=3))
    EntropyQuery(posterior=DeepEnsemble(n_members=3))
    """

    n_members: int = 5
    n_jobs: int | None = None
    predict: str | None = None

    _parameter_constraints = {
        "n_members": [Interval(Integral, 2, None, closed="left")],
        "n_jobs": N_JOBS,
        "predict": [StrOptions({"mean"}), None],
    }

    def check(self, estimator: BaseEstimator) -> None:
        """Raise where an estimator cannot have this posterior.

        Parameters
        ----------
        estimator : estimator
            Fitted or not; never touched.

        Raises
        ------
        ValueError
            Where a parameter is wrong, or all members would start from one module.
        """
        check_params(self)
        final = final_estimator(estimator)
        if is_net(final) and isinstance(final.module, nn.Module):
            raise ValueError(
                "a DeepEnsemble needs members that start apart, but module is an "
                "instance, whose weights all would share; pass the class and "
                "module__... parameters."
            )
        if not hasattr(final, "predict_proba"):
            raise ValueError(
                f"a DeepEnsemble needs predict_proba, which {type(final).__name__} "
                "has not; use a probabilistic classifier."
            )

    def prepare(self, estimator: BaseEstimator) -> "EnsembleClassifier":
        """Wrap an unfitted estimator so that `fit` trains all members.

        Parameters
        ----------
        estimator : estimator
            A private clone.

        Returns
        -------
        ensemble : EnsembleClassifier
        """
        return EnsembleClassifier(
            estimator,
            n_members=self.n_members,
            n_jobs=self.n_jobs,
            predict_mean=self.predict == "mean",
        )

    def sample(self, pool: Any, seed: int, each: Callable[..., None]) -> None:
        """Hand on the predictions of each member: fitted ones, or newly trained ones.

        Parameters
        ----------
        pool : PoolView
            Its estimator is an `EnsembleClassifier`, or the first member.
        seed : int
            Of the members that are trained.
        each : callable
            As for `skal.PoolView.sample_proba`.
        """
        members = self._members(pool.estimator, *pool.training_set(), seed)
        for draw, member in enumerate(members):
            place = slice(0, len(pool)), slice(draw, draw + 1)
            each(pool.under(member).proba[:, None], place, len(members))

    def _members(self, estimator, X, y, seed):
        if isinstance(estimator, EnsembleClassifier):
            return estimator.members_
        if X is None or y is None:
            raise ValueError(
                "a DeepEnsemble trains further models like the given one; pass "
                "X_labeled and y_labeled to PoolView."
            )
        if getattr(estimator, "warm_start", False):
            _refuse_warm_start()
        seeds = _seeds(seed, self.n_members)
        others = [_member(estimator, seed) for seed in seeds]
        others = _fit_members(others, X, y, seeds, self.n_jobs, {})
        return _check_apart([estimator, *others])


@dataclass(eq=False, repr=False)
class EnsembleClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Members trained apart, of which the first is the model itself.

    The `first_member` stands for it wherever one model is looked at: it is bit for bit
    what `estimator` alone would have become.

    Parameters
    ----------
    estimator : estimator
        Cloned for each member.
    n_members : int
        Number of members.
    n_jobs : int, default=None
        Processes that train them.
    predict_mean : bool, default=False
        Predict with the mean of the members' probabilities instead of the first member.

    Attributes
    ----------
    members_ : list of fitted estimators
    """

    estimator: BaseEstimator
    n_members: int
    n_jobs: int | None = None
    predict_mean: bool = False

    def fit(self, X: Any, y: ArrayLike, **fit_params: Any) -> Self:
        """Train all members.

        Parameters
        ----------
        X, y : rows and labels
            As the estimator takes them.
        **fit_params : dict
            Passed on to each `fit`.

        Returns
        -------
        self : EnsembleClassifier

        Raises
        ------
        ValueError
            Where two members come out identical.
        """
        if getattr(final_estimator(self.estimator), "warm_start", False):
            _refuse_warm_start()
        # That of `fit_isolated`, and so of the estimator; by itself it may be larger.
        seed = torch.initial_seed() % 2**32
        seeds = _seeds(seed, self.n_members)
        members = [_member(self.estimator, seed) for seed in seeds]
        members, seeds = [clone(self.estimator), *members], [seed, *seeds]
        members = _fit_members(members, X, y, seeds, self.n_jobs, fit_params)
        self.members_ = _check_apart(members)
        return self

    @property
    def first_member(self) -> BaseEstimator:
        """The member that is the model itself; before `fit`, `estimator`."""
        return self.members_[0] if hasattr(self, "members_") else self.estimator

    @property
    def classes_(self) -> NDArray:
        """Classes of the members."""
        return self.members_[0].classes_

    def predict(self, X: Any, **params: Any) -> NDArray:
        """Predict classes with the first member, or with the mean.

        Parameters
        ----------
        X : rows
        **params : dict
            Passed on to each member.

        Returns
        -------
        y : array of shape (n_samples,)
        """
        if not self.predict_mean:
            return self.members_[0].predict(X, **params)
        columns = self.predict_proba(X, **params).argmax(1)
        # A net has more of them than classes where it can learn further ones.
        if is_net(final_estimator(self.members_[0])):
            return columns
        return np.asarray(self.classes_)[columns]

    def predict_proba(self, X: Any, **params: Any) -> NDArray:
        """Predict probabilities with the first member, or with the mean.

        Parameters
        ----------
        X : rows
        **params : dict
            Passed on to each member.

        Returns
        -------
        proba : array of shape (n_samples, n_classes)
        """
        members = self.members_ if self.predict_mean else self.members_[:1]
        probas = [member.predict_proba(X, **params) for member in members]
        return np.mean(probas, axis=0, dtype=probas[0].dtype)

    def score(self, X: Any, y: ArrayLike, **params: Any) -> float:
        """Score as the first member does, or the accuracy of the mean.

        Parameters
        ----------
        X, y : rows and labels
        **params : dict
            Passed on to the first member; with the mean, `sample_weight`.

        Returns
        -------
        score : float
        """
        if self.predict_mean:
            return super().score(X, y, **params)
        return self.members_[0].score(X, y, **params)

    @available_if(
        lambda self: (
            not self.predict_mean and hasattr(self.members_[0], "decision_function")
        )
    )
    def decision_function(self, X: Any, **params: Any) -> NDArray:
        """Decision values of the first member.

        Parameters
        ----------
        X : rows
        **params : dict
            Passed on to it.

        Returns
        -------
        decision : array
        """
        return self.members_[0].decision_function(X, **params)


def _seeds(seed, n_members):
    """Seeds of all members but the first."""
    return [derive_seed(seed, number, "member") for number in range(1, n_members)]


def _member(estimator, seed):
    """Clone an estimator to train under `seed`, a fixed random_state included."""
    member = clone(estimator)
    params = member.get_params().items()
    fixed = [k for k, v in params if k.endswith("random_state") and v is not None]
    return member.set_params(**dict.fromkeys(fixed, seed))


def _fit_members(members, X, y, seeds, n_jobs, fit_params):
    # Processes, since threads share the global generators that are seeded.
    parcels = Parallel(n_jobs=n_jobs, prefer="processes")(
        delayed(_fit_member)(member, X, y, seed, torch.get_num_threads(), fit_params)
        for member, seed in zip(members, seeds, strict=True)
    )
    return [parcel.estimator for parcel in parcels]


def _fit_member(member, X, y, seed, n_threads, fit_params):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)  # bits depend on it
    try:
        return Parcel(fit_isolated(member, X, y, seed, **fit_params))
    finally:
        torch.set_num_threads(before)


class IdenticalMembersError(ValueError):
    """Members of an ensemble that are all the same."""


def _check_apart(members):
    states = [learned_bytes(final_estimator(member)) for member in members]
    if len(set(states)) < len(states):
        raise IdenticalMembersError(
            f"members of the DeepEnsemble came out identical: training "
            f"{type(final_estimator(members[0])).__name__} is not random, or fixes its "
            "own seed; use an estimator whose training is random, or bootstrap rows "
            "inside it."
        )
    return members


def _refuse_warm_start():
    raise ValueError("a DeepEnsemble starts every member afresh; set warm_start=False.")
