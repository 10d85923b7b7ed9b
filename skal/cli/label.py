"""`skal label`: people label, on the command line; heavy modules are imported late."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from skal.experiment.options import Options, UsageError

label = App(
    name="label",
    help=(
        "Label images, texts or rows, chosen by a model that learns meanwhile. Begin "
        "with init; then serve opens a page in the browser, or next and add go by "
        "files; status, predict and export at any time."
    ),
    help_format="plaintext",
)
Project = Annotated[
    str, Parameter(help="The folder of the project, or the one it is in.")
]
Debug = Annotated[
    bool, Parameter("--debug", negative="", show_default=False, help="Show tracebacks.")
]
Annotator = Annotated[str | None, Parameter(help="Who answers, where several do.")]


def _open(folder):
    from skal.annotate import LabelProject

    project = LabelProject.open(folder)
    _tell(project)
    return project


def _tell(project):
    """Say what happened to the items, on the standard error stream."""
    words = {
        "new": "new items",
        "moved": "moved",
        "gone": "deleted",
        "broken": "passed over",
    }
    for kind, word in words.items():
        found = project.found.get(kind)
        if found:
            listed = "; ".join(found[:10]) + "; ..." * (len(found) > 10)
            listed = "" if kind == "new" else f": {listed}"
            print(f"skal: {len(found)} {word}{listed}", file=sys.stderr)


@label.command(usage="Usage: skal label init SOURCE --classes NAME NAME ... [OPTIONS]")
def init(
    source: str,
    /,
    *,
    classes: list[str],
    project: str | None = None,
    text_column: str | None = None,
    model: str | None = None,
    backbone: str | None = None,
    strategy: str | None = None,
    batch_size: str | None = None,
    copies: str | None = None,
    patience: str | None = None,
    seed: str | None = None,
    debug: Debug = False,
):
    """Make a project of a folder of images, or of a file of texts or rows.

    Parameters
    ----------
    source : str
        A folder of images; a .txt file with one text a line; or a CSV, JSON, JSONL or
        Parquet file, of texts where --text-column names them, else of rows.
    classes : list of str
        Two at least; others may be added later.
    project : str
        Folder of the project; by default .skal beside the items.
    text_column : str
        Column of the texts.
    model : str
        What learns: linear (the default), mlp, or for images cnn or resnet.
    backbone : str
        A pretrained network whose features the model sees, as torchvision:resnet18.
    strategy : str
        What chooses the batches after the first; by default u-herding. See skal list.
    batch_size : str
        Items of a batch; by default 20.
    copies : str
        How many people label each item; by default 1.
    patience : str
        How many models in a row must agree before you are advised to stop; by
        default 3.
    seed : str
        Of all that is random; by default 0.
    """
    from skal.annotate import LabelProject
    from skal.annotate.settings import FOLDER

    settings = {
        "text_column": text_column,
        "model": model,
        "backbone": backbone,
        "strategy": strategy,
        "batch_size": batch_size,
        "copies": copies,
        "patience": patience,
        "seed": seed,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    made = LabelProject.init(source, classes=classes, project=project, **settings)
    del made.found["new"]  # all are
    _tell(made)
    sentences = made.source.sentences() if made.source.kind == "table" else []
    if sentences:
        print(
            f"skal: sentences stand in {', '.join(sentences)}, and no model reads them "
            f"in a table: make the project anew with --text-column {sentences[0]}, or "
            "go on with the other columns",
            file=sys.stderr,
        )
    where = made.folder.parent if made.folder.name == FOLDER else made.folder
    print(f"project: {made.folder}, {made.status()['n_items']} items")
    print(f"label them: skal label serve {shlex.quote(str(where))}")


@label.command(name="next")
def next_batch(
    project: Project = ".",
    *,
    batch_size: str | None = None,
    annotator: Annotator = None,
    out: str = "batch.csv",
    format: str = "csv",
    prefix: str | None = None,
    sheet: str | None = None,
    debug: Debug = False,
):
    """Write the next batch to label; the same again until it is answered.

    Parameters
    ----------
    batch_size : str
        How many items; by default as the project is set to.
    out : str
        The file; fill in its column label, ? for what you cannot decide.
    format : str
        csv, label-studio, argilla or prodigy.
    prefix : str
        Before the paths of images in Label Studio; by default that of its local files.
    sheet : str
        Draw the images of the batch on one sheet too, a .png or .jpg.
    """
    from skal.annotate.settings import Count
    from skal.annotate.writing import LOCAL_FILES, write_batch, write_sheet

    class _Batch(Options):
        batch_size: Count | None = None

    size = _Batch(batch_size=batch_size).batch_size
    opened = _open(project)
    batch = opened.next(size, annotator or "")
    if not len(batch):
        print("nothing is left to label")
        return
    prefix = LOCAL_FILES if prefix is None else prefix
    written = write_batch(opened, batch, Path(out), format, prefix)
    if sheet is not None:
        write_sheet(opened, batch, Path(sheet))
        written.append(sheet)
    for path in written:
        print(f"{len(batch)} items: {path}")


@label.command
def add(
    file: str,
    /,
    *,
    project: Project = ".",
    annotator: Annotator = None,
    correct: Annotated[bool, Parameter(negative="")] = False,
    new_classes: Annotated[bool, Parameter(negative="")] = False,
    debug: Debug = False,
):
    """Read answers: all of a file, or none where one of them is wrong.

    Parameters
    ----------
    file : str
        CSV with the columns item and label; JSON, JSON_MIN or CSV of Label Studio;
        JSONL of Argilla or Prodigy.
    correct : bool
        Let the answers differ from earlier ones of the same annotator.
    new_classes : bool
        Add classes that are not known yet.
    """
    added = _open(project).add(
        file, annotator, correct=correct, new_classes=new_classes
    )
    print(
        f"{added.n_recorded} answers recorded, {added.n_same} known already, "
        f"{added.n_empty} left open"
    )


@label.command
def status(project: Project = ".", *, debug: Debug = False):
    """Count what is labelled, and name what needs a look."""
    opened = _open(project)
    found = opened.status()
    print(
        f"{found['n_labeled']} of {found['n_items']} items labelled, "
        f"{found['n_skipped']} skipped, {found['n_open']} in the open batch"
    )
    for name, count in found["counts"].items():
        print(f"  {name}: {count}")
    estimate = opened.estimate() if found["n_labeled"] >= 10 else None
    if estimate is not None:
        print(
            f"accuracy about {estimate.accuracy:.0%} ({estimate.low:.0%} to "
            f"{estimate.high:.0%}), cross-validated on what is labelled: rather too "
            "low, since hard items were chosen"
        )
    names = {
        "conflicts": "the annotators are split on",
        "broken": "cannot be read",
        "gone": "labelled, but deleted",
    }
    for kind, words in names.items():
        if found[kind]:
            print(f"{words}: {', '.join(found[kind])}")
    for pair in found["agreement"].itertuples():
        print(
            f"{pair.first or 'nobody'} and {pair.second or 'nobody'} agree on "
            f"{pair.agreement:.0%} of {pair.n_items} items, kappa {pair.kappa:.2f}"
        )


@label.command
def export(out: str, /, *, project: Project = ".", debug: Debug = False):
    """Write what was labelled.

    Parameters
    ----------
    out : str
        A .csv or .parquet file, or a new folder for images by class.
    """
    n_items = _open(project).export(out)
    print(f"{n_items} labelled items: {out}")


@label.command
def predict(out: str, /, *, project: Project = ".", debug: Debug = False):
    """Write what the model says of all items, and which a person should look at.

    Parameters
    ----------
    out : str
        A .csv or .parquet file.
    """
    from skal.annotate.writing import check_table, write_frame

    path = check_table(Path(out))
    predictions = _open(project).predict()
    write_frame(predictions, path)
    n_unsure = int((predictions["look"] != "").sum())
    print(f"{len(predictions)} items, {n_unsure} to look at: {out}")


@label.command
def undo(project: Project = ".", *, annotator: Annotator = None, debug: Debug = False):
    """Take back the last answer."""
    answer = _open(project).undo(annotator)
    if answer is None:
        raise UsageError("there is no answer to take back.")
    print(f"taken back: {answer.item} was {answer.label or 'skipped'}")
