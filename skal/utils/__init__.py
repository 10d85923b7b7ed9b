"""Small things that the rest of skal shares; imports nothing of skal."""

from skal.utils.deprecation import deprecated, warn_deprecated
from skal.utils.discovery import all_strategies, command_line_name
from skal.utils.files import append_line, atomic_write
from skal.utils.seeds import check_generator, check_seed, derive_seed, isolated_rng

__all__ = [
    "all_strategies",
    "append_line",
    "atomic_write",
    "check_generator",
    "check_seed",
    "command_line_name",
    "deprecated",
    "derive_seed",
    "isolated_rng",
    "warn_deprecated",
]
