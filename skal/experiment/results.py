"""The files of a run."""

import io
import json
import platform
import re
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from skal._version import __version__
from skal.experiment.config import RunConfig
from skal.experiment.options import UsageError
from skal.utils import append_line, atomic_write

_TIMES = ("train_s", "query_s")
_FILES = (
    *("config.json", "rounds.jsonl", "queries.npz", "strategy.npz"),
    *("learning_curve.png", "DONE"),
)

RunResult = namedtuple("RunResult", "config path records notes")


class RunFolder:
    """The folder of one run, below the folder of all results.

    Holds config.json (options, their hash, a checksum of the data, versions, how the
    network trains), rounds.jsonl (one line a round), queries.npz (rows of the training
    split in the order of purchase: initial, round_1, ...; and where they were drawn,
    pool, the rows that could be bought, and test, the rows of the whole data set that
    are the test split), strategy.npz (what the strategy keeps over rounds,
    if anything, as "ROUND.NAME": since that round), learning_curve.png and,
    written last, DONE.

    A round's purchase and the strategy's state are there before its line is in
    rounds.jsonl, so every line has them, whenever the run was killed. A run that was
    interrupted goes on from its last line: see `stored_rounds`, `stored_purchases` and
    `stored_state`.

    Parameters
    ----------
    out : path-like
        Folder of all results.
    config : RunConfig
        Resolved.
    path : pathlib.Path, default=None
        The folder itself, should it have been moved.
    """

    def __init__(self, out, config, path=None):
        self.config = config
        self._out = Path(out)
        self.path = path or self._out / config.run_id
        self.rounds_path = self.path / "rounds.jsonl"
        self.done_path = self.path / "DONE"
        self._states = {}

    def check(self):
        """Refuse a folder that cannot be, or belongs to another configuration."""
        there = next(place for place in self.path.absolute().parents if place.exists())
        if not there.is_dir():
            raise UsageError(
                f"--out {str(self._out)!r} cannot hold results, since {str(there)!r} "
                "is a file; name another folder."
            )
        path = self.path / "config.json"
        if path.exists():
            stored = {**RunConfig().model_dump(), **self.read_config()["options"]}
            # As JSON gives them back: a tuple is a list there.
            wanted = json.loads(json.dumps(self.config.model_dump()))
            differences = [
                f"{name} is {stored.get(name)!r} there and {value!r} now"
                for name, value in wanted.items()
                if stored.get(name) != value
            ] + [f"{name} is unknown now" for name in stored.keys() - wanted.keys()]
            if differences:
                if len(list(self.path.glob("[!.]*"))) > 1:
                    self.refuse("another configuration: " + "; ".join(differences))
                path.unlink()  # that run failed before it had anything to store
        elif any(self.path.glob("[!.]*")):
            self.refuse("files but no config.json")

    @property
    def done(self):
        """Whether the run has ended."""
        return self.done_path.exists()

    @property
    def training_notes(self):
        """What is to be said of the strategy's training, in a list."""
        text = self.read_config().get("training")
        return [f"{self.config.strategy}: {text}"] if text else []

    def start(self, fingerprint=None, training=""):
        """Make the folder and its config.json, and drop what a killed run left torn.

        Parameters
        ----------
        fingerprint : str, default=None
            Checksum of the data set; rounds of another one are refused.
        training : str, default=""
            The strategy's `training_note`.
        """
        path = self.path / "config.json"
        if path.exists():
            stored = self.read_config().get("data_fingerprint")
            if stored != fingerprint:
                if self.read_rounds():
                    self.refuse("rounds of other data: it has changed since")
                path.unlink()  # that run failed, perhaps of this data
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--out {str(self._out)!r}: the folder {str(self.path)!r} cannot be "
                f"made ({error.strerror}); name another one."
            ) from error
        self.stored_rounds = self.read_rounds()
        for name in _FILES:
            for torn in self.path.glob(f".{name}.*"):
                torn.unlink()
        if not path.exists():
            content = {
                "options": self.config.model_dump(),
                "hash": self.config.hash,
                "data_fingerprint": fingerprint,
                "training": training,
                "device_name": _device_name(self.config.device),
                "processor": _processor(),
                "versions": _versions(),
            }
            try:
                with atomic_write(path, "w") as file:
                    file.write(json.dumps(content, indent=2) + "\n")
            except OSError:
                self._remove_empty()
                raise
        if self.rounds_path.exists():
            with atomic_write(self.rounds_path, "w") as file:
                lines = (json.dumps(record) + "\n" for record in self.stored_rounds)
                file.writelines(lines)

    def stored_purchases(self):
        """Read the purchases behind the stored rounds.

        A purchase without a round, from a run killed in between, is left out.

        Returns
        -------
        purchases : list of ndarray
            Rows of the training images; as many arrays as `stored_rounds`.
        drawn : dict of str to ndarray
            The arrays that were drawn before the first round.
        """
        if not self.stored_rounds:
            return [], {}
        arrays, purchases = self._load("queries.npz"), []
        for record in self.stored_rounds:
            name = purchase_name(record["round"])
            rows = arrays.get(name, np.empty(0))
            if rows.dtype != np.int64 or rows.shape != (record.get("n_queried"),):
                self._refuse_array("queries.npz", f"{name} is absent or another size")
            purchases.append(rows)
        drawn = {k: v for k, v in arrays.items() if not re.match("initial|round_", k)}
        return purchases, drawn

    def stored_state(self):
        """Read what the strategy kept at the last stored round.

        Returns
        -------
        state : dict of str to ndarray
            Empty where it kept nothing.
        """
        if (self.path / "strategy.npz").exists():
            for key, value in self._load("strategy.npz").items():
                number, _, name = key.partition(".")
                if not number.isdecimal():
                    self._refuse_array("strategy.npz", f"{key!r}")
                # That of a round without its line will be made again.
                if int(number) < len(self.stored_rounds):
                    self._states.setdefault(int(number), {})[name] = value
        return self._last_state

    @property
    def _last_state(self):
        return self._states[max(self._states)] if self._states else {}

    def _store_state(self, number, state):
        last = self._last_state
        if last.keys() == state.keys() and all(
            np.array_equal(last[name], value) for name, value in state.items()
        ):
            return
        # The last one holds until there is the line of this round.
        kept = {max(self._states): last} if self._states else {}
        copies = {name: np.array(value) for name, value in state.items()}
        self._states = {**kept, number: copies}
        arrays = {
            f"{number}.{name}": value
            for number, state in self._states.items()
            for name, value in state.items()
        }
        self._save("strategy.npz", arrays)

    def _load(self, name):
        try:
            with np.load(self.path / name) as arrays:
                return dict(arrays)
        except (EOFError, OSError, ValueError, BadZipFile) as error:
            self._refuse_array(name, error)

    def _refuse_array(self, name, what):
        self.refuse(f"a {name} that does not go with rounds.jsonl ({what})")

    def _save(self, name, arrays):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        with atomic_write(self.path / name) as file:
            file.write(buffer.getvalue())

    def record(self, record, queries, state=None):
        """Store a round, or compare it with the one that is stored.

        Parameters
        ----------
        record : dict
            The line of rounds.jsonl.
        queries : dict of str to ndarray
            All purchases so far.
        state : dict of str to ndarray, default=None
            What the strategy keeps over rounds.

        Returns
        -------
        differences : list of str
            Where a stored round has other values, times left aside.
        """
        if record["round"] < len(self.stored_rounds):
            stored = self.stored_rounds[record["round"]]
            return [
                f"{key} {stored.get(key)!r} there and {value!r} now"
                for key, value in record.items()
                if key not in _TIMES and stored.get(key) != value
            ]
        # The line last: it promises the purchases and the state behind it.
        self._save("queries.npz", queries)
        self._store_state(record["round"], state or {})
        append_line(self.rounds_path, json.dumps(record))
        return []

    def finish(self, picture):
        """Store the picture, and say that the run has ended.

        Parameters
        ----------
        picture : PIL.Image.Image
        """
        with atomic_write(self.path / "learning_curve.png") as file:
            picture.save(file, format="PNG")
        # The stored one, should an earlier release have counted otherwise.
        fingerprint = self.read_config().get("hash", self.config.hash)
        with atomic_write(self.done_path, "w") as file:
            file.write(f"{fingerprint}\n{len(self.read_rounds())} rounds\n")

    def read_stored(self):
        """Read the rounds, or refuse what is left of them after a run has ended.

        Returns
        -------
        records : list of dict
        """
        records = self.stored_rounds = self.read_rounds()
        if self.done:
            number = re.search(r"^(\d+) rounds$", self.done_path.read_text(), re.M)
            n_rounds = int(number[1]) if number else max(len(records), 1)
            if len(records) != n_rounds:
                self.refuse(f"DONE, but {len(records)} of {n_rounds} rounds")
        return records

    def read_rounds(self):
        """Read the rounds that were stored whole.

        Returns
        -------
        records : list of dict
        """
        if not self.rounds_path.exists():
            return []
        lines = self.rounds_path.read_text(encoding="utf-8").split("\n")[:-1]
        records = []
        for number, line in enumerate(lines):
            try:
                records.append(json.loads(line))
                if records[-1]["round"] != number:
                    raise ValueError(f"round {records[-1]['round']} in its place")
            except (KeyError, TypeError, ValueError) as error:
                self.refuse(f"a damaged rounds.jsonl, line {number + 1} ({error})")
        return records

    def read_config(self):
        """Read config.json.

        Returns
        -------
        content : dict
        """
        try:
            text = (self.path / "config.json").read_text(encoding="utf-8")
            content = dict(json.loads(text))
            return {**content, "options": dict(content["options"])}
        except (KeyError, TypeError, ValueError):
            self.refuse("a config.json that cannot be read")

    def _remove_empty(self):
        folder = self.path
        while folder != self._out and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def refuse(self, what):
        """Raise, because the folder holds something that cannot be gone on with.

        Parameters
        ----------
        what : str
            What the folder holds.
        """
        raise UsageError(
            f"The folder {str(self.path)!r} holds {what}. Nothing was changed; name "
            "another folder with --out, or move this one away."
        )


