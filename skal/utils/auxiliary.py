"""Nets that a strategy trains beside the estimator."""

from skal.utils.training import final_estimator, fit_isolated, is_net, private_clone


def device_of(estimator):
    """Name the device that an estimator computes on."""
    final = final_estimator(estimator)
    return str(final.device) if is_net(final) else "cpu"


def fit_auxiliary(net, X, y=None, *, seed, device, defaults=None, **params):
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
    defaults : dict, default=None
        Parameters of the net, such as ``{"module__n_inputs": 64}``, taken where it has
        no value of its own.
    **params : dict
        Parameters of the net that replace its own.

    Returns
    -------
    fitted : skorch.NeuralNet
        With its `history`.
    """
    private = private_clone(net, 2)
    given = private.get_params()
    params |= {k: v for k, v in (defaults or {}).items() if k not in given}
    if str(private.device) == "cpu":
        params["device"] = str(device)
    return fit_isolated(private.set_params(**params), X, y, seed)
