"""The files of a run."""

import io
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from skal._version import __version__
from skal.experiment.config import UsageError
from skal.utils import append_line, atomic_write

_TIMES = ("train_s", "query_s")


class RunFolder:
    """The folder of one run, below the folder of all results.

    Holds config.json (options, their hash, versions), rounds.jsonl (one line a round),
    queries.npz (rows of the training images in the order of purchase: initial, round_1,
    ...; and where they were drawn, pool, the rows that could be bought, and test, the
    rows of the whole data set that are the test split), learning_curve.png and, written
    last, DONE.

    A run that was interrupted starts again from round 0. Rounds that come out as they
    are stored leave the files as they are; from the first one that differs, the files
    are written anew.

    Parameters
    ----------
    out : path-like
        Folder of all results.
    config : RunConfig
        Resolved.
    """

    def __init__(self, out, config):
        self.config = config
        self.path = Path(out) / config.run_id
        self.rounds_path = self.path / "rounds.jsonl"

    def check(self):
        """Refuse a folder that belongs to another configuration."""
        path = self.path / "config.json"
        if path.exists():
            stored = self._read_options(path)
            wanted = asdict(self.config)
            differences = [
                f"{name} is {stored.get(name)!r} there and {value!r} now"
                for name, value in wanted.items()
                if stored.get(name) != value
            ] + [f"{name} is unknown now" for name in stored.keys() - wanted.keys()]
            if differences:
                self._refuse("another configuration: " + "; ".join(differences))
        elif self.path.exists() and any(
            not path.name.startswith(".") for path in self.path.iterdir()
        ):
            self._refuse("files but no config.json")

    @property
    def done(self):
        """Whether the run has ended."""
        return (self.path / "DONE").exists()

    def start(self):
        """Make the folder and its config.json, and drop a torn last line of rounds."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / "config.json"
        if not path.exists():
            content = {
                "options": asdict(self.config),
                "hash": self.config.hash,
                "device_name": _device_name(self.config.device),
                "versions": _versions(),
            }
            with atomic_write(path, "w") as file:
                file.write(json.dumps(content, indent=2) + "\n")
        self._stored = self.read_rounds()
        if self.rounds_path.exists():
            self._rewrite_rounds()

    def record(self, record, queries):
        """Store a round.

        Parameters
        ----------
        record : dict
            The line of rounds.jsonl.
        queries : dict of str to ndarray
            All purchases so far.
        """
        position = record["round"]
        if position < len(self._stored):
            if _timeless(self._stored[position]) == _timeless(record):
                return
            self._stored = self._stored[:position]
            self._rewrite_rounds()
        # Queries first: a line of rounds.jsonl promises the purchases behind it.
        buffer = io.BytesIO()
        np.savez(buffer, **queries)
        with atomic_write(self.path / "queries.npz") as file:
            file.write(buffer.getvalue())
        append_line(self.rounds_path, json.dumps(record))
        self._stored.append(record)

    def finish(self, figure):
        """Store the picture, if there is one, and say that the run has ended.

        Parameters
        ----------
        figure : matplotlib Figure or None
        """
        if figure is not None:
            with atomic_write(self.path / "learning_curve.png") as file:
                figure.savefig(file, format="png", dpi=150)
        with atomic_write(self.path / "DONE", "w") as file:
            file.write(self.config.hash + "\n")

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
                self._refuse(f"a damaged rounds.jsonl, line {number + 1} ({error})")
        return records

    def _rewrite_rounds(self):
        with atomic_write(self.rounds_path, "w") as file:
            file.writelines(json.dumps(record) + "\n" for record in self._stored)

    def _read_options(self, path):
        try:
            options = json.loads(path.read_text(encoding="utf-8"))["options"]
            return dict(options)
        except (KeyError, TypeError, ValueError):
            self._refuse("a config.json that cannot be read")

    def _refuse(self, what):
        raise UsageError(
            f"The folder {str(self.path)!r} holds {what}. Nothing was changed; name "
            "another folder with --out, or move this one away."
        )


def _timeless(record):
    return {key: value for key, value in record.items() if key not in _TIMES}


def _device_name(device):
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.machine()


def _versions():
    versions = {"skal": __version__, "python": platform.python_version()}
    for package in "numpy scipy scikit-learn skorch torch torchvision".split():
        versions[package] = version(package)
    return versions
