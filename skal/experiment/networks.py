"""The network of a run."""

import inspect
import pkgutil
from math import prod

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.utils import noop
from torch import nn, optim

from skal.experiment.names import MODELS
from skal.experiment.options import UsageError
from skal.models import MLP, ConvNet, ResNet18, Standardized
from skal.utils import isolated_rng


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
    optimizers = (optim.Adam, optim.SGD, optim.AdamW, optim.NAdam)
    by_name = {optimizer.__name__.lower(): optimizer for optimizer in optimizers}
    options["optimizer"] = by_name[config.optimizer]
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
    model, dropout = config.model, config.dropout
    sizes = {"n_classes": n_classes, "n_inputs": prod(shape)}
    if len(shape) == 3:
        sizes |= {"n_channels": shape[0], "image_size": shape[1]}
    if model not in MODELS:
        network = _import(model)
        try:
            named = set(inspect.signature(network).parameters)
        except ValueError:  # written in C
            named = set()
        if dropout is not None:
            if "dropout" not in named:
                raise UsageError(
                    f"--dropout {dropout} is nothing for --model {model!r}, which has "
                    "no argument `dropout`; leave it out."
                )
            sizes["dropout"] = dropout
        return network, {k: v for k, v in sizes.items() if k in named | {"n_classes"}}
    if model == "mlp":
        network, names = MLP, ("n_inputs", "n_classes")
    elif len(shape) != 3:
        raise UsageError(
            f"--model {model} needs images, and the rows here have shape {shape}; take "
            "--model mlp."
        )
    elif model == "cnn":
        network, names = ConvNet, ("n_channels", "n_classes", "image_size")
    else:
        network, names = ResNet18, ("n_channels", "n_classes")
    params = {name: sizes[name] for name in names}
    own = {"mlp": 0.2, "cnn": 0.5, "resnet": 0.0}
    return network, {**params, "dropout": own[model] if dropout is None else dropout}


def _import(model):
    try:
        network = pkgutil.resolve_name(model)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"--model {model!r} cannot be imported: {_reason(error)}."
        ) from error
    if isinstance(network, nn.Module) or not callable(network):
        raise UsageError(
            f"--model {model!r} is a {type(network).__name__}; name the class of a "
            "module, or a function that makes one."
        )
    return network


def _try_network(config, estimator, data, shape):
    """Raise where two rows get no logits of the right width, or no training."""
    model, params = f"--model {config.model!r}", estimator.get_params_for("module")
    try:
        module = estimator.module(**params)
    except (Exception, SystemExit) as error:
        known = {k: v for k, v in params.items() if k not in ("network", "mean", "std")}
        raise UsageError(
            f"{model} cannot be made with {known}: {_reason(error)}."
        ) from error
    if not isinstance(module.network, nn.Module):
        kind = type(module.network).__name__
        raise UsageError(f"{model} must make a torch.nn.Module, got a {kind}.")
    rows = [data.X_train[row] for row in range(2)]
    rows = [row[0] if isinstance(row, tuple | list) else row for row in rows]
    # A copy, since torch warns of tensors over read-only memory.
    rows = [row.copy() if isinstance(row, np.ndarray) else row for row in rows]
    rows = torch.stack([torch.as_tensor(row) for row in rows]).to(config.device)
    module = module.eval().to(config.device)
    try:
        with torch.no_grad():
            logits = module(rows)
    except Exception as error:
        raise UsageError(
            f"{model} fails on rows of shape {shape}: {_reason(error)}."
        ) from error
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
    names = dict(module.network.named_modules())
    if config.embedding_layer not in ("auto", *filter(None, names)):
        raise UsageError(
            f"--embedding-layer {config.embedding_layer!r} is not in {model}; its "
            f"layers are {', '.join(filter(None, names))}."
        )
    try:
        targets = torch.arange(2, device=rows.device)
        nn.functional.cross_entropy(module.train()(rows), targets).backward()
    except Exception as error:
        raise UsageError(f"{model} cannot be trained: {_reason(error)}.") from error


def _reason(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else repr(error)
