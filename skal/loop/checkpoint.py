"""What a loop has bought so far, in one file that is whole at any moment."""

import json
import os
import re
from functools import partial
from pathlib import Path

import numpy as np

from skal.loop.codes import as_labels
from skal.loop.identity import identify
from skal.utils.files import atomic_write
from skal.utils.validation import callbacks_of

FORMAT = "skal checkpoint 1"


class Checkpoint:
    """Purchases, answers and records of a fit, and the file that keeps them.

    The file is an archive of NumPy's arrays and one text of JSON; nothing in it is ever
    unpickled.

    Parameters
    ----------
    path : path-like
        Read where it exists.
    about : dict of str to str
        What the fit is of; see `skal.loop.identity`.
    before : Checkpoint, default=None
        Of an earlier fit in this process, which could not write its last answers.

    Attributes
    ----------
    seed : int or None
        Of the fit; None where there is no file.
    purchases : list of (int, int64 array, float)
        Round, rows asked for, and seconds of the query.
    answers : dict of int to object
        By row; None where it was skipped.
    records : list of dict
        Of the rounds whose model was trained.
    states : dict of str to dict of str to ndarray
        What the strategy and callbacks remember.

    Raises
    ------
    ValueError
        Where there is something else at the path, or the file is of another fit.
    """

    def __init__(self, path, about, before=None):
        self.path, self.about = Path(path).expanduser().absolute(), about
        self.seed, self.purchases, self.answers = None, [], {}
        self.records, self.states, self.is_saved = [], {}, True
        if self.path.is_dir():
            raise ValueError(
                f"checkpoint={str(path)!r} is a folder; name a file, as in "
                f"{str(self.path / 'loop.npz')!r}."
            )
        if not self.path.parent.is_dir():
            raise ValueError(
                f"checkpoint={str(path)!r}: there is no folder {self.path.parent}; "
                "make it first."
            )
        self._stamp = self._find_stamp()
        if self._stamp is not None:
            try:
                self._read()
            except Exception as error:  # whatever a damaged archive makes others raise
                raise ValueError(
                    f"checkpoint={str(path)!r} cannot be read ({type(error).__name__}: "
                    f"{error}). It is damaged or no checkpoint, and was not touched: "
                    "put back a copy, or name another file to begin anew."
                ) from error
            self._check_about(about)
        if before is not None and not before.is_saved and before.about == about:
            there = before.path, before._stamp
            if self._stamp is None or there == (self.path, self._stamp):
                place = {"path": self.path, "_stamp": self._stamp}
                vars(self).update(vars(before), **place)

    def _find_stamp(self):
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self):
        with (
            open(self.path, "rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != FORMAT:
            raise ValueError(f"it says {header['format']!r}, not {FORMAT!r}")
        self._stored_about = dict(header["about"])
        self.seed, self.records = int(header["seed"]), list(header["records"])
        rows, ends = arrays["rows"], np.cumsum([n for _, n, _ in header["purchases"]])
        parts = np.split(rows, ends[:-1]) if len(ends) else []
        pairs = zip(header["purchases"], parts, strict=True)
        self.purchases = [(int(k), part, float(took)) for (k, _, took), part in pairs]
        answered = arrays["answered"].tolist()
        self.answers = dict(zip(answered, header["answers"], strict=True))
        self.states = {}
        for number, (owner, name) in enumerate(header["states"]):
            self.states.setdefault(owner, {})[name] = arrays[f"state {number}"]

    def _check_about(self, about):
        there = self._stored_about
        names = [n for n in {**there, **about} if there.get(n) != about.get(n)]
        if names:
            told = [
                f"{name} was {there.get(name, 'not there')} and is "
                f"{about.get(name, 'not there')}"
                for name in names[:5]
            ]
            raise ValueError(
                f"checkpoint={str(self.path)!r} is of another fit: {'; '.join(told)}"
                f"{' ...' if len(names) > 5 else ''}. Put this back to go on, or name "
                "another file to begin anew."
            )

    def save(self):
        """Write the file.

        Raises
        ------
        OSError
            Where that fails; what was there before is there still.
        ValueError
            Where another fit has written it meanwhile.
        """
        self.is_saved = False
        if self._find_stamp() != self._stamp:
            raise ValueError(
                f"checkpoint={str(self.path)!r} was changed by something else, such as "
                "another fit, and is not overwritten; give each fit a file of its own. "
                "All answers are in transduction_."
            )
        states = [(o, name) for o, state in self.states.items() for name in state]
        header = {
            "format": FORMAT,
            "about": self.about,
            "seed": self.seed,
            "purchases": [(k, len(rows), took) for k, rows, took in self.purchases],
            "answers": [*self.answers.values()],
            "records": self.records,
            "states": states,
        }
        text = json.dumps(header, default=_plain).encode()
        arrays = {
            "header": np.frombuffer(text, dtype=np.uint8),
            "answered": np.array([*self.answers], dtype=np.int64),
            "rows": np.concatenate(
                [np.empty(0, np.int64), *(rows for _, rows, _ in self.purchases)]
            ),
        }
        for number, (owner, name) in enumerate(states):
            arrays[f"state {number}"] = _no_object(owner, self.states[owner][name])
        try:
            with atomic_write(self.path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise OSError(
                f"checkpoint={str(self.path)!r} cannot be written "
                f"({error.strerror or error}). What it held before is there still, and "
                "all answers are in transduction_; make room, or name another file, "
                "and call fit again."
            ) from error
        self._stamp, self.is_saved = self._find_stamp(), True

    def begin(self, seed):
        """Show, before anything is asked, that the file can be written.

        Parameters
        ----------
        seed : int
        """
        self.seed = seed
        left_over = re.compile(rf"\.{re.escape(self.path.name)}\.\w{{8}}")
        for other in self.path.parent.iterdir():  # of a process that was killed
            if left_over.fullmatch(other.name):
                other.unlink(missing_ok=True)
        self.save()

    def answering(self, oracle, missing_label):
        """Make a function that asks an oracle only what it has not answered.

        Parameters
        ----------
        oracle : callable
        missing_label : object
            What it answers to skip a row.

        Returns
        -------
        answer : callable
        """

        def answer(rows):
            rows = rows.tolist()
            new = [row for row in rows if row not in self.answers]
            labels = {row: self.answers[row] for row in rows if row not in set(new)}
            labels = {k: missing_label if v is None else v for k, v in labels.items()}
            if new:
                fresh = oracle(np.array(new, dtype=np.int64))
                fresh = as_labels(fresh, new, "oracle must answer with")
                labels |= dict(zip(new, fresh, strict=True))
            return [labels[row] for row in rows]

        return answer

    def note(self, loop, rows, iteration):
        """Write a purchase that is booked, where something new was answered.

        Parameters
        ----------
        loop : ActiveLearningLoop
        rows : int64 array
            That were asked for.
        iteration : int
            The round.
        """
        labels = loop._labels
        answered = (labels.iteration[rows] >= 0) | labels.skipped[rows]
        new = [row for row in rows[answered].tolist() if row not in self.answers]
        if not new:
            return
        for row in new:
            self.answers[row] = None if labels.skipped[row] else labels.values[row]
        last = self.purchases[-1] if self.purchases else (None, [], 0.0)
        # One with wrong answers is made again, and stays the last.
        if not (last[0] == iteration and np.array_equal(last[1], rows)):
            self.purchases.append((iteration, rows.copy(), loop._query_time))
        self.states = {name: part.get_state() for name, part in _states(loop).items()}
        self.save()

    def keep(self, record):
        """Write the record of a round; give the first one, where there is one.

        Parameters
        ----------
        record : dict

        Returns
        -------
        record : dict
        """
        if record["round"] < len(self.records):
            return self.records[record["round"]]
        self.records.append(record)
        self.save()
        return record


def open_checkpoint(loop, data, params):
    """Open the checkpoint of a loop.

    Parameters
    ----------
    loop : ActiveLearningLoop
    data : Data
    params : dict
        Further ones of its `fit`.

    Returns
    -------
    checkpoint : Checkpoint or None
    """
    if loop.checkpoint is None:
        return None
    if data.mode == "ask":
        raise ValueError(
            "checkpoint is for an oracle that is a function, or for a simulation; "
            "where a person is asked the state is y: save that, and pass "
            "checkpoint=None."
        )
    about = identify(loop, data, params)
    return Checkpoint(loop.checkpoint, about, vars(loop).get("_checkpoint"))


def resume(loop, answer, train):
    """Take over the purchases of a checkpoint, and from now on write new ones.

    Finished rounds are not trained again, since the model of a round depends on its
    labels and seed alone; with `warm_start` it depends on all models before.

    Parameters
    ----------
    loop : ActiveLearningLoop
        Its labels, records and `n_iter_` are set.
    answer : callable
        The oracle.
    train : callable
        Trains on the labels so far.

    Returns
    -------
    answer : callable
        Asks the oracle only what it has not answered.
    n_bought : int
        In the last round.
    seconds : float
        That its query took.
    """
    checkpoint, labels = loop._checkpoint, loop._labels
    answer, bought, seconds = checkpoint.answering(answer, loop.missing_label), 0, 0.0
    last = max((number for number, _, _ in checkpoint.purchases), default=0)
    if loop.n_rounds is not None and last > loop.n_rounds:
        raise ValueError(
            f"checkpoint={str(checkpoint.path)!r} holds {last} rounds, more than "
            f"n_rounds={loop.n_rounds}; raise n_rounds, or name another file."
        )
    checkpoint.begin(loop.seed_)
    loop._query_time, labels.on_purchase = 0.0, partial(checkpoint.note, loop)
    for number, rows, took in [*checkpoint.purchases]:
        known = [row for row in rows.tolist() if row in checkpoint.answers]
        if number > loop.n_iter_:
            if all(checkpoint.answers[row] is None for row in known):
                rows = np.array(known, dtype=np.int64)  # nothing was bought
            else:
                labels.labeled()  # a model was trained: from there on codes stay
                if loop.warm_start:
                    train()
                loop._records.append(checkpoint.records[loop.n_iter_])
                loop.n_iter_, bought, seconds = number, 0, took
        bought += labels.buy(rows, answer, number)
    for name, part in _states(loop).items():
        if name in checkpoint.states:
            part.set_state(checkpoint.states[name])
    return answer, bought, seconds


def _states(loop):
    """Name what remembers something over the rounds."""
    callbacks = {f"{k} {each!r}": each for k, each in enumerate(callbacks_of(loop))}
    callbacks = {k: each for k, each in callbacks.items() if hasattr(each, "get_state")}
    return {"strategy": loop.strategy_, **callbacks}


def _plain(value):
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(
        f"checkpoint keeps labels that are texts, numbers or booleans, got {value!r}, "
        f"a {type(value).__name__}."
    )


def _no_object(owner, array):
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError(f"get_state of {owner} gives an array of objects; use numbers.")
    return array
