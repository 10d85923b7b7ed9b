"""`LabelProject`: what is to be labelled, the answers, and what learns from them.

What loads torch is imported where it is needed: recording answers needs none of it.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skal.annotate.answers import Added, add_answers
from skal.annotate.inventory import look_through
from skal.annotate.settings import (
    FOLDER,
    Settings,
    check_settings,
    find_project,
    read_settings,
    write_settings,
)
from skal.annotate.sources import find_source
from skal.annotate.store import Answer, LabelStore
from skal.annotate.writing import export
from skal.experiment.config import DEFAULT
from skal.experiment.options import UsageError
from skal.utils.files import IMAGES

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from skal.annotate.learner import Learner
    from skal.annotate.learning import Estimate
    from skal.annotate.serving import Frame

SKIP = "\0skip"  # no class has such a name


class LabelProject:
    r"""A folder of images, or a file of texts or rows, that people label.

    Parameters
    ----------
    folder : path-like
        Of the project, as `init` makes it; or the folder it is in.

    Attributes
    ----------
    store : LabelStore
        All answers.
    settings : Settings
        What the project is set to; ``project.toml`` of its folder.
    found : dict of str to list of str
        What was found when the items were last looked through: "new", "moved" ("old
        -> new"), "gone" and "broken" items.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skal.annotate import LabelProject
    >>> file = Path(tempfile.mkdtemp()) / "reviews.txt"
    >>> _ = file.write_text("a fine film\na dull film\nfine acting\nso dull\n")
    >>> project = LabelProject.init(file, classes=["good", "bad"], batch_size=2)
    >>> batch = project.next()
    >>> batch["label"] = ["good" if "fine" in x else "bad" for x in batch["text"]]
    >>> _ = project.answer(batch["item"], batch["label"])
    >>> project.status()["n_labeled"]
    2
    """

    def __init__(self, folder: str | os.PathLike = "."):
        self.folder = find_project(folder)
        self.settings = read_settings(self.folder)
        self.store = LabelStore(self.folder / "labels.sqlite")
        path = Path(os.path.normpath(self.folder / self.settings.source))
        self.source = find_source(path, self.settings.text_column)
        check_settings(self.source, self.settings)
        self._shown = None, None  # to which origins, by which server
        self.refresh()

    def __repr__(self):
        return f"LabelProject({str(self.folder)!r})"

    @classmethod
    def open(cls, folder: str | os.PathLike = ".") -> Self:
        """Open a project.

        Parameters
        ----------
        folder : path-like, default="."
            Of the project, or the folder it is in.

        Returns
        -------
        project : LabelProject
        """
        return cls(folder)

    @classmethod
    def init(
        cls,
        source: str | os.PathLike,
        *,
        classes: Any = (),
        project: str | os.PathLike | None = None,
        **settings: Any,
    ) -> Self:
        """Make a project; nothing is written beside its own folder.

        Parameters
        ----------
        source : path-like
            A folder of images, looked through with the folders in it; a file of texts:
            .txt with one a line, or CSV, JSON, JSONL or Parquet with a `text_column`;
            or a table: CSV, JSON, JSONL or Parquet.
        classes : sequence of str
            Two at least; `add_classes` adds more.
        project : path-like, default=None
            Folder of the project; None for ``.skal`` in that of the images or the file.
        **settings : dict
            text_column, model, backbone, strategy, batch_size, copies, patience and
            seed; see `Settings`.

        Returns
        -------
        project : LabelProject

        Raises
        ------
        UsageError
            Where something is wrong with them, or the project is there already.
        """
        path = Path(source).expanduser()
        home = path if path.is_dir() else path.parent
        folder = home / FOLDER if project is None else Path(project).expanduser()
        classes = [str(name) for name in classes]
        if len(set(classes)) < 2 or len(set(classes)) < len(classes):
            raise UsageError(
                "--classes must name two different classes at least, with blanks "
                f"between them, got {classes}."
            )
        try:
            find_project(folder)
        except UsageError:
            pass
        else:
            raise UsageError(
                f"{folder} has a project already; go on with skal label next, or name "
                "another folder with --project."
            )
        inside = home.resolve() in folder.resolve().parents
        resolved = path.resolve()
        where = os.path.relpath(resolved, folder.resolve()) if inside else resolved
        settings = Settings(source=Path(where).as_posix(), **settings)
        found = find_source(path, settings.text_column)
        check_settings(found, settings)
        if not found.listing({}).names:
            raise UsageError(
                f"{path} has no images ({', '.join(IMAGES)}); name a folder that has "
                "some, or convert them."
            )
        if settings.backbone or settings.strategy != DEFAULT:
            from skal.annotate.learning import try_out

            try_out(found, settings)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            LabelStore(folder / "labels.sqlite").add_classes(classes)
        except ValueError as error:
            raise UsageError(f"--classes: {error}") from error
        write_settings(folder, settings)  # from now on it is a project
        return cls(folder)

    # -- items ----------------------------------------------------------------------

    def refresh(self) -> dict[str, list[str]]:
        """Look through the items: new ones, moved, changed, vanished, broken ones.

        Returns
        -------
        found : dict of str to list of str

        Raises
        ------
        UsageError
            Where none of the items is there any more.
        """
        self.found = look_through(self.store, self.source)
        return self.found

    def describe(self, items: Any) -> pd.DataFrame:
        """Show items as rows of a table.

        Parameters
        ----------
        items : sequence of str

        Returns
        -------
        frame : DataFrame
            The columns item and label (None), then those of the file; images have a
            path; at last skal_id, which tells an item in any file from all others.
        """
        items = list(items)
        numbers = self.store.numbers(items)
        frame = self.source.describe(items)
        if self.source.kind == "images":
            frame["path"] = self.source.raw(items)
        taken = ["item", "label", "skal_id"]
        frame = frame.drop(columns=taken, errors="ignore")
        frame.insert(0, "item", items)
        frame.insert(1, "label", None)
        frame["skal_id"] = [f"{self.store.project_id}:{n}" for n in numbers]
        return frame

    # -- people ---------------------------------------------------------------------

    def next(self, batch_size: int | None = None, annotator: str = "") -> pd.DataFrame:
        """Give a person the next batch; the same one again until all is answered.

        Parameters
        ----------
        batch_size : int, default=None
            How many; None for that of the settings.
        annotator : str, default=""
            Two people get different items, unless `copies` of the settings asks more
            than one of them for each.

        Returns
        -------
        batch : DataFrame
            As of `describe`; empty when there is nothing left.
        """
        n_items = self.settings.batch_size if batch_size is None else batch_size
        if n_items < 1:
            raise UsageError(f"--batch-size must be at least 1, got {n_items}.")
        copies = self.settings.copies
        items = self.store.hand_out(n_items, annotator, copies=copies)
        # Another may take what is chosen here, and another again.
        while not items and len(self.choose(n_items)):
            items = self.store.hand_out(n_items, annotator, copies=copies)
        return self.describe(items)

    def choose(
        self, n_items: int | None = None, *, replace: bool = False
    ) -> NDArray[np.int64]:
        """Train, choose items and put them in the queue, as a worker does.

        Parameters
        ----------
        n_items : int, default=None
            How many; None for the batch size of the settings.
        replace : bool, default=False
            Take out of the queue what was handed to nobody yet.

        Returns
        -------
        numbers : int64 array
            Of the items, best first.
        """
        n_items = self.settings.batch_size if n_items is None else n_items
        return self.learner.choose(n_items, replace)[0]

    def answer(
        self,
        items: Any,
        labels: Any,
        annotator: str = "",
        *,
        seconds: float | None = None,
    ) -> list[int]:
        """Record answers: all of them, or none where one is wrong.

        Parameters
        ----------
        items : str or sequence of str
        labels : str, None or sequence of them
            A class for each item; None, or NaN, skips it.
        annotator : str, default=""
        seconds : float, default=None
            How long the person took for each.

        Returns
        -------
        numbers : list of int
            Of the events in the store.

        Raises
        ------
        ValueError
            Where an item or a class is not known, or there is not one label each.
        """
        if isinstance(items, str):
            items, labels = [items], [labels]
        labels = [None if pd.isna(label) else str(label) for label in labels]
        pairs = zip(map(str, items), labels, strict=True)
        return self.store.record([Answer(*pair, annotator, seconds) for pair in pairs])

    def add_classes(self, names: Any) -> list[str]:
        """Add classes that are not known yet; see `LabelStore.add_classes`.

        Parameters
        ----------
        names : sequence of str

        Returns
        -------
        added : list of str
        """
        return self.store.add_classes(names)

    def add(
        self,
        path: str | os.PathLike,
        annotator: str | None = None,
        *,
        correct: bool = False,
        new_classes: bool = False,
    ) -> Added:
        """Record the answers of a file: all of them, or none where one is wrong.

        Parameters
        ----------
        path : path-like
            CSV with the columns item and label (empty: leave open; ?: skip), or what
            Label Studio (JSON, JSON_MIN, CSV), Argilla or Prodigy (JSONL) export.
        annotator : str, default=None
            Who gave all of them.
        correct : bool, default=False
            Whether they may differ from what the same annotator said before.
        new_classes : bool, default=False
            Whether unknown classes are added.

        Returns
        -------
        added : tuple of int
            n_recorded, n_same (known already) and n_empty.

        Raises
        ------
        UsageError
            Naming file, line and remedy.
        """
        return add_answers(
            self, Path(path), annotator, correct=correct, new_classes=new_classes
        )

    def export(self, path: str | os.PathLike) -> int:
        """Write what was labelled: a table, or images in a folder for each class.

        Parameters
        ----------
        path : path-like
            Ends in .csv or .parquet; else a folder, which must not be there yet.

        Returns
        -------
        n_items : int
        """
        return export(self, Path(path))

    def undo(self, annotator: str | None = None) -> Answer | None:
        """Take back the last answer; see `LabelStore.undo`.

        Parameters
        ----------
        annotator : str, default=None
            Whose; None for the last of all.

        Returns
        -------
        answer : Answer or None
        """
        return self.store.undo(annotator)

    def status(self) -> dict[str, Any]:
        """Count what there is.

        Returns
        -------
        status : dict
            n_items (that can be labelled), n_labeled, n_skipped, n_open (handed out or
            chosen, not answered), counts (of each class), conflicts, broken and gone
            (names; of those that are gone the labelled ones), agreement (a DataFrame).
        """
        items, labels = self.store.items(), self.store.labels()
        usable, gone = items["state"] == "", items["state"] == "gone"
        counts, n_answered = self.store.tally()
        n_labeled, conflicts = sum(counts.values()), self.store.conflicts()
        n_split = (usable & items["item"].isin(conflicts)).sum()
        return {
            "n_items": int(usable.sum()),
            "n_labeled": n_labeled,
            "n_skipped": int(n_answered - n_labeled - n_split),
            "n_open": len(self.store.queue(self.settings.copies)),
            "counts": {name: counts.get(name, 0) for name in self.store.classes},
            "conflicts": conflicts,
            "broken": items.loc[items["state"] == "broken", "item"].tolist(),
            "gone": items.loc[gone & pd.notna(labels), "item"].tolist(),
            "agreement": self.store.agreement(),
        }

    def show(self, height: int = 700, *, origin: str | None = None) -> "Frame":
        """Show the page in a notebook.

        A server is started beside this process and ends with it; it is there once,
        however often the page is shown. The browser must run on this machine: for
        others there is ``skal label serve``.

        Parameters
        ----------
        height : int, default=700
            In pixels.
        origin : str, default=None
            Begin of the notebook's address, as ``https://hub.example.org``: the one
            that may hold the page in a frame; None for notebooks of this machine.

        Returns
        -------
        frame : Frame
            What Jupyter shows, where it is the last of a cell.
        """
        from skal.annotate.serving import Frame, serve_frames

        if self._shown[0] != (origin,):
            if self._shown[1] is not None:
                self._shown[1].stop()
            self._shown = (origin,), serve_frames(self, origin)
        return Frame(self._shown[1].address, height)

    # -- what learns ----------------------------------------------------------------

    @cached_property
    def learner(self) -> "Learner":
        """What is trained on the labels; for those who work beside people."""
        from skal.annotate.learner import Learner

        return Learner(self)

    @property
    def model_(self) -> "Pipeline":
        """The classifier, trained on all labels so far.

        It takes a list of paths, a list of texts, or a DataFrame.
        """
        return self.learner.model()

    def predict(self) -> pd.DataFrame:
        """Predict all items, and say which a person should look at.

        Returns
        -------
        predictions : DataFrame
            item; label, the predicted class; confidence, its probability; given, the
            label that people gave, or None; look, why a person should look at the
            item: "unsure" (no label, confidence below 0.8), "disagrees" (with the label
            given), "conflict" (of annotators), or "".
        """
        return self.learner.predict()

    def estimate(self) -> "Estimate | None":
        """Estimate the accuracy of the model by cross-validation on what is labelled.

        The strategy chose what is labelled, mostly what is hard, so it is rather too
        low for the items as they come.

        Returns
        -------
        estimate : tuple or None
            accuracy, low, high (95 %, Wilson's) and n_labels; None where fewer than two
            classes have two labels each.
        """
        return self.learner.estimate()
