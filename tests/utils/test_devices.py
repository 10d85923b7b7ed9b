import pytest
import torch

from skal.utils.devices import usable_device


def test_auto_is_a_gpu_where_there_is_one():
    assert usable_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert usable_device(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("device", ["nothing", "cpu:x", "meta", "cuda:99"])
def test_what_cannot_be_used_is_named(device):
    with pytest.raises(
        ValueError, match=f"^device='{device}' cannot be used here.*aut"
    ):
        usable_device(device)
