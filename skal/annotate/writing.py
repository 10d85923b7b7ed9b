"""Write batches for people and labelling tools, and what they made of them."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pandas as pd

from skal.annotate.answers import read_answers
from skal.annotate.images import contact_sheet
from skal.annotate.records import read_records
from skal.annotate.sources import show_json
from skal.experiment.options import UsageError, unknown
from skal.utils.files import atomic_write

_TASK = {"data", "id", "fields", "metadata"}  # of Label Studio, of Argilla
_TASK |= {"image", "text", "row", "options", "meta"}  # of Prodigy
LOCAL_FILES = "/data/local-files/?d="


def write_batch(project, batch, path, form="csv", prefix=LOCAL_FILES):
    """Write a batch for people to label.

    Parameters
    ----------
    project : LabelProject
    batch : DataFrame
        As `LabelProject.next` gives it.
    path : Path
        Of the file; for Label Studio there will be one with the labelling interface
        beside it, ending in .xml.
    form : {"csv", "label-studio", "argilla", "prodigy"}, default="csv"
    prefix : str
        Before the paths of images in Label Studio.

    Returns
    -------
    paths : list of Path
        What was written.

    Raises
    ------
    UsageError
        Where the file exists and holds answers that were not added.
    """
    if form not in WRITERS:
        raise UsageError(f"--format cannot be {unknown(form, WRITERS)}.")
    check_folder(path)
    _check_free(project, path)
    text, config = WRITERS[form](project, batch, prefix)
    with atomic_write(path, "w") as file:
        file.write(text)
    if config is None:
        return [path]
    beside = path.with_suffix(".xml")
    with atomic_write(beside, "w") as file:
        file.write(config)
    return [path, beside]


def _check_free(project, path):
    """Raise where a file would be lost in which people have written."""
    if not path.exists():
        return
    try:
        said = [each for each in read_answers(path) if each.label != ""]
    except UsageError:
        said = [] if _is_unanswered(path) else None
    if said:
        ids = f"{project.store.project_id}:"
        answered = set(project.store.answers()["item"])
        said = [
            each
            for each in said
            if not each.skal_id.startswith(ids)
            or int(each.skal_id.partition(":")[2]) not in answered
        ]
    if said is None or said:
        raise UsageError(
            f"{path} is there already, and holds what was not added; read it with "
            "skal label add, or name another file with --out."
        )


def _is_unanswered(path):
    """Whether a file holds tasks as they are written here, and nothing else."""
    try:
        tasks = read_records(path)
    except UsageError:
        return False
    return bool(tasks) and all(task.keys() <= _TASK for _, task in tasks)


def _csv(project, batch, prefix):
    return batch.to_csv(index=False, lineterminator="\n"), None


def _tasks(project, batch):
    """Give item, skal_id and what is shown of each."""
    kind = project.source.kind
    for row in batch.to_dict("records"):
        row = {str(key): show_json(value) for key, value in row.items()}
        keys = {"item": row.pop("item"), "skal_id": row.pop("skal_id")}
        row.pop("label")
        if kind == "texts":
            yield keys, "text", row[project.source.text_column]
        else:
            yield keys, *(("image", row["path"]) if "path" in row else ("row", row))


def _label_studio(project, batch, prefix):
    kind = {"images": "image", "texts": "text", "table": "row"}[project.source.kind]
    tasks = []
    for keys, name, value in _tasks(project, batch):
        if name == "image":
            value = prefix + quote(keys["item"])
        tasks.append({"data": {name: value, **keys}})
    choices = "\n".join(
        f"    <Choice value={quoteattr(name)}/>" for name in project.store.classes
    )
    tag = {"image": "Image", "text": "Text", "row": "Table"}[kind]
    config = (
        f'<View>\n  <{tag} name="{kind}" value="${kind}"/>\n'
        f'  <Choices name="label" toName="{kind}" choice="single" showInLine="true">\n'
        f"{choices}\n  </Choices>\n</View>\n"
    )
    return json.dumps(tasks, ensure_ascii=False, indent=1), config


def _argilla(project, batch, prefix):
    lines = []
    for keys, name, value in _tasks(project, batch):
        record = {"id": keys["skal_id"], "fields": {name: value}, "metadata": keys}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines), None


def _prodigy(project, batch, prefix):
    options = [{"id": name, "text": name} for name in project.store.classes]
    lines = []
    for keys, name, value in _tasks(project, batch):
        task = {name: value, "options": options, "meta": keys}
        lines.append(json.dumps(task, ensure_ascii=False) + "\n")
    return "".join(lines), None


WRITERS = {
    "csv": _csv,
    "label-studio": _label_studio,
    "argilla": _argilla,
    "prodigy": _prodigy,
}


def check_outside(project, path):
    """Raise where images that are written would become items themselves.

    Parameters
    ----------
    project : LabelProject
    path : Path
    """
    folder = project.source.path.resolve()
    if project.source.kind == "images" and folder in path.resolve().parents:
        raise UsageError(
            f"{path} lies in {folder}, whose images are to be labelled, and would be "
            "among them; name a place outside."
        )


def write_sheet(project, batch, path):
    """Draw the images of a batch on one sheet.

    Parameters
    ----------
    project : LabelProject
    batch : DataFrame
    path : Path
        Ends in .png or .jpg.
    """
    if project.source.kind != "images":
        raise UsageError("--sheet shows images, and here are none; leave it out.")
    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"--sheet must end in .png or .jpg, got {str(path)!r}.")
    check_folder(path)
    check_outside(project, path)
    sheet = contact_sheet(batch["path"].tolist(), batch["item"].tolist())
    with atomic_write(path) as file:
        sheet.save(file, kind)


def write_frame(frame, path):
    """Write a table.

    Parameters
    ----------
    frame : DataFrame
    path : Path
        Ends in .csv or .parquet.
    """
    try:
        with atomic_write(check_table(path)) as file:
            if path.suffix.lower() == ".csv":
                file.write(frame.to_csv(index=False, lineterminator="\n").encode())
            else:
                frame.to_parquet(file, index=False)
    except ImportError as error:
        raise UsageError(f"{path} needs a package: pip install pyarrow.") from error


def check_table(path):
    """Raise unless a path ends in .csv or .parquet.

    Parameters
    ----------
    path : Path

    Returns
    -------
    path : Path
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"{str(path)!r} must end in .csv or .parquet.")
    check_folder(path)
    return path


