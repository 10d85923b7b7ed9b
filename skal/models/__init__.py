"""Small networks that return logits, for data sets of tables and small images."""

from skal.models._convnet import ConvNet
from skal.models._mlp import MLP
from skal.models._resnet import ResNet18
from skal.models._standardized import Standardized

__all__ = ["MLP", "ConvNet", "ResNet18", "Standardized"]
