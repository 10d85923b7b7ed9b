"""Nets that a strategy trains beside the estimator: made, seeded and fitted alike."""

from sklearn.base import clone

from skal.utils.training import fit_isolated, is_net, private_clone


def check_auxiliary(aux, default):
    """Return an unfitted net that is nobody else's: a clone of `aux`, or the default.

    Parameters
    ----------
    aux : skorch.NeuralNet or None
        The user's; never touched.
    default : callable
        Makes the net for None.

    Raises
    ------
    TypeError
        Where `aux` is something else.
    """
    if aux is None:
        return default()
    if not is_net(aux):
        raise TypeError(
            f"aux must be a skorch net or None, got {aux!r}; pass None and set its "
            "parameters as in aux__max_epochs=50."
        )
    return clone(aux)


def fit_auxiliary(net, X, y=None, *, seed, device, **defaults):
    """Fit a fresh clone of a net, with its own seed, leaving no trace elsewhere.

    Parameters
    ----------
    net : skorch.NeuralNet
        Never touched.
    X, y : rows and targets
        As the net takes them.
    seed : int
        Of weights, batches and dropout, in [0, 2**32).
    device : str or torch.device
        Of the estimator's outputs; taken where the net's is skorch's default, "cpu".
    **defaults : dict
        Parameters of the net, such as ``module__n_inputs=64``, taken where it has no
        value of its own.

    Returns
    -------
    fitted : skorch.NeuralNet
        With its `history`.
    """
    private = private_clone(net, 2)
    given = private.get_params()
    params = {name: value for name, value in defaults.items() if name not in given}
    if str(private.device) == "cpu":
        params["device"] = str(device)
    private.set_params(**params)
    return fit_isolated(private, X, y, seed)
