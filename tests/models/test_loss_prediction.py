import pytest
import torch

from skal.models import LossPrediction, RankingLoss


def test_hinge_by_hand():
    losses = torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0])  # the fifth has no partner
    predicted = torch.tensor([3.0, 1.0, 1.5, 1.0, 7.0])
    assert RankingLoss()(predicted, losses).item() == (3 + 0.5) / 2
    assert RankingLoss(margin=2.0)(predicted, losses).item() == (4 + 1.5) / 2
    assert RankingLoss()(predicted + 8, losses).item() == (3 + 0.5) / 2
    assert RankingLoss()(losses, losses).item() == 0  # gaps of 3 and 1
    assert RankingLoss()(torch.ones(5), losses).item() == 1
    assert RankingLoss()(-losses, losses).item() == (4 + 2) / 2


def test_only_predictions_of_unequal_losses_get_gradients():
    losses = torch.tensor([0.0, 1.0, 1.0, 3.0], requires_grad=True)
    predicted = torch.zeros(4, requires_grad=True)
    RankingLoss()(predicted, losses).backward()
    assert losses.grad is None
    assert predicted.grad.tolist() == [0.5, 0, 0, -0.5]


@pytest.mark.parametrize("n", [0, 1])
def test_no_pair_is_no_loss(n):
    predicted = torch.ones(n, requires_grad=True)
    loss = RankingLoss()(predicted, torch.ones(n))
    loss.backward()
    assert loss.item() == 0
    assert not predicted.grad.any()


def test_prediction_reads_every_layer():
    module = LossPrediction([4, 2], width=64)
    means = [torch.ones(3, 4, requires_grad=True), torch.ones(3, 2, requires_grad=True)]
    predicted = module(means)
    assert predicted.shape == (3,)
    predicted.sum().backward()
    assert all(mean.grad.abs().sum() > 0 for mean in means)
    assert module.head.in_features == 128
