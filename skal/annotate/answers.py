"""Read what people answered elsewhere: spreadsheets and labelling tools."""

import os
from collections import namedtuple
from typing import NamedTuple

from skal.annotate.records import read_records
from skal.annotate.store import Answer
from skal.experiment.options import UsageError, unknown

SKIP = "?"  # in a cell, where no class is called so
Added = namedtuple("Added", "n_recorded n_same n_empty")


class Said(NamedTuple):
    """One answer in a file.

    Parameters
    ----------
    line : int
        Where it is.
    item, skal_id : str
        Which item; one of them may be "".
    label : str or None
        None for a skip, "" where there is no answer.
    annotator : str
    seconds : float or None
    """

    line: int
    item: str
    skal_id: str
    label: str | None
    annotator: str = ""
    seconds: float | None = None


def read_answers(path):
    """Read a file of answers, whichever tool wrote it.

    Parameters
    ----------
    path : Path
        CSV with the columns item (or skal_id) and label; JSON, JSON_MIN or CSV of Label
        Studio; JSONL of Argilla or Prodigy.

    Returns
    -------
    said : list of Said

    Raises
    ------
    UsageError
        Naming file, line and remedy.
    """
    records = read_records(path)
    if not records:
        raise UsageError(f"{path} has no rows; name a file with answers.")
    first = records[0][1]
    if "annotations" in first or "completions" in first:
        read = _label_studio
    elif "answer" in first:
        read = _prodigy
    elif "responses" in first or any(key.endswith(".responses") for key in first):
        read = _argilla
    else:
        read = _flat
        if "label" not in first or not {"item", "skal_id"} & first.keys():
            raise UsageError(
                f"{path}, line 1: the columns item and label are needed, got "
                f"{', '.join(map(str, first))}; rename the columns."
            )
    said = []
    for line, record in records:
        try:
            said += [Said(line, *each) for each in read(record)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = str(error) if type(error) is ValueError else "unexpected structure"
            raise UsageError(
                f"{path}, line {line}: {reason}; correct the line or remove it."
            ) from error
    return said


def _keys(data):
    return str(data.get("item") or ""), str(data.get("skal_id") or "")


def _one(choices):
    """Take the only label of a list of choices."""
    choices = [choices] if isinstance(choices, str) else list(choices)
    if len(choices) != 1 or not isinstance(choices[0], str):
        raise ValueError(f"an item has one class, got {choices}")
    return choices[0]


def _seconds(value):
    if value in (None, ""):
        return None
    seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{value!r} are no seconds")
    return seconds


def _flat(record):
    label = record["label"]
    label = "" if label is None else label
    label = _one(label).strip() if isinstance(label, str | list) else str(label)
    annotator = record.get("annotator")
    annotator = "" if annotator is None else str(annotator).strip()
    seconds = _seconds(record.get("seconds", record.get("lead_time")))
    yield *_keys(record), label, annotator, seconds


def _label_studio(record):
    for each in record.get("annotations", record.get("completions")):
        results = [r for r in each.get("result", ()) if r.get("type") == "choices"]
        if each.get("was_cancelled"):
            label = None
        elif len(results) == 1:
            label = _one(results[0]["value"]["choices"])
        elif each.get("result"):
            raise ValueError(f"an item has one choice, got {len(results)}")
        else:
            continue
        who = each.get("completed_by")
        if isinstance(who, dict):
            who = who.get("email") or who.get("username") or who["id"]
        seconds = _seconds(each.get("lead_time"))
        yield *_keys(record["data"]), label, "" if who is None else str(who), seconds


def _prodigy(record):
    keys = _keys({**record, **(record.get("meta") or {})})
    who = record.get("_annotator_id") or record.get("_session_id") or ""
    if record["answer"] == "accept":
        label = _one(record["accept"] if "accept" in record else record["label"])
    elif record["answer"] == "ignore" or "accept" in record:
        label = None
    else:
        raise ValueError("a rejected suggestion names no class")
    yield *keys, label, str(who)


def _argilla(record):
    keys = _keys({"skal_id": record.get("id"), **_argilla_metadata(record)})
    if "responses" in record:
        answers = [a for each in record["responses"].values() for a in each]
    else:  # flat, one list for each part
        (name,) = (key for key in record if key.endswith(".responses"))
        values = record[name] or []
        users = record.get(f"{name}.users") or [""] * len(values)
        states = record.get(f"{name}.status") or ["submitted"] * len(values)
        parts = zip(values, users, states, strict=True)
        answers = [
            {"value": value, "user_id": user, "status": status}
            for value, user, status in parts
        ]
    for each in answers:
        status = each.get("status") or "submitted"
        if status in ("submitted", "discarded"):
            label = None if status == "discarded" else _one(each["value"])
            yield *keys, label, str(each.get("user_id") or "")


def _argilla_metadata(record):
    nested = record.get("metadata") or {}
    flat = {key: record[key] for key in ("item", "skal_id") if record.get(key)}
    return {**flat, **nested}


def add_answers(project, path, annotator=None, *, correct=False, new_classes=False):
    """Record the answers of a file: all of them, or none where one is wrong.

    Parameters
    ----------
    project : LabelProject
    path : Path
    annotator : str, default=None
        Who gave all of them.
    correct : bool, default=False
        Whether they may differ from what the same annotator said before.
    new_classes : bool, default=False
        Whether unknown classes are added.

    Returns
    -------
    added : Added
        n_recorded, n_same (known already) and n_empty.

    Raises
    ------
    UsageError
        Naming file, line and remedy.
    """
    said = read_answers(path)
    answered = [each for each in said if each.label != ""]
    _check_people(path, answered, annotator)
    items, classes = _Items(project), project.store.classes
    before = project.store.answers()
    keys = zip(before["item"], before["annotator"], strict=True)
    known = dict(zip(keys, before["label"], strict=True))
    seen, answers, new = {}, [], []
    for each in answered:
        where = f"{path}, line {each.line}: "
        number, label = items.find(each, where), each.label
        if label == SKIP and SKIP not in classes:
            label = None
        if label is not None and label not in classes:
            if not new_classes:
                raise UsageError(
                    f"{where}no class {unknown(label, classes)}. Correct it, or let "
                    "--new-classes add it."
                )
            new.append(label)
        key = number, each.annotator if annotator is None else annotator
        name = items.names[number]
        if key in seen:
            raise UsageError(
                f"{where}{name!r} was answered in line {seen[key]} already; remove one "
                "of the two."
            )
        seen[key] = each.line
        if key in known and known[key] == label:
            continue
        if key in known and not correct:
            raise UsageError(
                f"{where}{name!r} is {label or 'skipped'} here and was "
                f"{known[key] or 'skipped'} before; correct the line, or let --correct "
                "take what it says."
            )
        answers.append(Answer(name, label, key[1], each.seconds))
    try:
        project.store.add_classes(new)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    project.store.record(answers)
    n_same, n_empty = len(answered) - len(answers), len(said) - len(answered)
    return Added(len(answers), n_same, n_empty)


def _check_people(path, answered, annotator):
    """Raise where it is not clear who said what."""
    people = {each.annotator for each in answered}
    if len(people) < 2 or ("" not in people and annotator is None):
        return
    odd = [e for e in answered if e.annotator != answered[0].annotator][0]
    named = ", ".join(sorted(people - {""}))
    raise UsageError(
        f"{path}, line {odd.line}: the answers are mixed, of {named}"
        f"{' and of nobody' if '' in people else ''}; name an annotator in each line, "
        "and leave out --annotator where they are several."
    )


class _Items:
    """The items of a project, as files name them."""

    def __init__(self, project):
        items = project.store.items()
        self.project, self.names = project, items["item"].to_dict()
        self.gone = set(items.index[items["state"] == "gone"])
        here = {n: name for n, name in self.names.items() if n not in self.gone}
        self.numbers = {name: number for number, name in here.items()}

    def find(self, said, where):
        number = self._of_name(said.item) if said.item else None
        if said.skal_id:
            named, number = number, self._of_id(said.skal_id, where)
            if named not in (None, number):
                raise UsageError(
                    f"{where}item {said.item!r} and skal_id {said.skal_id!r} do not "
                    "belong together: was one column sorted alone? Take the file as "
                    "it was written."
                )
        if number is None and not said.item:
            raise UsageError(f"{where}which item? Fill in item or skal_id.")
        if number is None:
            vanished = [n for n in self.gone if self.names[n] == said.item]
            if vanished:
                number = vanished[0]
        if number is None:
            some = unknown(said.item, [*self.numbers]).partition(" Allowed")[0]
            raise UsageError(
                f"{where}there is no item {some} Correct the name, or name the project "
                "of this file with --project."
            )
        if number in self.gone:
            raise UsageError(
                f"{where}{self.names[number]!r} was deleted; bring it back, or remove "
                "the line."
            )
        return number

    def _of_name(self, name):
        source = os.fspath(self.project.source.path)
        for spelled in (name, name.replace("\\", "/")):
            if spelled in self.numbers:
                return self.numbers[spelled]
        if os.path.isabs(name):
            name = os.path.relpath(name, source).replace(os.sep, "/")
        return self.numbers.get(name)

    def _of_id(self, skal_id, where):
        project, _, number = skal_id.partition(":")
        if project != self.project.store.project_id:
            raise UsageError(
                f"{where}{skal_id!r} is of another project, this one is "
                f"{self.project.store.project_id}; name its folder with --project."
            )
        if not number.isdecimal() or int(number) not in self.names:
            raise UsageError(
                f"{where}there is no item of the skal_id {skal_id!r}; take the file as "
                "it was written."
            )
        return int(number)
