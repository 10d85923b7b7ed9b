"""What labels tell about the model that drew the predictions: BALD and BatchBALD."""

import warnings

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_count, check_matrix, check_n_select
from skal.utils.seeds import SeedLike, check_generator

# Doubles in one block of temporaries.
BLOCK = 2**18
# A gain below this, in nats or as a part of the first, is not told from noise.
SATURATED = 1e-2


def batch_bald(
    proba_samples: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    max_configurations: int = 10_000,
    n_particles: int = 10_000,
    random_state: SeedLike = None,
) -> NDArray[np.int64]:
    """Take, again and again, the row whose label adds most to what the others tell.

    The gain of a row is ``I(y; omega | x, y_1 ... y_b)``, its mutual information with
    the draw given the labels of the rows taken before: a copy of one of those adds
    little. The sum of the gains is the joint mutual information [1]_.

    Parameters
    ----------
    proba_samples : array or tensor of shape (n_rows, n_draws, n_classes)
        Class probabilities under each draw of the model. A draw must be the same model
        for all rows (consistent dropout masks), or no redundancy is seen.
    n_select : int
        How many, from 0 to `n_rows`.
    max_configurations : int, default=10_000
        Gains are exact as long as the rows taken have at most so many combinations of
        labels that are possible.
    n_particles : int, default=10_000
        To how many combinations more than `max_configurations` are reduced.
    random_state : None, int, Generator or RandomState, default=None
        Breaks ties and reduces the combinations.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        In the order of the picks, distinct. The first has the largest BALD score. Once
        the batch is saturated, the rest comes in the order of these scores.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, there are fewer than two
        draws, or a row is not a distribution.

    Warns
    -----
    UserWarning
        If the batch is saturated: no row gains more than 0.01 nats, or than 0.01 of
        the largest BALD score where that is below 1. All gains together cannot exceed
        ``log(n_draws)``.

    See Also
    --------
    mutual_information : The BALD scores.

    Notes
    -----
    Each combination of labels keeps its probability and the posterior of the draws
    given these labels, so that no products of many probabilities appear.

    Gains shrink as rows are taken, so stale ones are upper bounds (with particles up
    to their noise), and so are gains from groups of combinations that make the same
    draws likely. Only rows that may be the best are evaluated in full.

    Particles are not drawn anew for each pick as in [1]_: all combinations of a
    particle with a label are weighed, the heavy ones stay as they are, and the others
    are thinned by systematic sampling with the least variance [2]_. The estimates
    remain unbiased, and much of the noise is common to all rows.

    References
    ----------
    .. [1] Kirsch, van Amersfoort and Gal (2019). BatchBALD: efficient and diverse batch
       acquisition for deep Bayesian active learning. NeurIPS.
    .. [2] Fearnhead and Clifford (2003). On-line inference for hidden Markov models via
       particle filters. Journal of the Royal Statistical Society B 65, section 3.

    Examples
    --------
    >>> from skal.selection import batch_bald
    >>> first_bit = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    >>> second_bit = [[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]]
    >>> sorted(batch_bald([first_bit, first_bit, second_bit], 2).tolist())[1]
    2
    """
    samples = _check_samples(proba_samples)
    n_select = check_n_select(n_select, len(samples), "proba_samples")
    check_count(max_configurations, "max_configurations")
    check_count(n_particles, "n_particles")
    rng = check_generator(random_state)
    with torch.no_grad():
        labels = _Labels(samples, max_configurations, n_particles, rng)
        # Ties fall to the first row in a random order.
        order = torch.from_numpy(rng.permutation(len(samples))).to(samples.device)
        order = order[_descending(labels.gains[order])]
        threshold = SATURATED * min(1.0, float(labels.gains.max())) if n_select else 0
        picks = []
        while len(picks) < n_select:
            row, gain = labels.best(order)
            # Samples that differ by rounding only have scores of about 1e-16.
            if gain <= max(threshold, 1e-12):
                _warn_saturated(len(picks), n_select, gain, samples.shape[1])
                break
            picks.append(row)
            order = order[order != row]
            if len(picks) < n_select:
                labels.add(row)
        rest = order[_descending(labels.scores[order])][: n_select - len(picks)]
    return np.array(picks + rest.tolist(), dtype=np.int64)


