"""Random state: derived seeds, generators, and fits that leave no trace."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from zlib import crc32

import numpy as np

SeedLike = int | np.random.Generator | np.random.RandomState | None


def check_generator(
    random_state: SeedLike | np.random.SeedSequence,
) -> np.random.Generator:
    """Turn `random_state` into a `numpy.random.Generator`.

    Parameters
    ----------
    random_state : None, int, SeedSequence, Generator or RandomState
        None draws fresh entropy (never NumPy's global generator); a Generator is
        used as it is; a RandomState gives the seed of a new one.

    Returns
    -------
    generator : numpy.random.Generator
    """
    if isinstance(random_state, np.random.RandomState):
        random_state = check_seed(random_state)
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "random_state must be None, a non-negative int, a Generator or a "
            f"RandomState, got {random_state!r}."
        ) from error


def check_seed(random_state: SeedLike) -> int:
    """Turn `random_state` into a non-negative int; None draws fresh entropy."""
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state)
    raise ValueError(
        "random_state must be None, a non-negative int, a Generator or a "
        f"RandomState, got {random_state!r}."
    )


def derive_seed(seed: int, n_labeled: int, purpose: str) -> int:
    """Derive the seed of one purpose at one number of labels, without state.

    Parameters
    ----------
    seed : int
        The seed of the run.
    n_labeled : int
        Number of labels bought so far.
    purpose : str
        What the seed is for: "split", "initial", "fit", "query", ...

    Returns
    -------
    seed : int
        In [0, 2**32), the same on every machine and in every process.
    """
    key = (int(n_labeled), crc32(purpose.encode()))
    sequence = np.random.SeedSequence(int(seed), spawn_key=key)
    return int(sequence.generate_state(1)[0])


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators, and restore them after.

    Parameters
    ----------
    seed : int
        In [0, 2**32).
    """
    torch = sys.modules.get("torch")
    python_state, numpy_state = random.getstate(), np.random.get_state()
    if torch is not None:
        torch_state, torch_seed = torch.get_rng_state(), torch.initial_seed()
        cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        cuda_states = torch.cuda.get_rng_state_all() if cuda else None
        torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
            if cuda_states is not None:
                torch.cuda.set_rng_state_all(cuda_states)
            elif torch.cuda.is_available():  # still asleep, or woken by the block
                torch.cuda.manual_seed_all(torch_seed)
