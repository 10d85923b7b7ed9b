"""How the value of an option is checked, whoever gives it; loads nothing heavy."""

import ast
import difflib
import inspect
import json
import os
import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationError


class UsageError(Exception):
    """A request that cannot be met, said in one message for the user."""


class Options(BaseModel):
    """Options by name, checked when they are given: the base of all of them.

    Raises
    ------
    UsageError
        For the first value that cannot be, naming the option as the command line does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **options):
        """Give the fields what the docstring says of them, for the help."""
        about = re.findall(r"^(\w+) : .*((?:\n    .+)+)", inspect.getdoc(cls), re.M)
        for name, text in about:
            field = cls.model_fields[name]
            field.description = field.description or " ".join(text.split())

    def __init__(self, **values):
        try:
            super().__init__(**{name: _plain(value) for name, value in values.items()})
        except ValidationError as error:
            raise UsageError(self._message(error.errors()[0])) from None

    @classmethod
    def _message(cls, error):
        own = {"string_type": "must be a text", "bool_type": "must be true or false"}
        own = own.get(error["type"], error["msg"]) + f", got {error['input']!r}"
        reason = error.get("ctx", {}).get("error", own)
        if not error["loc"]:
            return f"{reason}."
        name = str(error["loc"][0])
        if error["type"] == "extra_forbidden":
            return f"There is no option {unknown(name, cls.model_fields)}."
        if error["type"] == "literal_error":
            allowed = get_args(cls.model_fields[name].annotation)
            reason = f"cannot be {unknown(str(error['input']), allowed)}"
        return f"{flag(name)} {reason}."

    def words(self):
        """Write the options that are not left to their defaults for a command line.

        Returns
        -------
        words : list of str
        """
        words = []
        for name, value in self:
            if value in (None, type(self).model_fields[name].default):
                continue
            if isinstance(value, dict):
                for key, item in value.items():
                    words += [flag(name), f"{key}={_literal(item)}"]
            elif isinstance(value, bool):
                words.append(flag(name if value else f"no_{name}"))
            else:
                words += [flag(name), str(value)]
        return words


def flag(name):
    """Name of a field on the command line.

    Parameters
    ----------
    name : str

    Returns
    -------
    flag : str
    """
    name = "strategy_option" if name == "strategy_options" else name
    return "--" + name.replace("_", "-")


def unknown(name, allowed):
    """Say what a wrong name may mean, and which are allowed.

    Parameters
    ----------
    name : str
    allowed : iterable of str

    Returns
    -------
    text : str
    """
    by_folded = {each.casefold(): each for each in allowed}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    hint = f"; did you mean {by_folded[near[0]]!r}?" if near else "."
    return f"{name!r}{hint} Allowed are {', '.join(by_folded.values())}"


def read_options(path, allowed):
    """Read options from a file.

    Parameters
    ----------
    path : path-like
        TOML or YAML; keys are the options without dashes in front.
    allowed : type
        The `Options` that may be in it.

    Returns
    -------
    values : dict
        Checked, by the names of the fields.
    """
    content = _read_file(path)
    by_key = {flag(name).removeprefix("--"): name for name in allowed.model_fields}
    values = {}
    for key, value in content.items():
        name = by_key.get(str(key).replace("_", "-"))
        if name is None:
            raise UsageError(
                f"--config {path}: unknown key {unknown(str(key), by_key)}."
            )
        if name in values:
            raise UsageError(
                f"--config {path}: {key!r} gives {name!r} a second time; keep one."
            )
        values[name] = value
    try:
        return allowed(**values).model_dump(exclude_unset=True)
    except UsageError as error:
        reason = str(error).removeprefix("--")
        raise UsageError(f"--config {path}: {reason}") from None


def _read_file(path):
    kind = "YAML" if str(path).endswith((".yaml", ".yml")) else "TOML"
    malformed = ValueError
    try:
        text = Path(path).read_text(encoding="utf-8")
        if kind == "TOML":
            return tomllib.loads(text)
        import yaml

        malformed = (ValueError, yaml.YAMLError)
        content = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}.") from error
    except ImportError as error:
        raise UsageError(
            f"--config {path}: YAML needs another package, pip install pyyaml; or "
            "write TOML."
        ) from error
    except malformed as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UsageError(f"--config {path} is not {kind}: {reason}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path} must be a table of options.")
    return content


def _plain(value):
    """Turn what Python users have into what a file gives."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # of NumPy
        return value.tolist()
    if isinstance(value, tuple | range):
        value = list(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value


# What follows are checks for `pydantic.BeforeValidator`: they take what a function, a
# file or the command line gives, text there.


def whole(lowest, highest=2**32 - 1, hint=""):
    """Make the check of a whole number.

    Parameters
    ----------
    lowest, highest : int
    hint : str, default=""
        What else may be given.

    Returns
    -------
    check : callable
    """

    def check(value):
        text = "" if isinstance(value, bool) else str(value)
        digits = re.fullmatch(r"\d+", text)
        if digits and lowest <= int(text) <= highest:
            return int(text)
        limit = f" (at most {highest})" if digits and int(text) > highest else ""
        raise ValueError(
            f"must be a whole number of at least {lowest}, got {value!r}{limit}{hint}"
        )

    return check


def number(*, above=None, least=None, below=float("inf")):
    """Make the check of a finite number.

    Parameters
    ----------
    above, least : float, default=None
        Lowest number, itself excluded or included.
    below : float, default=inf
        Excluded.

    Returns
    -------
    check : callable
    """

    def check(value):
        try:
            found = float("nan" if isinstance(value, bool) else value)
        except (TypeError, ValueError):
            found = float("nan")
        if (found >= least if above is None else found > above) and found < below:
            return found
        limits = f"above {above}" if above is not None else f"of at least {least}"
        limits += f" and below {below}" if below < float("inf") else ""
        raise ValueError(f"must be a number {limits}, got {value!r}")

    return check


def one_of(allowed, also=tuple, other=None):
    """Make the check of a name.

    Parameters
    ----------
    allowed : sequence of str
        The names.
    also : callable, default=tuple
        Lists what else is taken, for the message.
    other : callable, default=None
        Tells whether a text is that.

    Returns
    -------
    check : callable
    """

    def check(value):
        if value in allowed or (other and isinstance(value, str) and other(value)):
            return value
        raise ValueError(f"cannot be {unknown(str(value), [*allowed, *also()])}")

    return check


def each(check):
    """Make the check of a list with at least one value.

    Parameters
    ----------
    check : callable
        The check of each.

    Returns
    -------
    check : callable
    """

    def check_all(values):
        if isinstance(values, list) and values:
            return [check(value) for value in values]
        raise ValueError(f"must be a list of at least one, got {values!r}")

    return check_all


def text(value):
    """Check a text; a number is one.

    Parameters
    ----------
    value : object

    Returns
    -------
    text : str
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a text, got {value!r}")
    return str(value)


def size(value):
    """Check a number of rows, or percent of them.

    Parameters
    ----------
    value : object

    Returns
    -------
    size : int or str
    """
    if str(value).endswith("%"):
        share(value)
        return value
    return whole(1, hint="; or percent, as 2%")(value)


def table(value):
    """Check a table of parameters.

    Parameters
    ----------
    value : object

    Returns
    -------
    table : dict
        Of what JSON can store.
    """
    if not isinstance(value, dict):
        raise ValueError(f"must be a table, got {value!r}")
    for key, item in value.items():
        try:
            json.dumps(item, allow_nan=False)
        except (TypeError, ValueError):
            given = f"{key}={item}"
            raise ValueError(
                f"must be a number, a text, a list or None, got {given!r}"
            ) from None
    return value


def pairs(texts):
    """Read the parameters of a command line.

    Parameters
    ----------
    texts : list of str
        As in key=value.

    Returns
    -------
    table : dict
        Texts that are Python literals are read as these.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(
                f"--strategy-option must look like key=value, got {text!r}."
            )
        found[key] = _read_literal(value)
    return found


def _read_literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _literal(value):
    """Write what `_read_literal` reads as the value."""
    return value if _read_literal(str(value)) == value else repr(value)


def share(text):
    """Read a percentage.

    Parameters
    ----------
    text : str
        Above 0 %, 100 % at most.

    Returns
    -------
    share : Fraction
        Exact, so that 29 % of 100 are 29.

    Examples
    --------
    >>> from skal.experiment.options import share
    >>> int(share("0.29%") * 10_000)
    29
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text)
    value = Fraction(found[1]) / 100 if found else 0
    if not 0 < value <= 1:
        raise ValueError(f"must be a percentage above 0% and up to 100%, got {text!r}")
    return value