class _Labels:
    """What the labels of the rows taken may be, and what another would add.

    Attributes
    ----------
    scores, gains : float64 tensors of shape (n_rows,)
        What each label tells alone, and what it adds; stale gains are upper bounds.
    weights : float64 tensor of shape (n_combinations,)
        Probabilities of the combinations of labels.
    posterior : float64 tensor of shape (n_combinations, n_draws)
        Probabilities of the draws given the labels.
    """

    def __init__(self, samples, max_configurations, n_particles, rng):
        self.samples, self._rng = samples, rng
        self._max_configurations, self._n_particles = max_configurations, n_particles
        self.scores, self._conditional = _mutual_information(samples)
        self.gains, self._fresh = self.scores.clone(), True
        self.weights = self.scores.new_ones(1)
        n_draws = samples.shape[1]
        self.posterior = self.scores.new_full((1, n_draws), 1 / n_draws)

    def best(self, rows):
        """Return the row of the largest gain, and that gain.

        The largest bound is computed again, with more combinations told apart each
        time, until it is a gain.
        """
        bounds = self.gains[rows].cpu().numpy()
        levels = [] if self._fresh else self._levels()
        depth = np.zeros(len(rows), dtype=np.int64)
        while depth[first := int(bounds.argmax())] < len(levels):
            level = depth[first]
            weights, posterior = levels[level]
            same = np.flatnonzero(depth == level)
            n = max(
                8, min(256, BLOCK // (self.samples.shape[2] * max(posterior.shape)))
            )
            block = same[np.argsort(-bounds[same], kind="stable")[:n]]
            index = rows[torch.from_numpy(block).to(rows.device)]
            gains = self._entropy(index, weights, posterior) - self._conditional[index]
            depth[block] += 1
            if level + 1 < len(levels):
                gains = torch.minimum(gains, self.gains[index])
            self.gains[index] = gains
            bounds[block] = gains.cpu().numpy()
        return int(rows[first]), float(bounds[first])

    def _levels(self):
        """Weights and posteriors of few groups of combinations, of more, and of each.

        Labels that are known less exactly leave more to learn, so groups give upper
        bounds; close ones, where the members of a group believe in the same draws.
        """
        n_draws = self.posterior.shape[1]
        belief, draws = self.posterior.topk(2, dim=1)
        pairs = (draws[:, 0] * n_draws + draws[:, 1]) * 8 + (8 * belief[:, 0]).long()
        levels = []
        for key in (draws[:, 0], pairs):
            unique, group = key.unique(return_inverse=True)
            weights = self.weights.new_zeros(len(unique))
            weights.index_add_(0, group, self.weights)
            joint = self.posterior.new_zeros(len(unique), n_draws)
            joint.index_add_(0, group, self.weights[:, None] * self.posterior)
            if 2 * len(unique) <= len(self.weights):
                levels.append((weights, joint / weights[:, None]))
        return [*levels, (self.weights, self.posterior)]

    def _entropy(self, rows, weights, posterior):
        """Compute the entropy of the labels of `rows` given others, from `_levels`."""
        proba = _distributions(self.samples[rows])
        n_rows, n_draws, n_classes = proba.shape
        proba = proba.transpose(0, 1).reshape(n_draws, -1)
        entropy = proba.new_zeros(proba.shape[1])
        step = max(1, BLOCK // proba.shape[1])
        for w, p in zip(weights.split(step), posterior.split(step), strict=True):
            entropy -= w @ _plogp(p @ proba)
        return entropy.view(n_rows, n_classes).sum(1)

    def add(self, row):
        """Take `row`: combine each combination with each label it may get."""
        proba = _distributions(self.samples[row : row + 1])[0]
        weights = (self.weights[:, None] * (self.posterior @ proba)).flatten()
        kept = weights.nonzero().squeeze(1)
        weights = weights[kept]
        if len(kept) > max(self._max_configurations, self._n_particles):
            chosen, weights = _thin(weights, self._n_particles, self._rng.random())
            kept = kept[chosen]
        combination, label = kept // proba.shape[1], kept % proba.shape[1]
        posterior = self.posterior[combination].mul_(proba.T[label])
        self.posterior = posterior.div_(posterior.sum(1, keepdim=True))
        self.weights, self._fresh = weights, False


def _thin(weights, n, uniform):
    """Choose `n` of more weights; return positions and new weights, unbiased.

    Those above a threshold stay; the others are sampled systematically, each with
    probability proportional to its weight, and get the threshold as weight.
    """
    heaviest = _descending_values(weights)
    tails = heaviest.flip(0).cumsum(0).flip(0)[:n]
    thresholds = tails / torch.arange(n, 0, -1, device=weights.device)
    n_heavy = int((heaviest[:n] <= thresholds).int().argmax())
    threshold = thresholds[n_heavy]
    light = weights < threshold
    steps = (torch.where(light, weights, 0).cumsum(0) / threshold + uniform).floor_()
    hit = steps.diff(prepend=steps.new_zeros(1)) > 0
    chosen = (~light | hit).nonzero().squeeze(1)
    return chosen, weights[chosen].clamp_(min=threshold)


def _descending_values(values):
    if values.device.type != "cpu":
        return values.sort(descending=True).values
    return torch.from_numpy(np.sort(values.numpy())).flip(0)  # several times faster


def _descending(values):
    return values.argsort(descending=True, stable=True)


def _warn_saturated(n_picks, n_select, gain, n_draws):
    warnings.warn(
        f"the batch is saturated after {n_picks} of {n_select} rows: the label of "
        f"another would add {max(0.0, gain):.2g} nats at most, so the rest comes in "
        f"the order of the BALD scores. {n_draws} draws can tell "
        f"{np.log(n_draws):.2g} nats in all; select fewer rows or take more draws.",
        UserWarning,
        stacklevel=3,
    )


def mutual_information(
    proba_samples: ArrayLike | torch.Tensor,
) -> NDArray[np.float64] | torch.Tensor:
    """Compute the BALD score: what a row's label tells about which draw is right.

    ``I(y; omega | x) = H(mean_t p_t) - mean_t H(p_t)`` [1]_ in nats, for each row
    alone.

    Parameters
    ----------
    proba_samples : array or tensor of shape (n_rows, n_draws, n_classes)
        Class probabilities under each draw of the model.

    Returns
    -------
    scores : float64 array or tensor of shape (n_rows,)
        Between 0 and ``log(n_draws)``; of the input's kind, where it lies.

    Raises
    ------
    ValueError
        If the shape or type is wrong, there are fewer than two draws, or a row is not
        a distribution.

    References
    ----------
    .. [1] Houlsby, Huszar, Ghahramani and Lengyel (2011). Bayesian active learning for
       classification and preference learning. arXiv:1112.5745, section 2.

    Examples
    --------
    >>> from skal.selection import mutual_information
    >>> agree, differ = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]
    >>> mutual_information([agree, differ]).round(4).tolist()
    [0.0, 0.6931]
    """
    samples = _check_samples(proba_samples)
    with torch.no_grad():
        scores = _mutual_information(samples)[0]
    return scores if isinstance(proba_samples, torch.Tensor) else scores.numpy()


def _check_samples(proba_samples):
    samples = check_matrix(proba_samples, "proba_samples", ndim=3)
    n_draws, n_classes = samples.shape[1:]
    if n_draws < 2 or n_classes < 1:
        raise ValueError(
            "proba_samples must have shape (n_rows, n_draws, n_classes) with at least "
            f"2 draws and 1 class, got shape {tuple(samples.shape)}."
        )
    for _, rows in _blocks(samples):
        if not bool(torch.isfinite(rows).all()):
            raise ValueError("proba_samples must be finite, but has NaN or inf.")
        sums = rows.sum(2)
        error = torch.maximum((sums - 1).abs(), -rows.amin(2)).flatten()
        worst = int(error.argmax())
        if float(error[worst]) > 1e-3:
            raise ValueError(
                "proba_samples must hold distributions along its last axis, but one "
                f"sums to {float(sums.flatten()[worst]):.4g} and its least entry is "
                f"{float(rows.amin(2).flatten()[worst]):.4g}; pass probabilities, "
                "neither logits nor log-probabilities."
            )
    return samples


def _blocks(samples):
    """Yield (slice, rows) so that a float64 copy of the rows stays small."""
    step = max(1, BLOCK // samples.shape[1:].numel())
    for start in range(0, len(samples), step):
        block = slice(start, start + step)
        yield block, samples[block]


def _distributions(rows):
    """Return a copy in float64 that sums to one as exactly as it can."""
    rows = rows.clamp(min=0).double()
    return rows.div_(rows.sum(2, keepdim=True))


def _plogp(proba):
    """``p log p`` with ``0 log 0 = 0``."""
    return proba.clamp(min=torch.finfo(proba.dtype).tiny).log_().mul_(proba)


def _mutual_information(samples):
    """Scores and mean entropies of the draws, each of shape (n_rows,)."""
    scores = torch.empty(len(samples), dtype=torch.float64, device=samples.device)
    conditional = torch.empty_like(scores)
    for block, rows in _blocks(samples):
        rows = _distributions(rows)
        conditional[block] = -_plogp(rows).sum(2).mean(1)
        marginal = -_plogp(rows.mean(1)).sum(1)
        scores[block] = (marginal - conditional[block]).clamp_(min=0)
    return scores, conditional