def open_run(path):
    """Open the folder of a run.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    folder : RunFolder
    """
    path = Path(path)
    if not (path / "config.json").exists():
        below = sorted(file.parent for file in path.rglob("config.json"))
        hint = f"; there are runs below it, such as {str(below[0])!r}" if below else ""
        raise UsageError(f"{str(path)!r} is not the folder of a run{hint}.")
    folder = RunFolder(path, RunConfig(), path)
    options = folder.read_config()["options"]
    known = {k: v for k, v in options.items() if k in RunConfig.model_fields}
    # As they were: what they name may be gone by now.
    folder.config = RunConfig.model_construct(**known)
    return folder


def read_run(path):
    """Read a finished or unfinished run.

    Parameters
    ----------
    path : path-like
        Its folder.

    Returns
    -------
    result : RunResult
    """
    folder = open_run(path)
    records, notes = folder.read_stored(), folder.training_notes
    if not folder.done:
        notes.append(
            f"not finished: {len(records)} of {folder.config.n_rounds + 1} rounds; "
            "skal run with the same options goes on"
        )
    return RunResult(folder.config, folder.path, records, notes)


def purchase_name(number):
    """Name in queries.npz of the purchase that led to a round.

    Parameters
    ----------
    number : int
        The round.

    Returns
    -------
    name : str
    """
    return f"round_{number}" if number else "initial"


def _device_name(device):
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.machine()


def _processor():
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _versions():
    versions = {"skal": __version__, "python": platform.python_version()}
    for package in "numpy scipy scikit-learn skorch torch torchvision".split():
        versions[package] = version(package)
    return versions
