"""Try in advance whether an estimator can give what a strategy reads."""

import numpy as np
from torch import nn

from skal.net.evaluation import check_has_layers, check_has_proba
from skal.net.gradients import check_differentiable
from skal.net.training import final_estimator, is_net, private_clone
from skal.net.wrapped import warn_of_wrapped_nets
from skal.pool import OF_HEAD, PoolView
from skal.utils.rows import n_rows
from skal.utils.seeds import isolated_rng


def try_estimator(estimator, X, strategy, *, n_classes, embedding_layer, random_state):
    """Raise where a fresh clone cannot give what a strategy reads, before any fit.

    A bare net is shown two rows; what stands behind unfitted transformers is not tried.

    Parameters
    ----------
    estimator : estimator
        Never touched.
    X : rows
        As for `PoolView`.
    strategy : QueryStrategy
        Its `requires` and `active_posterior` say what it will ask for.
    n_classes : int
        Number of classes known, or 0.
    embedding_layer : str
        See `PoolView`.
    random_state : int
        Seed of the clone's weights.
    """
    reads = {name.removeprefix("labeled.") for name in strategy.requires}
    if "input_gradients" in reads:
        check_differentiable(final_estimator(estimator))
    if "hidden_means" in reads:
        check_has_layers(final_estimator(estimator))
    warn_of_wrapped_nets(final_estimator(estimator), reads)
    posterior = getattr(strategy, "active_posterior", None)
    if posterior is not None:
        posterior.check(estimator)
    prepared = strategy.prepare(private_clone(estimator, n_classes))
    if not is_net(final_estimator(estimator)):
        if reads & {"proba", "log_proba", "logits"}:
            check_has_proba(
                final_estimator(estimator), or_decisions="decision_values" in reads
            )
        return
    if not is_net(estimator):
        return
    with isolated_rng(random_state):
        net = prepared if is_net(prepared) else private_clone(estimator, n_classes)
        net.initialize()
    if reads or isinstance(net.criterion_, nn.NLLLoss):
        view = PoolView.of_rows(
            net,
            X,
            np.arange(min(2, n_rows(X))),
            classes=np.arange(n_classes),
            embedding_layer=embedding_layer,
            random_state=random_state,
        )
        view.prefetch(reads)
        for name in ["proba", *sorted(reads & OF_HEAD)]:
            getattr(view, name)
        if "hidden_means" in reads:
            view.hidden_means(strategy.layers)
        if "input_gradients" in reads:
            with view.input_gradients() as (batches, logits):
                logits(next(batches).requires_grad_())
