"""Small networks that return logits, and networks that strategies train."""

from skal.models._adversarial_vae import AdversarialVAE, Discriminator
from skal.models._autoencoder import VAE, Autoencoder
from skal.models._convnet import ConvNet
from skal.models._frozen import FrozenFeatures
from skal.models._gan import Critic, Generator, WassersteinGAN, gradient_penalty
from skal.models._gcn import GCN, GCNLoss, SimilarityGraph, similarity_graph
from skal.models._loss_prediction import LossPrediction, RankingLoss
from skal.models._mlp import MLP
from skal.models._resnet import ResNet18
from skal.models._standardized import Standardized
from skal.models._wasserstein_critic import WassersteinCritic

__all__ = [
    "GCN",
    "MLP",
    "VAE",
    "AdversarialVAE",
    "Autoencoder",
    "ConvNet",
    "Critic",
    "Discriminator",
    "FrozenFeatures",
    "GCNLoss",
    "Generator",
    "LossPrediction",
    "RankingLoss",
    "ResNet18",
    "SimilarityGraph",
    "Standardized",
    "WassersteinCritic",
    "WassersteinGAN",
    "gradient_penalty",
    "similarity_graph",
]
