"""Residual network for small images."""

import torch
from torch import nn


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pooling, for small images.

    Everything after the stem is torchvision's `resnet18`, untrained.

    Parameters
    ----------
    n_channels : int
        Channels of the images.
    n_classes : int
        Number of logits.
    dropout : float, default=0.0
        Probability of dropping a feature before the last layer; 0 adds no dropout
        layer.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun (2016). Deep residual learning for image
       recognition. CVPR.

    Examples
    --------
    >>> import torch
    >>> from skal.models import ResNet18
    >>> ResNet18(1, 10)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, n_channels: int, n_classes: int, dropout: float = 0.0):
        super().__init__()
        from torchvision.models import resnet18

        self.network = resnet18(num_classes=n_classes)
        stem = nn.Conv2d(n_channels, 64, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.network.conv1 = stem
        self.network.maxpool = nn.Identity()
        if dropout > 0:
            self.network.fc = nn.Sequential(nn.Dropout(dropout), self.network.fc)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_channels, height, width)

        Returns
        -------
        logits : tensor of shape (n_samples, n_classes)
        """
        return self.network(x)
