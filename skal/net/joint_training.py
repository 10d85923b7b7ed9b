"""Mixins of the nets that strategies let learn from more than labels.

Each extends the loop's private clone of a net, see `skal.net.training.extend_net`.
"""

import math
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring
from skorch.dataset import get_len, unpack_data
from skorch.utils import to_device

from skal.net.auxiliary import private_auxiliary
from skal.net.auxiliary_rows import Cycle
from skal.net.batches import BatchLoader
from skal.net.gradients import parameters_frozen
from skal.net.heads import HeadProbe, missing_head, scores_of
from skal.net.hidden import HiddenMeans
from skal.net.inputs import map_tensors
from skal.net.training import check_finite_loss, label_dtype


class RankingSettings(NamedTuple):
    """What the strategy tells the net that it prepares."""

    module: type
    arguments: dict
    layers: tuple | None
    weight: float
    loss: torch.nn.Module
    detach_at: float


class PredictsLosses:
    """Mixin of the private net: train `loss_module_` to rank the losses of rows."""

    ranking_ = _shown = _caught = None

    @property
    def _default_callbacks(self):
        *callbacks, log = super()._default_callbacks
        curve = ("ranking_loss", PassthroughScoring("ranking_loss", on_train=True))
        return [*callbacks, curve, log]

    def __sklearn_clone__(self):
        """Clone the settings, too."""
        other = super().__sklearn_clone__()
        other.ranking_ = self.ranking_
        return other

    def __getstate__(self):
        """Leave out the rows of a fit that is under way."""
        return super().__getstate__() | {"_shown": None}

    def fit(self, X, y=None, **fit_params):
        """Fit, with the loss module made for what the layers give of these rows."""
        self._shown = X
        try:
            return super().fit(X, y, **fit_params)
        finally:
            self._shown = None

    def initialize_module(self):
        """Make the module, and in a fit the loss module."""
        super().initialize_module()
        if self._shown is None:
            return self
        module = to_device(self.module_, self.device).eval()
        probe = HiddenMeans(module, self.ranking_.layers)
        batch = next(iter(self.get_iterator(self.get_dataset(self._shown))))
        with torch.no_grad(), probe:
            output = scores_of(self.infer(unpack_data(batch)[0]))
            means = probe.read(len(output))
        self.layers_ = tuple(means)
        self.loss_module_ = self.ranking_.module(
            [mean.shape[1] for mean in means.values()], **self.ranking_.arguments
        ).to(output.dtype)
        return self

    def initialize_criterion(self):
        """Make the criterion; raise where it cannot give the loss of each row."""
        super().initialize_criterion()
        if getattr(self.criterion_, "reduction", None) not in ("mean", "sum"):
            raise ValueError(
                "LearningLossQuery needs the loss of each row, so the criterion must "
                f"have reduction='mean' or 'sum' to be turned off, as those of "
                f"torch.nn have; {type(self.criterion_).__name__} has not."
            )
        return self

    def on_train_begin(self, net, *args, **kwargs):
        """Note where the epochs of this fit begin; raise without a loss module."""
        super().on_train_begin(net, *args, **kwargs)
        if not hasattr(self, "loss_module_"):
            raise ValueError(
                "LearningLossQuery makes its module in a fit that initializes the "
                "network, but this one goes on with a network that was initialized "
                "before; call fit with warm_start=False."
            )
        self.first_epoch_ = len(self.history)

    def train_step_single(self, batch, **fit_params):
        """Make a step, with hooks on the inner layers."""
        with HiddenMeans(self.module_, self.layers_) as self._caught:
            try:
                return super().train_step_single(batch, **fit_params)
            finally:
                self._caught = None

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        """Add the ranking loss in training; raise where the sum is not finite."""
        loss = super().get_loss(y_pred, y_true, *args, **kwargs)
        if self._caught is None:
            return loss
        reduction, self.criterion_.reduction = self.criterion_.reduction, "none"
        try:
            with torch.no_grad():
                losses = super().get_loss(y_pred, y_true, *args, **kwargs)
        finally:
            self.criterion_.reduction = reduction
        n_rows = len(scores_of(y_pred))
        if losses.ndim == 0 or len(losses) != n_rows:
            raise ValueError(
                f"LearningLossQuery needs the loss of each of {n_rows} rows, but with "
                f"reduction='none' get_loss of {type(self).__name__} gives shape "
                f"{tuple(losses.shape)}."
            )
        settings, means = self.ranking_, list(self._caught.read(n_rows).values())
        n_epochs = len(self.history) - 1 - self.first_epoch_
        if n_epochs >= settings.detach_at * self.max_epochs:
            means = [mean.detach() for mean in means]
        losses = losses.flatten(1).mean(1) if losses.ndim > 1 else losses
        ranking = settings.loss(self.loss_module_(means), losses)
        loss = loss + settings.weight * ranking
        check_finite_loss(loss, self)
        self.history.record_batch("ranking_loss", ranking.item())
        return loss


class MatchingSettings(NamedTuple):
    """What the strategy tells the net that it prepares."""

    aux: NeuralNet
    alpha: float
    max_pool_per_epoch: int
    pool_features: object


