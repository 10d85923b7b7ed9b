"""Pretrained networks of torchvision, timm and transformers, by name."""

import difflib
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from urllib.request import urlopen

import torch

# Seconds for a first answer: clients of the Hub try for some 45, torch as long as
# the system does.
_TIMEOUT = 5
_WEIGHTS = [
    name + ending
    for name in ("model.safetensors", "pytorch_model.bin")
    for ending in ("", ".index.json")
]


def load_pretrained(name, layer):
    """Load a network with its weights.

    Parameters
    ----------
    name : str
        "torchvision:NAME", "timm:NAME" or "transformers:NAME".
    layer : str
        As for `FrozenFeatures`.

    Returns
    -------
    parts : dict
        Arguments of `Backbone`.

    Raises
    ------
    FileNotFoundError
        Where the weights cannot be had.
    """
    library, _, model = name.partition(":")
    loaders = {
        "torchvision": _of_torchvision,
        "timm": _of_timm,
        "transformers": _of_transformers,
    }
    if library not in loaders or not model:
        raise ValueError(
            f"backbone={name!r} must be an nn.Module, torchvision:NAME, timm:NAME or "
            "transformers:NAME."
        )
    try:
        parts = loaders[library](model, layer)
    except ImportError as error:
        raise ImportError(
            f"backbone={name!r} needs another package ({error}): pip install "
            f"'skal[{library}]'."
        ) from error
    return {"about": name, **parts}


def _of_torchvision(model, layer):
    from torchvision import models

    _check_known(model, models.list_models(module=models), "torchvision")
    weights = models.get_model_weights(model).DEFAULT
    file = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(weights.url))
    try:
        if not file.exists():
            urlopen(weights.url, timeout=_TIMEOUT).close()
        module = models.get_model(model, weights=weights)
    except OSError as error:
        raise FileNotFoundError(
            f"the weights of torchvision:{model} cannot be downloaded ({error}); fetch "
            f"{weights.url} where there is a network, and put it at {str(file)!r}."
        ) from error
    except (EOFError, RuntimeError, TypeError, UnpicklingError) as error:
        raise ValueError(
            f"the weights of torchvision:{model} in {str(file)!r} are damaged or of "
            f"another network ({_first_line(error)}). Remove the file, or replace it "
            f"by {weights.url}."
        ) from error
    prepare = weights.transforms()
    return {"module": module, "takes": "images", "prepare": prepare, "layer": layer}


def _of_timm(model, layer):
    import timm
    from timm.data import create_transform, resolve_model_data_config

    where = (
        "put its config.json and model.safetensors into a folder, FOLDER, and take "
        "timm:local-dir:FOLDER"
    )
    library, _, source = model.rpartition(":")
    if library != "local-dir":
        if not library:
            _check_known(model, timm.list_models() + timm.list_pretrained(), "timm")
            source = timm.get_pretrained_cfg(model).hf_hub_id
        where = f"from https://huggingface.co/{source or f'timm/{model}'}, {where}"
    with _weights(f"timm:{model}", where):
        if library != "local-dir" and source:
            _reach(source)
        module = timm.create_model(model, pretrained=True, num_classes=0)
    prepare = _OnPictures(
        create_transform(**resolve_model_data_config(module), is_training=False)
    )
    layer = "output" if layer == "auto" else layer
    return {"module": module, "takes": "images", "prepare": prepare, "layer": layer}


class _OnPictures:
    """A transform for Pillow's images, called with tensors."""

    def __init__(self, transform):
        self.transform = transform

    def __repr__(self):
        return repr(self.transform)

    def __call__(self, image):
        from torchvision.transforms.functional import to_pil_image

        return self.transform(to_pil_image(image))


_POOLS = ("auto", "pooler", "cls", "mean")


