"""Names and parameters that go away, after a while."""

import warnings
from collections.abc import Callable
from typing import TypeVar

from sklearn import utils

Deprecated = TypeVar("Deprecated", bound=Callable)


def deprecated(
    instead: str, *, since: str, until: str
) -> Callable[[Deprecated], Deprecated]:
    """Mark a function or class that goes away: each call warns.

    Parameters
    ----------
    instead : str
        What to do, as in "use top_k".
    since, until : str
        The first versions that warn, and that lack it: two minor versions later, or
        more. Once the second is reached a test fails.

    Returns
    -------
    decorator : callable
        Changes what it is given so that a call raises a FutureWarning.

    Examples
    --------
    >>> from skal.utils import deprecated
    >>> @deprecated("use max", since="0.2", until="0.4")
    ... def largest(numbers):
    ...     return max(numbers)
    """
    return utils.deprecated(_message(instead, since, until))


def warn_deprecated(what: str, instead: str, *, since: str, until: str) -> None:
    """Warn of something else that goes away, such as a parameter that was given.

    Parameters
    ----------
    what : str
        As in "The parameter width of herding".
    instead, since, until : str
        As in `deprecated`.
    """
    message = f"{what} is deprecated; {_message(instead, since, until)}"
    warnings.warn(message, FutureWarning, stacklevel=3)


def _message(instead, since, until):
    return f"since skal {since}, until {until}: {instead}."
