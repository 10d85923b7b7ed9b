"""The network of a run."""

from math import prod

from skorch import NeuralNetClassifier
from torch import nn, optim

from skal.models import MLP, ConvNet, ResNet18, Standardized


def build_estimator(config, data):
    """Build an untrained classifier for a data set.

    Parameters
    ----------
    config : RunConfig
        With a resolved device.
    data : Bunch
        As :func:`skal.datasets.load_dataset` returns it.

    Returns
    -------
    estimator : NeuralNetClassifier
        Takes the images of `data` as they are.
    """
    n_channels, height, _ = data.image_shape
    if config.model == "mlp":
        network, params = MLP, {"n_inputs": prod(data.image_shape), "dropout": 0.2}
    elif config.model == "cnn":
        network, params = ConvNet, {"n_channels": n_channels, "image_size": height}
    else:
        network, params = ResNet18, {"n_channels": n_channels}
    params["n_classes"] = len(data.classes)
    options = {f"module__{name}": value for name, value in params.items()}
    if data.augmentation is not None:
        options["iterator_train__collate_fn"] = data.augmentation
    return NeuralNetClassifier(
        Standardized,
        module__network=network,
        module__mean=data.mean.tolist(),
        module__std=data.std.tolist(),
        criterion=nn.CrossEntropyLoss,
        optimizer=optim.Adam,
        lr=config.lr,
        max_epochs=config.epochs,
        batch_size=64,
        train_split=None,
        verbose=0,
        device=config.device,
        **options,
    )
