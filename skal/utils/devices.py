"""Devices of torch."""

import torch


def usable_device(device: str | torch.device) -> str:
    """Resolve "auto", and try the device.

    Parameters
    ----------
    device : str or torch.device
        "auto" is a GPU where there is one, else the CPU.

    Returns
    -------
    device : str

    Raises
    ------
    ValueError
        Where it cannot be used.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
    # What torch raises for a device it was built without, lacks, or does not know.
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={str(device)!r} cannot be used here ({reason}); take 'cpu' or "
            "'auto'."
        ) from error
    return str(device)
