"""Mixins of the nets that strategies let learn from more than labels.

Each extends the loop's private clone of a net, see `skal.net.training.extend_net`.
"""

import math
from itertools import chain, islice, repeat
from typing import NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring
from skorch.dataset import get_len, unpack_data
from skorch.utils import to_device

from skal.net.auxiliary import private_auxiliary
from skal.net.auxiliary_rows import Cycle, rows_at_once
from skal.net.batches import BatchLoader
from skal.net.gradients import parameters_frozen
from skal.net.heads import HeadProbe, missing_head, scores_of
from skal.net.hidden import HiddenMeans
from skal.net.inputs import map_tensors
from skal.net.training import label_dtype, note_finite


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
        note_finite(self, loss, ranking_loss=ranking)
        return loss


class MatchingSettings(NamedTuple):
    """What the strategy tells the net that it prepares."""

    aux: NeuralNet
    alpha: float
    max_pool_per_epoch: int
    pool_features: object


class MatchesPool:
    """Mixin of the private net: train it, and a critic, on pairs of batches."""

    matching_ = waal_critic_ = _pool = _probe = None

    @property
    def _default_callbacks(self):
        *callbacks, log = super()._default_callbacks
        curves = {"distance": True, "held_out_distance": False}
        scores = [(n, PassthroughScoring(n, on_train=t)) for n, t in curves.items()]
        return [*callbacks, *scores, log]

    def __sklearn_clone__(self):
        """Clone the settings, too."""
        other = super().__sklearn_clone__()
        other.matching_ = self.matching_
        return other

    def __getstate__(self):
        """Leave out the rows of the pool."""
        settings = self.matching_._replace(pool_features=None)
        left_out = {"matching_": settings, "_pool": None, "_probe": None}
        return super().__getstate__() | left_out

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
            self._pool = self._probe = None

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Go through the labelled rows again until enough of the pool was seen."""
        settings = self.matching_
        if training and settings.pool_features:
            if self._pool is None:
                size = self._batch_size(iterator)
                self._pool = self._pool_batches(size)
                layer = settings.pool_features.embedding_layer
                self._probe = HeadProbe(self.module_, layer, keep_graph=True)
                n_rows = min(len(settings.pool_features), settings.max_pool_per_epoch)
                self._n_steps = max(len(iterator), math.ceil(n_rows / size))
            iterator = islice(chain.from_iterable(repeat(iterator)), self._n_steps)
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def _batch_size(self, iterator):
        n_labeled = len(iterator.dataset)
        if len(iterator) == 0:
            raise ValueError(
                f"the iterator_train of the net makes no batch of {n_labeled} rows; "
                f"lower its batch size, batch_size={self.batch_size}, or leave "
                "drop_last out."
            )
        options = self.get_params_for("iterator_train")
        size = options.get("batch_size", self.batch_size)
        return n_labeled if size is None or size < 1 else size

    def _pool_batches(self, size):
        """Yield batches of the pool, loaded as the net's own, without end."""
        features = self.matching_.pool_features
        options = self.get_params_for("iterator_train")
        kept = ("collate_fn", "num_workers", "pin_memory", "worker_init_fn")
        options = {name: options[name] for name in kept if name in options}
        order = Cycle(torch.arange(len(features)))
        shape = getattr(features(np.zeros(1, dtype=int)), "shape", (1,))
        n_batches = math.ceil(rows_at_once(math.prod(shape[1:])) / size)
        while True:
            batches = [order.take(size).numpy() for _ in range(n_batches)]
            ends = np.cumsum([len(batch) for batch in batches])
            labels = np.zeros(ends[-1], dtype=label_dtype(self))
            dataset = self.get_dataset(features(np.concatenate(batches)), labels)
            sampler = np.split(np.arange(ends[-1]), ends[:-1])
            for batch in BatchLoader(dataset, batch_sampler=sampler, **options):
                yield unpack_data(batch)[0]

    def train_step_single(self, batch, **fit_params):
        """Run both batches as one, then update the critic, then the network."""
        if self._pool is None:
            step = super().train_step_single(batch, **fit_params)
            note_finite(self, step["loss"])
            return step
        self._set_training(True)
        x, y = unpack_data(batch)
        n_labeled = get_len(x)
        with self._probe as probe:
            output = self.infer(_join(x, next(self._pool)), **fit_params)
            scores = scores_of(output)
            z, _ = probe.read(scores)
        if z is None:
            note_finite(self, scores.sum())  # which may be why there is no head
            raise missing_head(self.module_)
        n_rows = len(scores)
        output = map_tensors(
            lambda t: t[:n_labeled] if t.shape[:1] == (n_rows,) else t, output
        )
        loss = self.get_loss(output, y, X=x, training=True)
        labeled, unlabeled = z[:n_labeled].float(), z[n_labeled:].float()
        critic, distance = self._train_critic(unlabeled.detach(), labeled.detach())
        if self.matching_.alpha:
            with parameters_frozen([critic.module_]):
                distance_now = critic.distance(unlabeled, labeled)
            loss = loss + self.matching_.alpha * distance_now.to(loss)
        note_finite(self, loss, distance=distance)
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
        for _ in range(critic.n_critic):
            _, distance = critic.update(unlabeled, labeled)
        return critic, distance

    def validation_step(self, batch, **fit_params):
        """Note how far rows of the pool are from labelled ones that do not train."""
        if self._pool is None:
            return super().validation_step(batch, **fit_params)
        with self._probe as probe, torch.no_grad():
            step = super().validation_step(batch, **fit_params)
            labeled, _ = probe.read(scores_of(step["y_pred"]))
            output = self.infer(next(self._pool), **fit_params)
            unlabeled, _ = probe.read(scores_of(output))
            distance = self.waal_critic_.distance(unlabeled.float(), labeled.float())
        self.history.record_batch("held_out_distance", distance.item())
        return step


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
