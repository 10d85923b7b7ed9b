"""Nets that a strategy trains beside the estimator."""

import inspect
import json

import numpy as np
import torch
from skorch.history import History

from skal.net.training import final_estimator, fit_isolated, is_net, private_clone
from skal.utils.seeds import isolated_rng


def device_of(estimator):
    """Name the device that an estimator computes on."""
    final = final_estimator(estimator)
    if is_net(final) and final.device is None:  # where the user has put it
        return str(next((p.device for p in final.module_.parameters()), "cpu"))
    return str(final.device) if is_net(final) else "cpu"


def check_auxiliary(net):
    """Raise, before anything is trained, what can be wrong with a net of the user.

    Parameters
    ----------
    net : skorch.NeuralNet

    Raises
    ------
    ValueError
        Where a module has no argument of a name that it is given, or `device` is none.
    """
    for name in ("module", *getattr(net, "_extra", ())):
        module = getattr(net, name)
        try:
            arguments = inspect.signature(module).parameters
        except (TypeError, ValueError):  # written in C
            continue
        takes_any = any(a.kind is a.VAR_KEYWORD for a in arguments.values())
        for key in net.get_params_for(name):
            if key not in arguments and not takes_any:
                raise ValueError(
                    f"aux__{name}__{key}: {module.__name__} has no such argument; it "
                    f"has {', '.join(arguments)}."
                )
    try:
        torch.device(net.device or "cpu")
    except RuntimeError as error:
        raise ValueError(
            f"aux__device={net.device!r} is no device; take 'cpu' or 'cuda'."
        ) from error


def private_auxiliary(net, *, device, defaults=None, **params):
    """Clone a net with the parameters that `fit_auxiliary` gives it.

    Parameters
    ----------
    net, device, defaults, **params
        As for `fit_auxiliary`.

    Returns
    -------
    private : skorch.NeuralNet
        Not initialized.
    """
    private = private_clone(net, 2)
    given = private.get_params()
    params |= {k: v for k, v in (defaults or {}).items() if k not in given}
    if str(private.device) == "cpu":
        params["device"] = str(device)
    return private.set_params(**params)


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
    private = private_auxiliary(net, device=device, defaults=defaults, **params)
    return fit_isolated(private, X, y, seed)


def restore_auxiliary(net, state, *, device, defaults=None, **params):
    """Make the net that `auxiliary_state` was taken of.

    Parameters
    ----------
    net, device, defaults, **params
        As they were for `fit_auxiliary`.
    state : dict of str to ndarray
        As of `auxiliary_state`.

    Returns
    -------
    fitted : skorch.NeuralNet
        With its weights and `history`; the optimizers begin anew.
    """
    private = private_auxiliary(net, device=device, defaults=defaults, **params)
    with isolated_rng(0):
        private.initialize()
    for name in private._modules:
        start = f"{name}."
        weights = {
            key.removeprefix(start): torch.from_numpy(np.array(value))
            for key, value in state.items()
            if key.startswith(start)
        }
        try:
            getattr(private, f"{name}_").load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"the stored weights are not those of this net: {error}"
            ) from error
    private.history_ = History(json.loads(str(state["history"])))
    return private


def auxiliary_state(net):
    """Give the weights of a fitted net, and its history without batches and times.

    Parameters
    ----------
    net : skorch.NeuralNet

    Returns
    -------
    state : dict of str to ndarray
        The same whenever the same net is trained.
    """
    epochs = [
        {k: v for k, v in epoch.items() if k not in ("batches", "dur")}
        for epoch in net.history
    ]
    state = {"history": np.array(json.dumps(epochs, default=float))}
    for name in net._modules:
        for key, value in getattr(net, f"{name}_").state_dict().items():
            state[f"{name}.{key}"] = value.cpu().numpy()
    return state
