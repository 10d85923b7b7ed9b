"""What labels tell about the model that drew the predictions: BALD and BatchBALD."""

import torch

from skal.selection._base import check_matrix

# Doubles in one block of temporaries.
BLOCK = 2**18


def mutual_information(proba_samples):
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
    """Return rows in float64 that sum to one as exactly as it can."""
    rows = rows.double().clamp_(min=0) if rows.dtype != torch.float64 else rows.clamp(0)
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
