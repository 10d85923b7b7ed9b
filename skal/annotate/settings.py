"""What a project is set to, in a TOML file."""

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator as Check

from skal.experiment import names
from skal.experiment.config import DEFAULT, Backbone, Count, Text
from skal.experiment.options import Options, UsageError, one_of, whole
from skal.utils.files import atomic_write

FILE = "project.toml"
FOLDER = ".skal"
MODELS = names.MODELS
_strategy = one_of(names.STRATEGIES, names.other_strategies, names.is_other_strategy)


class Settings(Options):
    """What a project is set to.

    Parameters
    ----------
    source : str
        A folder of images, or a file of texts or rows, seen from the folder of the
        project.
    text_column : str or None, default=None
        Column of the texts; None: the rows are a table.
    model : str, default="linear"
        What learns from the labels; cnn and resnet see the images themselves.
    backbone : str or None, default=None
        A pretrained network whose features the model sees, as torchvision:resnet18.
    strategy : str, default="u-herding"
        What chooses the batches after the first.
    batch_size : int, default=20
        Items of a batch.
    copies : int, default=1
        How many people label each item.
    patience : int, default=3
        So many models in a row must agree before it is advised to stop.
    seed : int, default=0
        Of all that is random.
    """

    source: Text
    text_column: Text | None = None
    model: Annotated[str, Check(one_of(MODELS))] = "linear"
    backbone: Backbone | None = None
    strategy: Annotated[str, Check(_strategy)] = DEFAULT
    batch_size: Count = 20
    copies: Count = 1
    patience: Count = 3
    seed: Annotated[int, Check(whole(0))] = 0


def check_settings(source, settings):
    """Raise where the settings do not fit the source.

    Parameters
    ----------
    source : ImageSource or RowSource
    settings : Settings
    """
    if settings.model in ("cnn", "resnet"):
        if source.kind != "images" or settings.backbone:
            raise UsageError(
                f"--model {settings.model} needs the images themselves, and here are "
                f"{'features' if settings.backbone else source.kind}; take --model "
                "linear or mlp."
            )
    if settings.backbone and source.kind == "table":
        raise UsageError("--backbone is nothing for a table; leave it out.")


def write_settings(folder, settings):
    """Write the settings of a project.

    Parameters
    ----------
    folder : Path
    settings : Settings
    """
    values = settings.model_dump(exclude_none=True)
    with atomic_write(folder / FILE, "w") as file:
        for name, value in values.items():
            # A text of JSON is one of TOML.
            file.write(f"{name} = {json.dumps(value)}\n")


def read_settings(folder):
    """Read the settings of a project.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    settings : Settings

    Raises
    ------
    UsageError
        Naming the file and what is wrong in it.
    """
    path = folder / FILE
    try:
        return Settings(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix('--')}") from None


def find_project(folder):
    """Find the folder of a project: this one, or the one in it.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    folder : Path
    """
    folder = Path(folder).expanduser()
    for place in (folder, folder / FOLDER):
        if (place / FILE).is_file():
            return place
    raise UsageError(
        f"{os.fspath(folder)!r} has no project; make one with skal label init SOURCE, "
        "or name its folder with --project."
    )