def check_folder(path):
    """Raise unless there is a folder for a file.

    Parameters
    ----------
    path : Path
    """
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {str(path.parent)!r}; make it first.")


def labelled(project):
    """Give all items that have a label, and what they hold.

    Parameters
    ----------
    project : LabelProject

    Returns
    -------
    frame : DataFrame
        The columns item and label, then those of the file.
    """
    items = project.store.items()
    labels = pd.Series(project.store.labels(), index=items.index, dtype=object)
    numbers = items.index[(items["state"] == "") & labels.notna()]
    frame = project.describe(items.loc[numbers, "item"])
    frame["label"] = labels.loc[numbers].to_numpy()
    return frame.drop(columns="skal_id")


def export(project, path):
    """Write what was labelled: a table, or images in a folder for each class.

    Parameters
    ----------
    project : LabelProject
    path : Path
        Ends in .csv or .parquet; else a folder, which must not be there yet.

    Returns
    -------
    n_items : int
    """
    frame = labelled(project)
    if path.suffix.lower() in (".csv", ".parquet"):
        write_frame(frame, path)
        return len(frame)
    if project.source.kind != "images" or path.suffix[1:].isalpha():
        raise UsageError(
            f"{str(path)!r} must end in .csv or .parquet; images alone make a folder "
            "by class, whose name has no such end."
        )
    if path.exists():
        raise UsageError(f"{path} is there already; name a new folder.")
    check_outside(project, path)
    for name in frame["label"].unique():
        if name[0] == "." or set(name) & set('/\\:*?"<>|'):
            raise UsageError(
                f"the class {name!r} cannot be the name of a folder; export a .csv."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        for row in frame.itertuples():
            target = temporary / row.label / row.item
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(row.path, target)
        temporary.chmod(0o755)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return len(frame)
