"""What the callbacks of the loop share."""

from typing import Any


class RoundCallback:
    """Base of callbacks that act after each round of a loop.

    A subclass writes :meth:`on_round`. Give it to `ActiveLearningLoop.set_callbacks`.

    Examples
    --------
    >>> from skal.callbacks import RoundCallback
    >>> class EnoughLabels(RoundCallback):
    ...     def on_round(self, loop):
    ...         return len(loop.labeled_indices_) >= 500
    """

    def on_round(self, loop: Any) -> bool | None:
        """Act after a round, when `history_` and `estimator_` are those of the round.

        Parameters
        ----------
        loop : ActiveLearningLoop

        Returns
        -------
        stop : bool or None
            True ends the fit.
        """

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing at the start of a fit."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing at the start of a fit or a round."""

    def on_fit_task_end(self, estimator: Any, context: Any) -> bool | None:
        """Call `on_round` at the end of a round."""
        return self.on_round(estimator) if context.task_name == "round" else None

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing at the end of a fit, whether or not it went well."""
