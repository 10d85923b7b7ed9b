"""What decides the features of a backbone, as one short text in every process."""

import inspect
import re
from functools import partial
from hashlib import blake2b
from types import CodeType, FunctionType, MethodType

import numpy as np
import torch
from torch import nn

# What torch keeps in a module beside weights and layers, apart from what runs.
_HOOKS = {"_forward_hooks", "_forward_pre_hooks"}
_OF_TORCH = vars(nn.Module()).keys() - _HOOKS


def fingerprint(*parts):
    """Make a short text that is another one where one of the parts is.

    Parameters
    ----------
    *parts : nn.Module, callable, str or None
        A module is known by its layers, weights, attributes and hooks, a function by
        its code, defaults and closure, not by global variables; any other object by
        its class and attributes. Of torch and torchvision the names are enough.

    Returns
    -------
    fingerprint : str
    """
    return _digest(parts, {}).hex()


def _digest(part, known):
    """Hash a part; `known` has those that were met, by their addresses."""
    if id(part) not in known:
        known[id(part)] = b"in itself", part  # kept, so that no other gets its address
        digest = blake2b(f"{type(part).__module__}.{type(part).__qualname__}".encode())
        for name, inner in _inside(part):
            digest.update(name.encode() + b"\0")
            if not isinstance(inner, bytes):
                inner = _digest(inner, known)
            digest.update(blake2b(inner, digest_size=16).digest())
        known[id(part)] = digest.digest()[:16], part
    return known[id(part)][0]


def _inside(part):
    """List what something consists of, as pairs of a name and of bytes or a part."""
    if isinstance(part, torch.Tensor):
        about, part = f"{part.dtype}", part.detach().cpu().contiguous()
        bits = part.reshape(-1).view(torch.uint8).numpy()
        return [(f"{about} {tuple(part.shape)}", bits.tobytes())]
    if isinstance(part, np.ndarray) and part.dtype.kind != "O":
        return [(f"{part.dtype} {part.shape}", part.tobytes())]
    if isinstance(part, CodeType):
        return [("", part.co_code), ("", part.co_names), ("", part.co_consts)]
    if isinstance(part, FunctionType) and not _is_of_torch(part):
        cells = [cell.cell_contents for cell in part.__closure__ or () if _full(cell)]
        return [
            ("", part.__code__),
            ("", part.__defaults__),
            ("", part.__kwdefaults__),
            ("", cells),
        ]
    if isinstance(part, MethodType):
        return [("", part.__func__), ("", part.__self__)]
    if isinstance(part, partial):
        return [("", part.func), ("", part.args), ("", part.keywords)]
    if isinstance(part, list | tuple):
        return [("", each) for each in part]
    if isinstance(part, dict):
        return [(_shown(key), each) for key, each in part.items()]
    if isinstance(part, set | frozenset):
        return [(each, b"") for each in sorted(map(_shown, part))]
    if isinstance(part, type) and not _is_of_torch(part):
        return _inside_class(part)
    if isinstance(part, nn.Module):
        return _inside_module(part)
    if hasattr(part, "__dict__") and not hasattr(part, "__qualname__"):
        return [("", type(part)), *sorted(vars(part).items())]
    return [(_shown(part), b"")]


def _inside_module(module):
    own = {name: value for name, value in vars(module).items() if name not in _OF_TORCH}
    # By numbers that count all hooks of the process.
    own |= {name: list(own[name].values()) for name in _HOOKS}
    return [
        ("", type(module)),
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
        *module.named_children(),
        *sorted(own.items()),
    ]


def _inside_class(kind):
    name = f"{kind.__module__}.{kind.__qualname__}"
    try:
        return [(name, inspect.getsource(kind).encode())]
    except (OSError, TypeError):  # typed in, or written in C
        methods = (item for item in vars(kind).items())
        return [(name, b""), *(m for m in methods if isinstance(m[1], FunctionType))]


def _is_of_torch(part):
    return (part.__module__ or "").partition(".")[0] in ("torch", "torchvision")


def _full(cell):
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # of a function that is being defined
        return False
    return True


def _shown(part):
    """Print without addresses in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))
