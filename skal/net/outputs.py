"""What passes of a fitted network over all rows give, gathered batch by batch."""

from contextlib import contextmanager

from skorch.utils import to_device

from skal.net.evaluation import check_count, mixed, running
from skal.net.gradients import (
    differentiable_logits,
    input_batch,
    parameters_frozen,
)
from skal.net.heads import (
    HeadProbe,
    as_logits,
    check_distribution,
    explains,
    log_of,
    scores_of,
)
from skal.net.hidden import HiddenMeans


class Collected:
    """Rows of all batches in one tensor.

    Copied as they come: a view, such as one token of many, would keep its whole batch
    in memory, and so would joining the batches in the end keep everything twice.

    Parameters
    ----------
    n_rows : int
        Of all batches.
    scratch : Scratch
        Where they go.
    """

    def __init__(self, n_rows, scratch):
        self.n_rows, self.scratch = n_rows, scratch
        self.count = 0
        self.rows = None

    def add(self, batch):
        """Copy a batch."""
        if self.rows is None:
            self.scratch.check_chunk(batch, len(batch))
            self.rows = self.scratch.empty(batch, self.n_rows, *batch.shape[1:])
        self.rows[self.count : self.count + len(batch)] = batch
        self.count += len(batch)


def read_outputs(
    net, batches, n_rows, seed, scratch, precision, *, layer, classes, embeddings
):
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
    scratch : Scratch
        Where tensors go.
    precision : {None, "bfloat16", "float16"}
        Of the network's products.
    layer : str
        Name of the layer whose input is the embedding, or "auto".
    classes : array of shape (n_classes,) or None
        None of which may lack an output.
    embeddings : bool
        Whether to keep them.

    Returns
    -------
    outputs : dict
        Tensors `proba` and `logits` of shape (n_rows, n_classes), the nn.Linear `head`
        or None, and `embeddings` where they are kept, None where there are none.

    Raises
    ------
    OddRowError
        Where some rows have no finite probabilities.
    ValueError
        Where the outputs are no distributions.
    """
    nonlinearity = net._get_predict_nonlinearity()
    probe = HeadProbe(net.module_, layer)
    probas, outputs, heads, inputs = (Collected(n_rows, scratch) for _ in range(4))

    def read(output, whole):
        # The nonlinearity runs on the CPU, as in skorch's predict_proba.
        proba = nonlinearity(to_device(whole(output), "cpu"))
        at = range(probas.count, probas.count + len(proba))
        check_distribution(proba, net, classes, at)
        probas.add(proba)
        outputs.add(whole(output))
        embedding, head_output = probe.read(output)
        if head_output is not None and head_output is not output:
            heads.add(whole(head_output))
        if embeddings and embedding is not None:
            inputs.add(whole(embedding))

    _run(net, batches, n_rows, seed, precision, probe, read)
    scores = [z.rows for z in (heads, outputs) if z.count]
    found = {
        "logits": _find_logits(scores, probas.rows, scratch),
        "proba": probas.rows.to(outputs.rows.device),
        "head": probe.head,
    }
    return {**found, "embeddings": inputs.rows} if embeddings else found


def _find_logits(candidates, proba, scratch):
    """As `find_logits`, a chunk of the rows at a time."""
    step = scratch.step(proba)
    for z in candidates:
        pairs = zip(z.split(step), proba.split(step), strict=True)
        if all(explains(as_logits(some), p) for some, p in pairs):
            alone = z.ndim == 1 or z.shape[-1] == 1
            return scratch.by_rows(as_logits, z) if alone else z
    return scratch.by_rows(log_of, proba).to(candidates[0].device)


def hidden_means(net, batches, n_rows, seed, scratch, precision, layers):
    """Average what inner layers give; see `PoolView.hidden_means`."""
    probe, means = HiddenMeans(net.module_, layers), {}

    def read(output, whole):
        for name, rows in probe.read(len(output)).items():
            means.setdefault(name, Collected(n_rows, scratch)).add(whole(rows))

    _run(net, batches, n_rows, seed, precision, probe, read)
    return {name: collected.rows for name, collected in means.items()}


@contextmanager
def input_gradients(net, batches, seed, layer):
    """Yield batches and a differentiable function; see `PoolView.input_gradients`."""
    probe = HeadProbe(net.module_, layer)
    with running(net, seed) as modules, parameters_frozen(modules), probe:
        net._set_training(False)
        inputs = (input_batch(x, net) for x, _ in batches)
        yield inputs, differentiable_logits(net, probe)


def _run(net, batches, n_rows, seed, precision, hooks, take_output):
    """Run the network over all batches in order, handing on what it gives."""
    count = 0
    with running(net, seed), mixed(net, precision) as whole, hooks:
        for batch in batches:
            output = scores_of(net.evaluation_step(batch, training=False))
            count += len(output)
            if count <= n_rows:
                take_output(output, whole)
    check_count(net, count, n_rows)
