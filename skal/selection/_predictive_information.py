"""Expected predictive information gain: what labels tell about those of targets."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._batch_bald import _check_samples, _distributions, _plogp

N_NUMBERS = 2**20  # in one block of joint probabilities


def predictive_information(
    proba_samples: ArrayLike | torch.Tensor, target_samples: ArrayLike | torch.Tensor
) -> NDArray[np.float64] | torch.Tensor:
    """Compute what a row's label tells about the label of a target, on average.

    ``mean_x* I(y; y* | x, x*) = mean_x* H(y) + H(y*) - H(y, y*)`` [1]_ in nats, where
    the joint distribution of ``y`` and ``y*`` is the mean over the draws of the
    products of their distributions.

    Parameters
    ----------
    proba_samples : array or tensor of shape (n_rows, n_draws, n_classes)
        Class probabilities under each draw of the model.
    target_samples : array or tensor of shape (n_targets, n_draws, n_classes)
        Those of at least one target, under the same draws.

    Returns
    -------
    scores : float64 array or tensor of shape (n_rows,)
        Between 0 and the BALD score; of the input's kind, where it lies.

    Raises
    ------
    ValueError
        If a shape or type is wrong, there are fewer than two draws, or a row is not a
        distribution.

    Notes
    -----
    Joint probabilities of many rows with all targets are one matrix product, in double
    precision. Memory is 8 MB for a block of 2^20 of them, some times over, but at least
    that of one row, and a copy of the targets in double precision: 30 MB for 4,000
    rows, 100 draws, 10 classes and 200 targets.

    References
    ----------
    .. [1] Bickford Smith, Kirsch, Farquhar, Gal, Foster and Rainforth (2023).
       Prediction-oriented Bayesian active learning. AISTATS.

    Examples
    --------
    >>> from skal.selection import predictive_information
    >>> first_bit = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    >>> second_bit = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    >>> predictive_information([first_bit, second_bit], [first_bit]).round(4).tolist()
    [0.6931, 0.0]
    """
    samples = _check_samples(proba_samples)
    targets = _check_samples(target_samples).to(samples.device)
    if targets.shape[1] != samples.shape[1] or len(targets) == 0:
        raise ValueError(
            f"target_samples must have one row at least and the {samples.shape[1]} "
            f"draws of proba_samples, got shape {tuple(targets.shape)}."
        )
    with torch.no_grad():
        targets = _distributions(targets)
        n_targets, n_draws, n_classes = targets.shape
        of_targets = -_plogp(targets.mean(1)).sum() / n_targets
        targets = targets.transpose(0, 1).reshape(n_draws, -1) / n_draws
        n_numbers = samples.shape[2] * n_targets * n_classes
        # In one piece: parts between blocks of 8 MB would leave holes of their size.
        scores = targets.new_empty(len(samples))
        step = max(1, N_NUMBERS // n_numbers)
        for score, rows in zip(scores.split(step), samples.split(step), strict=True):
            rows = _distributions(rows)
            alone = -_plogp(rows.mean(1)).sum(1)
            joint = rows.transpose(1, 2).reshape(-1, n_draws) @ targets
            together = -_plogp(joint).view(len(rows), -1).sum(1) / n_targets
            torch.clamp(alone + of_targets - together, min=0, out=score)
    return scores if isinstance(proba_samples, torch.Tensor) else scores.numpy()
