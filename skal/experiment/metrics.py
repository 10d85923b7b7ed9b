"""Numbers of one round, all from one set of predicted probabilities."""

import numpy as np


def score_probabilities(y, proba, n_bins=15):
    """Compute the scores of predicted probabilities.

    Parameters
    ----------
    y : ndarray of int of shape (n_samples,)
        True classes, positions in the columns of `proba`.
    proba : ndarray of shape (n_samples, n_classes)
    n_bins : int, default=15
        Bins of equal width for the calibration error.

    Returns
    -------
    scores : dict of str to float
        accuracy; balanced_accuracy, the mean recall of the classes in `y`; nll, the
        mean negative log-likelihood; ece, the expected calibration error [1]_.

    Raises
    ------
    ValueError
        Where a probability is not finite.

    References
    ----------
    .. [1] Guo, Pleiss, Sun and Weinberger (2017). On calibration of modern neural
       networks. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from skal.experiment.metrics import score_probabilities
    >>> proba = np.array([[0.75, 0.25], [0.25, 0.75]])
    >>> scores = score_probabilities(np.array([0, 1]), proba)
    >>> scores["accuracy"], scores["ece"]
    (1.0, 0.25)
    """
    proba = np.asarray(proba, dtype=np.float64)
    if not np.isfinite(proba).all():
        raise ValueError(
            "the network gives NaN or infinite probabilities: training diverged; take "
            "a smaller learning rate, such as --lr 0.001."
        )
    hits = proba.argmax(axis=1) == y
    counts = np.bincount(y, minlength=proba.shape[1])
    recalls = np.bincount(y, hits, minlength=proba.shape[1])[counts > 0]
    # Single precision rounds tiny probabilities to 0.
    likelihood = np.maximum(proba[np.arange(len(y)), y], np.finfo(np.float32).tiny)
    confidence = proba.max(axis=1)
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, hits - confidence, minlength=n_bins)
    return {
        "accuracy": float(hits.mean()),
        "balanced_accuracy": float((recalls / counts[counts > 0]).mean()),
        "nll": float(-np.log(likelihood).mean()),
        "ece": float(np.abs(gaps).sum() / len(y)),
    }
