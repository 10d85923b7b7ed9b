"""The network of a run."""

import inspect
import pkgutil
from contextlib import contextmanager
from math import prod

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.utils import noop
from torch import nn, optim

from skal.experiment.options import UsageError
from skal.models import MLP, ConvNet, ResNet18, Standardized
from skal.utils import isolated_rng

# Networks by name, and their probability of dropout.
_OWN = {
    "linear": (MLP, 0.0),
    "mlp": (MLP, 0.2),
    "cnn": (ConvNet, 0.5),
    "resnet": (ResNet18, 0.0),
}
_OPTIMIZERS = {
    optimizer.__name__.lower(): optimizer
    for optimizer in (optim.Adam, optim.SGD, optim.AdamW, optim.NAdam)
}


class StandardizedRows(Standardized):
    """`Standardized` for rows of a table: one mean and deviation a column.

    Parameters
    ----------
    network : type
        Class of the network to call.
    mean, std : sequence of float
        One value a column.
    **params : dict
        Arguments of `network`.
    """

    def __init__(self, network, mean, std, **params):
        super().__init__(network, mean, std, **params)
        self.mean, self.std = self.mean.flatten(), self.std.flatten()


def build_estimator(config, data):
    """Build an untrained classifier for a data set, and try it on two rows.

    A model of the user is called with `n_classes` and with those of `n_inputs`,
    `n_channels` and `image_size` that its signature names; it gets standardised rows
    and returns logits.

    Parameters
    ----------
    config : RunConfig
        With a resolved device.
    data : Bunch
        As :func:`skal.datasets.load_dataset` returns it.

    Returns
    -------
    estimator : NeuralNetClassifier
        Takes the rows of `data` as they are.
    """
    shape = tuple(data.image_shape or np.shape(data.X_train)[1:])
    network, params = _network(config, shape, len(data.classes))
    mean = np.zeros(1) if data.mean is None else np.asarray(data.mean)
    std = np.ones(1) if data.std is None else np.asarray(data.std)
    options = {f"module__{name}": value for name, value in params.items()}
    options["optimizer"] = _OPTIMIZERS[config.optimizer]
    if config.optimizer == "sgd":
        options["optimizer__momentum"] = config.momentum
    if config.weight_decay is not None:
        options["optimizer__weight_decay"] = config.weight_decay
    if config.patience:
        stopping = EarlyStopping("train_loss", patience=config.patience, sink=noop)
        options["callbacks"] = [("patience", stopping)]
    if data.augmentation is not None:
        options["iterator_train__collate_fn"] = data.augmentation
    estimator = NeuralNetClassifier(
        Standardized if len(shape) == 3 else StandardizedRows,
        module__network=network,
        module__mean=mean.tolist(),
        # A constant column stays 0.
        module__std=np.where(std > 0, std, 1.0).tolist(),
        criterion=nn.CrossEntropyLoss,
        lr=config.lr,
        max_epochs=config.epochs,
        batch_size=64,
        train_split=None,
        verbose=0,
        device=config.device,
        **options,
    )
    with isolated_rng(config.seed):
        _try_network(config, estimator, data, shape)
    return estimator


def _network(config, shape, n_classes):
    """Class of the network and its arguments."""
    model = config.model
    network, dropout = _OWN.get(model) or (_import(model), None)
    image = len(shape) == 3
    if network in (ConvNet, ResNet18) and not image:
        raise UsageError(
            f"--model {model} needs images, and the rows here have shape {shape}; take "
            "--model mlp."
        )
    sizes = {"n_inputs": prod(shape)}
    if image:
        sizes |= {"n_channels": shape[0], "image_size": shape[1]}
    try:
        named = inspect.signature(network).parameters
    except ValueError:  # written in C
        named = ()
    if config.dropout is not None:
        dropout = config.dropout
        if "dropout" not in named or model == "linear":
            raise UsageError(
                f"--dropout {dropout} is nothing for --model {model!r}, which has no "
                "argument `dropout`; leave it out."
            )
    if dropout is not None:
        sizes["dropout"] = dropout
    kept = {name: value for name, value in sizes.items() if name in named}
    if model == "linear":
        kept["hidden"] = ()
    return network, {"n_classes": n_classes, **kept}


def _import(model):
    with _refused(f"--model {model!r} cannot be imported"):
        network = pkgutil.resolve_name(model)
    if isinstance(network, nn.Module) or not callable(network):
        raise UsageError(
            f"--model {model!r} is a {type(network).__name__}; name the class of a "
            "module, or a function that makes one."
        )
    return network


def _try_network(config, estimator, data, shape):
    """Raise where two rows get no logits of the right width, or no training."""
    model, params = f"--model {config.model!r}", estimator.get_params_for("module")
    known = {k: v for k, v in params.items() if k not in ("network", "mean", "std")}
    with _refused(f"{model} cannot be made with {known}"):
        module = estimator.module(**params)
    if not isinstance(module.network, nn.Module):
        kind = type(module.network).__name__
        raise UsageError(f"{model} must make a torch.nn.Module, got a {kind}.")
    names = [name for name, _ in module.network.named_modules() if name]
    if config.embedding_layer not in ("auto", *names):
        raise UsageError(
            f"--embedding-layer {config.embedding_layer!r} is not in {model}; its "
            f"layers are {', '.join(names)}."
        )
    rows = [data.X_train[row] for row in range(2)]
    rows = [row[0] if isinstance(row, tuple | list) else row for row in rows]
    # Copies, since torch warns of tensors over read-only memory.
    rows = torch.stack([torch.tensor(np.asarray(row)) for row in rows])
    rows, module = rows.to(config.device), module.eval().to(config.device)
    with _refused(f"{model} fails on rows of shape {shape}"), torch.no_grad():
        logits = module(rows)
    expected = (2, len(data.classes))
    if not isinstance(logits, torch.Tensor) or logits.shape != expected:
        found = tuple(getattr(logits, "shape", ())) or type(logits).__name__
        raise UsageError(
            f"{model} must return logits of shape (n_samples, {expected[1]}), one "
            f"column a class; two rows gave {found}."
        )
    if (logits >= 0).all() and torch.allclose(logits.sum(1), logits.new_ones(2)):
        raise UsageError(
            f"{model} must return logits, got probabilities; leave out the softmax."
        )
    with _refused(f"{model} cannot be trained"):
        targets = torch.arange(2, device=rows.device)
        nn.functional.cross_entropy(module.train()(rows), targets).backward()


@contextmanager
def _refused(what):
    """Say of any error what could not be done."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0].rstrip('.')}".removesuffix(": ")
        raise UsageError(f"{what}: {reason}.") from error
