"""Run a network so that its outputs can be differentiated by its inputs."""

from contextlib import contextmanager

import torch
from skorch.utils import to_device

from skal.net.heads import find_logits, scores_of
from skal.net.training import is_net


def check_differentiable(estimator):
    """Raise where an estimator is no network, so that it has no input gradients."""
    if not is_net(estimator):
        raise ValueError(
            "this strategy needs gradients with respect to the input, which "
            f"{type(estimator).__name__} does not have; use a skorch net whose rows "
            "are floating-point numbers."
        )


def input_batch(x, net):
    """Bring a batch to the network's device; raise where it has no gradient."""
    is_tensor = isinstance(x, torch.Tensor)
    if not is_tensor or not x.is_floating_point():
        raise ValueError(
            "this strategy needs gradients with respect to the input, so the network "
            "must take one tensor of floating-point numbers; "
            f"{type(net.module_).__name__} takes "
            f"{x.dtype if is_tensor else type(x).__name__}. Use a strategy that reads "
            "embeddings or predictions."
        )
    return to_device(x, net.device).detach()


@contextmanager
def parameters_frozen(modules):
    """Let no parameter of these modules collect gradients while the block runs."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def differentiable_logits(net, probe):
    """Make the function from inputs to the logits of a `PoolView`.

    Parameters
    ----------
    net : skorch net
        In evaluation mode.
    probe : HeadProbe
        Entered.

    Returns
    -------
    logits : callable
        `logits(x)`, of shape (n_batch, n_classes), keeps the graph where x wants
        gradients.

    Raises
    ------
    ValueError
        By `logits`, where its result does not depend on x differentiably.
    """
    nonlinearity = net._get_predict_nonlinearity()

    def logits(x):
        wanted = torch.is_grad_enabled() and x.requires_grad
        # A copy, because the network may write to its input.
        output = scores_of(net.infer(x.clone()))
        _, head_output = probe.read(output)
        candidates = [z for z in (head_output, output) if z is not None]
        z = find_logits(candidates, nonlinearity(to_device(output, "cpu")))
        if wanted and not z.requires_grad:
            raise ValueError(
                f"the outputs of {type(net.module_).__name__} do not depend on its "
                "input in a differentiable way (detach, no_grad or NumPy in its "
                "forward?), but this strategy needs gradients with respect to the "
                "input. Use a strategy that reads embeddings or predictions."
            )
        return z

    return logits