def _of_transformers(model, layer):
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    if layer not in _POOLS:
        raise ValueError(
            f"layer={layer!r} of transformers:{model} must be one of {_POOLS}."
        )
    name = os.path.expanduser(model)
    where = (
        "fetch its config.json, model.safetensors and the files of its processor or "
        f"tokenizer from https://huggingface.co/{model} where there is a network, put "
        "them into a folder, FOLDER, and take transformers:FOLDER"
    )
    with _weights(f"transformers:{model}", where):
        if not os.path.isdir(name):
            if os.path.isabs(name) or name.startswith("."):
                raise FileNotFoundError(f"there is no folder {name!r}")
            _reach(name)
        config = AutoConfig.from_pretrained(name)
        module, report = AutoModel.from_pretrained(
            name, config=config, output_loading_info=True
        )
        if hasattr(module, "get_image_features"):
            module = _ImageHalf(module)
        images = module.main_input_name == "pixel_values"
        read = (AutoImageProcessor if images else AutoTokenizer).from_pretrained(name)
    lacking = [key for key in report["missing_keys"] if "pooler" not in key]
    if lacking:
        raise ValueError(
            f"transformers:{model} has no weights for {lacking[0]!r} and "
            f"{len(lacking) - 1} more: they would be random."
        )
    trained_pooler = not report["missing_keys"]
    parts = {"module": module, "prepare": None, "layer": layer}
    if not images:
        limit = min(
            read.model_max_length, getattr(config, "max_position_embeddings", 512)
        )

        def collate(texts):
            options = {"padding": True, "truncation": True, "max_length": limit}
            return dict(read(texts, return_tensors="pt", **options))

        parts |= {"takes": "texts", "collate": collate}
        parts["about"] = f"transformers:{model} {limit} {_text_of(read)}"
    else:

        def collate(images):
            arrays = [image.permute(1, 2, 0).numpy() for image in images]
            form = {"input_data_format": "channels_last", "return_tensors": "pt"}
            return {"pixel_values": read(images=arrays, **form)["pixel_values"]}

        parts |= {"takes": "images", "collate": collate}
        parts["about"] = f"transformers:{model} {read.to_json_string()}"
    parts["pool"] = _Pool(layer, images, trained_pooler, module)
    return parts


def _text_of(tokenizer):
    """Describe what decides the ids of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else repr(tokenizer)


class _ImageHalf(torch.nn.Module):
    """A model of images and texts, called with images only."""

    main_input_name = "pixel_values"

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model.get_image_features(pixel_values=pixel_values)


class _Pool:
    """Make one vector of what a network of transformers gives for a row."""

    def __init__(self, layer, images, trained_pooler, module):
        if layer == "auto":
            first = any(
                key.endswith("cls_token") for key, _ in module.named_parameters()
            )
            layer = "cls" if first and images else "mean"
            layer = "pooler" if images and trained_pooler else layer
        self.layer = layer

    def __call__(self, output, arguments):
        if isinstance(output, torch.Tensor):
            return output
        pooled = getattr(output, "pooler_output", None)
        if self.layer == "pooler" and pooled is not None:
            return pooled
        tokens = output.last_hidden_state
        if tokens.ndim != 3:  # places of a convolution
            return tokens.flatten(2).mean(2)
        if self.layer == "cls":
            return tokens[:, 0]
        mask = arguments.get("attention_mask")
        if mask is None:
            return tokens.mean(1)
        mask = mask.unsqueeze(2).to(tokens.dtype)
        return (tokens * mask).sum(1) / mask.sum(1).clamp(min=1)


@contextmanager
def _weights(name, where):
    """Say where weights are to be put that cannot be had."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # each library, and each of its own, raises another one
        raise FileNotFoundError(
            f"the weights of {name} cannot be had ({_first_line(error)}); {where}."
        ) from error


def _reach(source):
    """Ask the Hub once for weights that are not on this machine."""
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = source.partition("@")
    which = {"revision": revision or None}
    kept = (try_to_load_from_cache(repository, file, **which) for file in _WEIGHTS)
    if not any(isinstance(path, str) for path in kept):
        with suppress(EntryNotFoundError):
            url = hf_hub_url(repository, "config.json", **which)
            get_hf_file_metadata(url, timeout=_TIMEOUT)


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_known(model, known, library):
    if model not in known:
        near = difflib.get_close_matches(model, known, n=3)
        hint = "see its documentation."
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        raise ValueError(
            f"backbone='{library}:{model}' names no model of {library}; {hint}"
        )
