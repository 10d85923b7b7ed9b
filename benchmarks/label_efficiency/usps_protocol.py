"""Network of the USPS protocol of CDALBench: --model usps_protocol:small_mlp."""

from skal.models import MLP


def small_mlp(n_inputs, n_classes):
    return MLP(n_inputs, n_classes, hidden=(24, 12), dropout=0.1)