class MatchesPool:
    """Mixin of the private net: train it, and a critic, on pairs of batches."""

    matching_ = pairs_ = waal_critic_ = None

    def __sklearn_clone__(self):
        """Clone the settings, too."""
        other = super().__sklearn_clone__()
        other.matching_ = self.matching_
        return other

    def __getstate__(self):
        """Leave out the rows of the pool."""
        settings = self.matching_._replace(pool_features=None)
        return super().__getstate__() | {"matching_": settings, "pairs_": None}

    def initialize_module(self):
        """Make the module; a critic is made when its embeddings are known."""
        super().initialize_module()
        self.waal_critic_ = None
        return self

    def fit(self, X, y=None, **fit_params):
        """Fit, then let go of the rows of the pool."""
        try:
            return super().fit(X, y, **fit_params)
        finally:
            self.matching_ = self.matching_._replace(pool_features=None)
            self.pairs_ = None

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Pair the batches that train with batches of the pool."""
        if training and self.matching_.pool_features:
            if self.pairs_ is None or self.pairs_.source is not iterator:
                self.pairs_ = _Pairs(self, iterator)
            iterator = self.pairs_
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def train_step_single(self, batch, **fit_params):
        """Run both batches as one, then update the critic, then the network."""
        if self.pairs_ is None or self.pairs_.unlabeled is None:
            step = super().train_step_single(batch, **fit_params)
            check_finite_loss(step["loss"], self)
            return step
        self._set_training(True)
        x, y = unpack_data(batch)
        n_labeled = get_len(x)
        with self.pairs_.probe as probe:
            output = self.infer(_join(x, self.pairs_.unlabeled), **fit_params)
            scores = scores_of(output)
            z, _ = probe.read(scores)
        check_finite_loss((scores if z is None else z).sum(), self)
        if z is None:
            raise missing_head(self.module_)
        n_rows = len(scores)
        output = map_tensors(
            lambda t: t[:n_labeled] if t.shape[:1] == (n_rows,) else t, output
        )
        loss = self.get_loss(output, y, X=x, training=True)
        labeled, unlabeled = z[:n_labeled].float(), z[n_labeled:].float()
        critic = self._train_critic(unlabeled.detach(), labeled.detach())
        if self.matching_.alpha:
            with parameters_frozen([critic.module_]):
                distance = critic.distance(unlabeled, labeled)
            loss = loss + self.matching_.alpha * distance.to(loss)
        check_finite_loss(loss, self)
        loss.backward()
        return {"loss": loss, "y_pred": output}

    def _train_critic(self, unlabeled, labeled):
        if self.waal_critic_ is None:
            self.waal_critic_ = private_auxiliary(
                self.matching_.aux,
                device=labeled.device,
                defaults=critic_defaults(labeled.shape[1]),
            ).initialize()
        critic = self.waal_critic_
        if self.pairs_.begins:
            critic.history.new_epoch()
            self.pairs_.begins = False
        for _ in range(critic.n_critic):
            critic.history.new_batch()
            loss = critic.update(unlabeled, labeled)
            critic.history.record_batch("train_loss", loss.item())
        return critic

    def on_epoch_end(self, net, *args, **kwargs):
        """Note the means of the critic's curves."""
        super().on_epoch_end(net, *args, **kwargs)
        if self.pairs_ is not None:
            history = self.waal_critic_.history
            for name in ("train_loss", "distance"):
                history.record(name, float(np.mean(history[-1, "batches", :, name])))


class _Pairs:
    """The labelled batches of an epoch, with as large ones of the pool beside them.

    Where fewer rows of the pool are to be seen than there are labelled ones, some
    labelled batches, evenly spread, have nothing in `unlabeled`; the first always has.
    """

    def __init__(self, net, labeled):
        self.net, self.source, n_labeled = net, labeled, len(labeled.dataset)
        self.labeled = chain.from_iterable(repeat(labeled))
        pool = self.features = net.matching_.pool_features
        self.probe = HeadProbe(net.module_, pool.embedding_layer, keep_graph=True)
        self.order = Cycle(torch.arange(len(pool)))
        self.n_rows = min(
            len(pool),
            net.matching_.max_pool_per_epoch,
            max(math.ceil(n_labeled / 2), math.ceil(len(pool) / 4)),
        )
        self.n_paired = math.ceil(len(labeled) * self.n_rows / n_labeled)
        if self.n_paired == 0:
            raise ValueError(
                f"the iterator_train of the net makes no batch of {n_labeled} rows; "
                f"lower its batch size, batch_size={net.batch_size}, or leave "
                "drop_last out."
            )

    def __len__(self):
        return max(self.n_paired, len(self.source))

    def __iter__(self):
        self.begins = True
        n_batches, pool_batches = len(self), iter(self._pool_batches())
        for i in range(n_batches):
            is_paired = -i * self.n_paired % n_batches < self.n_paired
            self.unlabeled = unpack_data(next(pool_batches))[0] if is_paired else None
            yield next(self.labeled)

    def _pool_batches(self):
        """Let the net's own loader options make batches of the next rows."""
        positions = self.order.take(self.n_rows).numpy()
        positions = np.resize(positions, max(self.n_rows, self.n_paired))
        labels = np.zeros(len(positions), dtype=label_dtype(self.net))
        dataset = self.net.get_dataset(self.features(positions), labels)
        options = self.net.get_params_for("iterator_train")
        kept = ("collate_fn", "num_workers", "pin_memory", "worker_init_fn")
        return BatchLoader(
            dataset,
            batch_sampler=np.array_split(np.arange(len(positions)), self.n_paired),
            **{name: options[name] for name in kept if name in options},
        )


def _join(first, second):
    if isinstance(first, dict):
        return {key: _join(value, second[key]) for key, value in first.items()}
    if isinstance(first, tuple | list):
        return type(first)(map(_join, first, second))
    return torch.cat([first, second])


def critic_defaults(n_features):
    """Give the parameters of a critic that follow from the embeddings."""
    width = max(50, min(512, n_features))
    return {"module__shape": (n_features,), "module__hidden": (width, width)}
