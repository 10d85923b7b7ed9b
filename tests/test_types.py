"""Every public signature is annotated, so that completion and checkers know it."""

import importlib
import inspect
from functools import cached_property

import pytest

ROOMS = "loop query selection models datasets plotting analysis testing utils".split()
ROOMS += ["callbacks", "pool", "posterior"]
# Rooms that load their names on first use.
LAZY = {"experiment": ["compare", "run_experiment"], "report": ["write_report"]}


def public_functions():
    """Yield (name, function) for the functions and methods of every public name."""
    for room in [*ROOMS, *LAZY]:
        module = importlib.import_module(f"skal.{room}")
        names = (
            LAZY.get(room)
            or getattr(module, "__all__", None)
            or [
                name
                for name, member in vars(module).items()
                if getattr(member, "__module__", None) == module.__name__
                and not name.startswith("_")
            ]
        )
        for name in names:
            member = getattr(module, name)
            if inspect.isfunction(member):
                yield f"{room}.{name}", member
            elif inspect.isclass(member):
                yield from functions_of(member)


def functions_of(cls):
    for base in cls.__mro__:
        if not base.__module__.startswith("skal."):
            continue
        for name, member in vars(base).items():
            member = getattr(member, "fn", member)  # scikit-learn's available_if
            if isinstance(member, staticmethod | classmethod):
                member = member.__func__
            elif isinstance(member, property):
                member = member.fget
            elif isinstance(member, cached_property):
                member = member.func
            if inspect.isfunction(member) and (name == "__init__" or name[0] != "_"):
                yield f"{base.__name__}.{name}", member


def missing(function):
    signature = inspect.signature(function)
    names = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty
        and parameter.name not in ("self", "cls")
    ]
    if signature.return_annotation is signature.empty:
        if function.__name__ != "__init__":
            names.append("return")
    return names


@pytest.mark.parametrize(
    "function",
    [pytest.param(f, id=name) for name, f in dict(public_functions()).items()],
)
def test_signature_is_annotated(function):
    assert missing(function) == []
