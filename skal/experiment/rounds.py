"""The rounds of one run: recorded, and on resume replayed."""

import numpy as np

from skal.experiment.metrics import score_probabilities
from skal.experiment.results import purchase_name
from skal.loop import ActiveLearningLoop


class Rounds:
    """Turn the loop's rounds into records, those of an earlier start included.

    Parameters
    ----------
    config : RunConfig
        Resolved.
    data : Bunch
        As :func:`skal.datasets.load_dataset` returns it.
    rows : int64 array of shape (n_samples,)
        Rows of the training images that can be bought, ascending.
    folder : RunFolder
        Started.
    drawn : dict of str to ndarray
        What was drawn before the first round, for queries.npz.
    on_round : callable or None
        Called with each record, stored ones included.

    Attributes
    ----------
    records : list of dict
        The stored rounds and those since.
    stored : list of (int64 array, dict)
        Purchase, in positions of `rows`, and record of each stored round.
    notes : list of str
        For the user.
    """

    def __init__(self, config, data, rows, folder, drawn, on_round=None):
        self.config, self.data, self.rows = config, data, rows
        self.folder, self.drawn = folder, drawn
        self.on_round = on_round or (lambda record: None)
        self.records, self.purchases, self.notes = [], {}, []
        self.stored = self._replay()

    @property
    def complete(self):
        """Whether all rounds are recorded."""
        if not self.records:
            return False
        config = self.config
        planned = config.n_initial + config.n_rounds * config.batch_size
        # Rounds go into the search for a second class, so that they may be fewer.
        return self.records[-1]["n_labeled"] >= min(planned, len(self.rows))

    def _replay(self):
        """Take over the stored rounds, or refuse those of other data."""
        purchases, drawn = self.folder.stored_purchases()
        records = self.folder.stored_rounds
        for name, there in drawn.items():
            if not np.array_equal(there, self.drawn.get(name)):
                self.folder.refuse(f"rounds of other data ({name!r} differs)")
        bought = np.concatenate([np.empty(0, np.int64), *purchases])
        if len(np.unique(bought)) < len(bought) or not np.isin(bought, self.rows).all():
            self.folder.refuse("purchases that are not distinct rows of the pool")
        stored = []
        for record, bought in zip(records, purchases, strict=True):
            if self._counts(bought) != record["acquired_class_counts"]:
                number = record["round"]
                self.folder.refuse(f"rounds of other data (labels of round {number})")
            self.purchases[purchase_name(record["round"])] = bought
            stored.append((np.searchsorted(self.rows, bought), record))
            self._add(record)
        return stored

    def _add(self, record):
        self.records.append(record)
        self.on_round(record)

    def _counts(self, bought):
        labels = self.data.y_train[bought]
        return np.bincount(labels, minlength=len(self.data.classes)).tolist()

    def restore(self, strategy):
        """Give a strategy what it kept at the last stored round.

        Parameters
        ----------
        strategy : QueryStrategy
        """
        if state := self.folder.stored_state():
            try:
                strategy.set_state(state)
            except (KeyError, ValueError) as error:
                self.folder.refuse(f"a strategy.npz of something else ({error!r})")

    def after_round(self, loop, record):
        """Score the loop's model and store the round.

        Parameters
        ----------
        loop : ActiveLearningLoop
        record : dict
            The loop's own record of the round.
        """
        config, data, number = self.config, self.data, int(record["round"])
        order = np.asarray(loop.labeled_indices_, dtype=np.int64)
        bought = self.rows[order[len(order) - int(record["n_queried"]) :]]
        self.purchases[purchase_name(number)] = bought
        proba = loop.predict_proba(data.X_test)
        line = {
            "run_id": config.run_id,
            "dataset": config.data_name,
            "model": config.model_name,
            "strategy": config.strategy,
            "seed": config.seed,
            "round": number,
            "n_labeled": int(record["n_labeled"]),
            "n_queried": len(bought),
            **score_probabilities(data.y_test, proba),
            "train_s": float(record["fit_time"]),
            "query_s": float(record["query_time"]),
            "acquired_class_counts": self._counts(bought),
            "device": config.device,
        }
        queries = {**self.purchases, **self.drawn}
        state = loop.strategy_.get_state()
        differences = self.folder.record(line, queries, state)
        if number >= len(self.stored):
            self._add(line)
        elif differences:
            what = f"round {number} with other numbers: " + "; ".join(differences)
            if config.device.startswith("cpu"):
                self.folder.refuse(
                    f"{what}. Other versions of the libraries, another processor or "
                    "other data give other numbers"
                )
            self.notes.append(f"trained again on {config.device}, {what}")


class RecordedLoop(ActiveLearningLoop):
    """A loop that goes on from the stored rounds of `rounds_`, and hands it each round.

    Seeds depend only on the number of labels, so the model of the last stored round
    comes out as it was, and with it all that follows.
    """

    def _buy_initial(self, data, answer, planned):
        if not self.rounds_.stored:
            return super()._buy_initial(data, answer, planned)
        for number, (rows, record) in enumerate(self.rounds_.stored):
            bought = self._labels.buy(rows, answer, number)
            self.n_iter_ = number
            if number + 1 < len(self.rounds_.stored):
                super()._after_round(_loop_record(record))
        self.rounds_.restore(self.strategy_)
        return bought

    def _after_round(self, record):
        number = record["round"]
        stored = self.rounds_.stored
        known = number < len(stored)
        super()._after_round(_loop_record(stored[number][1]) if known else record)
        self.rounds_.after_round(self, record)


def _loop_record(record):
    """Make the loop's own record of a stored round."""
    names = {"fit_time": "train_s", "query_time": "query_s"}
    names |= {name: name for name in ("round", "n_labeled", "n_queried")}
    return {name: record[key] for name, key in names.items()}
