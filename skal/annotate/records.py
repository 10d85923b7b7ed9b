"""Records of CSV, JSON and JSONL files, each with its line."""

import csv
import io
import json

from skal.experiment.options import UsageError


def read_records(path):
    """Read a file of records.

    Parameters
    ----------
    path : Path
        Ends in .json (a list of objects), .jsonl (one a line), or holds text separated
        by commas, semicolons, tabs or |, under a line of names.

    Returns
    -------
    records : list of (int, dict)
        With the line where each begins, from 1.

    Raises
    ------
    UsageError
        Naming file, line and remedy.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{path}, line {line}: this is no text in UTF-8; save the file so."
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    kind = path.suffix.lower()
    if kind == ".json":
        return _json_list(path, text)
    if kind == ".jsonl":
        return _json_lines(path, text)
    return _separated(path, text)


def _json_lines(path, text):
    records = []
    for line, part in enumerate(text.split("\n"), 1):
        if part.strip():
            records.append((line, _decode(path, line, part)))
    return records


def _decode(path, line, part):
    try:
        return _as_record(path, line, json.loads(part))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}, line {line}: this is no JSON ({error.msg} at column "
            f"{error.colno}); one whole object must stand in each line."
        ) from None


def _as_record(path, line, value):
    if not isinstance(value, dict):
        raise UsageError(
            f"{path}, line {line}: expected an object in braces, got a "
            f"{type(value).__name__}; write one for each item."
        )
    return value


def _json_list(path, text):
    """Decode a list one by one, to know the lines."""
    decoder, records = json.JSONDecoder(), []
    place, line, counted = _skip(text, 0, " \t\r\n"), 1, 0
    if text[place : place + 1] != "[":
        raise UsageError(
            f"{path}, line {text.count(chr(10), 0, place) + 1}: expected a list in "
            "square brackets; export the tasks as JSON or JSON_MIN."
        )
    first, place = True, place + 1
    while True:
        place = _skip(text, place, " \t\r\n")
        mark = text[place : place + 1]
        if mark == "]":
            return records
        try:
            if not first:
                if mark != ",":
                    raise json.JSONDecodeError("expecting ',' or ']'", text, place)
                place = _skip(text, place + 1, " \t\r\n")
            line, counted = line + text.count("\n", counted, place), place
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise UsageError(
                f"{path}, line {error.lineno}: this is no JSON ({error.msg} at column "
                f"{error.colno}); export the file again."
            ) from None
        records.append((line, _as_record(path, line, value)))
        first = False


def _skip(text, place, marks):
    while place < len(text) and text[place] in marks:
        place += 1
    return place


def _separated(path, text):
    head = text.partition("\n")[0]
    separator = max(",;\t|", key=head.count)
    if separator not in head:
        separator = "\x1f"  # one column, whose texts may hold any of these
    limit = csv.field_size_limit(2**31 - 1)  # texts may be long
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    records, names, before = [], None, 0
    try:
        for row in reader:
            line, before = before + 1, reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if names is None:
                names = [name.strip() for name in row]
                if len(set(names)) < len(names):
                    raise UsageError(
                        f"{path}, line {line}: two columns have one name; rename one."
                    )
                continue
            if len(row) != len(names):
                raise UsageError(
                    f"{path}, line {line}: {len(row)} cells where the first line names "
                    f"{len(names)} columns; put quotes around a text with "
                    f"{separator!r} in it."
                )
            records.append((line, dict(zip(names, row, strict=True))))
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {reader.line_num}: {error}; save it as CSV once more."
        ) from None
    finally:
        csv.field_size_limit(limit)
    return records
