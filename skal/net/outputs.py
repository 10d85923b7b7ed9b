"""What passes of a fitted network over all rows give, gathered batch by batch."""

from contextlib import contextmanager

import torch
from skorch.utils import to_device

from skal.net.evaluation import check_count, running
from skal.net.gradients import (
    differentiable_logits,
    input_batch,
    parameters_frozen,
)
from skal.net.heads import HeadProbe, check_distribution, find_logits, scores_of
from skal.net.hidden import HiddenMeans


class Collected:
    """Rows of all batches in one tensor.

    Copied as they come: a view, such as one token of many, would keep its whole batch
    in memory, and so would joining the batches in the end keep everything twice.
    """

    def __init__(self, n_rows):
        self.n_rows = n_rows
        self.count = 0
        self.rows = None

    def add(self, batch):
        """Copy a batch; rows beyond the expected number are only counted."""
        if self.rows is None:
            self.rows = batch.new_empty((self.n_rows, *batch.shape[1:]))
        place = self.rows[self.count : self.count + len(batch)]
        place.copy_(batch[: len(place)])
        self.count += len(batch)


def read_outputs(net, batches, n_rows, seed, *, layer, classes, embeddings):
    """Read what one pass gives.

    Parameters
    ----------
    net : skorch net
        Fitted.
    batches : iterable
        As of `skal.net.evaluation.predict_batches`.
    n_rows : int
        In all batches.
    seed : int
        Of the global generators.
    layer : str
        Name of the layer whose input is the embedding, or "auto".
    classes : array of shape (n_classes,) or None
        None of which may lack an output.
    embeddings : bool
        Whether to keep them.

    Returns
    -------
    outputs : dict
        Tensors `proba`, `logits` and `log_proba` of shape (n_rows, n_classes), the
        nn.Linear `head` or None, and `embeddings` where they are kept, None where there
        are none.

    Raises
    ------
    ValueError
        Where the outputs are no distributions.
    """
    nonlinearity = net._get_predict_nonlinearity()
    probe = HeadProbe(net.module_, layer)
    probas, outputs, heads, inputs = (Collected(n_rows) for _ in range(4))

    def read(output):
        # The nonlinearity runs on the CPU, as in skorch's predict_proba.
        probas.add(nonlinearity(to_device(output, "cpu")))
        outputs.add(output)
        embedding, head_output = probe.read(output)
        if head_output is not None and head_output is not output:
            heads.add(head_output)
        if embeddings and embedding is not None:
            inputs.add(embedding)

    _run(net, batches, n_rows, seed, probe, read)
    proba = probas.rows
    check_distribution(proba, net, classes)
    logits = find_logits([z.rows for z in (heads, outputs) if z.count], proba)
    found = {
        "proba": proba.to(outputs.rows.device),
        "logits": logits,
        "log_proba": torch.log_softmax(logits, dim=1),
        "head": probe.head,
    }
    return {**found, "embeddings": inputs.rows} if embeddings else found


def hidden_means(net, batches, n_rows, seed, layers):
    """Average what inner layers give; see `PoolView.hidden_means`."""
    probe, means = HiddenMeans(net.module_, layers), {}

    def read(output):
        for name, rows in probe.read(len(output)).items():
            means.setdefault(name, Collected(n_rows)).add(rows)

    _run(net, batches, n_rows, seed, probe, read)
    return {name: collected.rows for name, collected in means.items()}


@contextmanager
def input_gradients(net, batches, seed, layer):
    """Yield batches and a differentiable function; see `PoolView.input_gradients`."""
    probe = HeadProbe(net.module_, layer)
    with running(net, seed) as modules, parameters_frozen(modules), probe:
        net._set_training(False)
        inputs = (input_batch(x, net) for x, _ in batches)
        yield inputs, differentiable_logits(net, probe)


def _run(net, batches, n_rows, seed, hooks, take_output):
    """Run the network over all batches in order, handing on what it gives."""
    count = 0
    with running(net, seed), hooks:
        for batch in batches:
            output = scores_of(net.evaluation_step(batch, training=False))
            count += len(output)
            take_output(output)
    check_count(net, count, n_rows)
