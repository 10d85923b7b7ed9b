import errno
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from torch.utils.data import TensorDataset

from skal.models import FrozenFeatures
from skal.utils import atomic_write

SEEN = []


class Counting(nn.Module):
    """Notes the size of every batch it sees."""

    def __init__(self, n_inputs=48, n_features=5):
        super().__init__()
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(n_inputs, n_features)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(n_features, 3)

    def forward(self, x):
        SEEN.append(len(x))
        return self.head(self.dropout(self.hidden(self.flatten(x)).relu()))


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Counting()


def images(n=10, size=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, size, size)).astype(np.uint8)


def by_hand(net, X):
    """The input of the head."""
    x = torch.from_numpy(X).float().flatten(1)
    return (x @ net.hidden.weight.T + net.hidden.bias).relu().detach().numpy()


def test_features_are_the_input_of_the_head(net):
    X = images()
    features = FrozenFeatures(net, batch_size=4, device="cpu").transform(X)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, by_hand(net, X), rtol=1e-4, atol=1e-4)
    assert SEEN == [4, 4, 2]


def test_layer_names_the_input_or_the_output(net):
    X = images()
    output = FrozenFeatures(net, layer="output").transform(X)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(X).float())
    np.testing.assert_allclose(output, expected, rtol=1e-5)
    flat = FrozenFeatures(net, layer="hidden").transform(X)
    assert np.array_equal(flat, X.reshape(10, -1))


def test_the_module_and_the_generators_are_left_alone(net):
    net.train()
    net.hidden.weight.grad = torch.ones_like(net.hidden.weight)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    FrozenFeatures(net).fit_transform(images())
    assert all(part.training for part in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert (net.hidden.weight.grad == 1).all()
    assert not net.head._forward_hooks
    assert all(torch.equal(v, before[name]) for name, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_trained_since_gives_other_features(net, tmp_path):
    X, features = images(), FrozenFeatures(net, cache=tmp_path)
    before = features.transform(X)
    with torch.no_grad():
        net.hidden.weight.mul_(2)
        net.hidden.bias.mul_(2)
    np.testing.assert_allclose(features.transform(X), 2 * before, rtol=1e-5)


def test_channels_last_and_preprocess():
    X, net = images(size=5), Counting(75)
    features = FrozenFeatures(net, preprocess=lambda image: image.float() / 255)
    expected = by_hand(net, X / np.float32(255))
    found = features.transform(X.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def write_images(folder, X):
    paths = []
    for row, x in enumerate(X):
        path = folder / f"{'ab'[row % 2]}" / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.transpose(1, 2, 0)).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("index", [[3, 2, 1, 0], [1, 3, 5, 7], list("abcd")])
def test_a_series_is_read_in_its_order(net, index, tmp_path):
    X = images(4)
    expected = FrozenFeatures(net).transform(X)
    rows = pd.Series(list(X), index=index)
    np.testing.assert_array_equal(FrozenFeatures(net).transform(rows), expected)
    names = [str(tmp_path / f"{k}.png") for k in range(4)]
    for name, x in zip(names, X, strict=True):
        Image.fromarray(x.transpose(1, 2, 0)).save(name)
    found = FrozenFeatures(net).transform(pd.Series(names, index=index))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [">f4", "longdouble", "int8", "bool"])
def test_numbers_of_any_layout(net, dtype):
    X = (images(4) // 128).astype(dtype)
    expected = FrozenFeatures(net).transform(X.astype(np.float32))
    np.testing.assert_allclose(FrozenFeatures(net).transform(X), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [list, TensorDataset])
def test_preprocess_that_writes_to_a_row_changes_no_row_of_the_caller(net, kind):
    X = torch.rand(4, 3, 4, 4)
    before = X.clone()
    FrozenFeatures(net, preprocess=lambda x: x.mul_(0)).transform(kind(X))
    assert X.equal(before)


def test_files_folder_dataset_and_array_agree(net, tmp_path):
    X = images()
    paths = write_images(tmp_path, X)
    features = FrozenFeatures(net)
    expected = features.transform(X)
    assert np.array_equal(features.transform(paths), expected)
    names = np.array([str(path) for path in paths])
    assert np.array_equal(features.transform(names), expected)
    order = np.argsort(names)
    assert np.array_equal(features.transform(tmp_path), expected[order])
    dataset = TensorDataset(torch.from_numpy(X), torch.arange(10))
    assert np.array_equal(features.transform(dataset), expected)


def test_it_is_a_transformer_without_state(net):
    features = FrozenFeatures(net, batch_size=3)
    assert not get_tags(features).requires_fit
    copy = clone(features)
    assert copy.backbone is not net and copy.batch_size == 3
    X = images()
    expected = features.transform(X)
    again = pickle.loads(pickle.dumps(features))
    assert np.array_equal(again.transform(X), expected)
    names = [f"frozenfeatures{i}" for i in range(5)]
    assert features.get_feature_names_out().tolist() == names
    frame = features.set_output(transform="pandas").transform(X)
    assert frame.columns.tolist() == names and np.array_equal(frame, expected)


@parametrize_with_checks(
    [FrozenFeatures(nn.Flatten())],
    expected_failed_checks=lambda estimator: {
        "check_dict_unchanged": "how many features there are is known by then only"
    },
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


# -- the cache


def test_a_second_run_makes_no_forward_pass(net, tmp_path):
    X = images(20)
    first = FrozenFeatures(net, cache=tmp_path).transform(X)
    SEEN.clear()
    rows = np.array([19, 3, 3, 0])
    again = clone(FrozenFeatures(net, cache=str(tmp_path))).transform(X[rows])
    assert SEEN == [] and np.array_equal(again, first[rows])
    more = np.concatenate([X, images(2, seed=1)])
    assert np.array_equal(
        FrozenFeatures(net, cache=tmp_path).transform(more)[:20], first
    )
    assert SEEN == [2]


def test_equal_rows_are_computed_once(net, tmp_path):
    X = images(2)[[0, 1, 0, 1, 1]]
    features = FrozenFeatures(net, cache=tmp_path).transform(X)
    assert sum(SEEN) == 2
    np.testing.assert_allclose(features, by_hand(net, X), rtol=1e-4, atol=1e-4)


def test_another_backbone_layer_or_preprocess_has_features_of_its_own(net, tmp_path):
    X = images()
    first = FrozenFeatures(net, cache=tmp_path).transform(X)
    others = [
        FrozenFeatures(Counting(), cache=tmp_path),
        FrozenFeatures(net, layer="output", cache=tmp_path),
        FrozenFeatures(net, preprocess=lambda x: x / 255, cache=tmp_path),
        FrozenFeatures(net, preprocess=lambda x: x / 127, cache=tmp_path),
    ]
    found = [each.transform(X) for each in others]
    assert sum(SEEN) == 50
    assert not np.allclose(found[2], found[3])
    SEEN.clear()
    assert np.array_equal(FrozenFeatures(net, cache=tmp_path).transform(X), first)
    assert all(
        np.array_equal(each.transform(X), f)
        for each, f in zip(others, found, strict=True)
    )
    assert SEEN == []


def test_changed_files_are_refused_or_computed_again(net, tmp_path):
    X = images()
    paths = write_images(tmp_path / "images", X)
    features = FrozenFeatures(net, cache=tmp_path / "cache")
    first = features.transform(paths)
    other = images(1, seed=5)
    Image.fromarray(other[0].transpose(1, 2, 0)).save(paths[3])
    SEEN.clear()
    with pytest.raises(ValueError, match=f": 1 .*{paths[3].name}', have another size"):
        features.transform(paths)
    assert SEEN == []
    assert np.array_equal(
        np.delete(first, 3, 0), features.transform(paths[:3] + paths[4:])
    )
    features.set_params(changed_files="recompute")
    second = features.transform(paths)
    assert SEEN == [1]
    assert np.array_equal(features.transform(paths), second) and SEEN == [1]
    assert np.array_equal(np.delete(second, 3, 0), np.delete(first, 3, 0))
    np.testing.assert_allclose(second[3:4], by_hand(net, other), rtol=1e-4, atol=1e-4)


KILLED = """
import os, signal, sys, time
import torch
sys.path.insert(0, {tests!r})
from test_frozen import Counting, images
from skal.models import FrozenFeatures
torch.manual_seed(0)
def progress(n_done, n_rows):
    if n_done > {n_rows}:
        os.kill(os.getpid(), signal.SIGKILL)
features = FrozenFeatures(Counting(), batch_size=32, cache={cache!r})
features.transform(images(1300), progress=progress)
"""


def start(cache, n_rows):
    code = KILLED.format(
        tests=str(Path(__file__).parent), cache=str(cache), n_rows=n_rows
    )
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.slow
def test_a_kill_loses_at_most_a_chunk(net, tmp_path):
    assert start(tmp_path, 1100).wait() == -signal.SIGKILL
    X = images(1300)
    features = FrozenFeatures(net, batch_size=32, cache=tmp_path)
    found = features.transform(X)
    assert sum(SEEN) == 1300 - 1024
    assert np.array_equal(found, features.set_params(cache=None).transform(X))
    assert not list(tmp_path.rglob(".*.npy.*"))


def check_shared(net, cache):
    X = images(1300)
    features = FrozenFeatures(net, batch_size=32, cache=cache)
    found = features.transform(X)
    n_seen = sum(SEEN)
    assert np.array_equal(found, features.set_params(cache=None).transform(X))
    return n_seen


def test_the_second_at_a_time_waits_for_what_the_first_computes(net, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(check_shared, [net] * 2, [tmp_path] * 2))
    assert sum(SEEN) == 3 * 1300  # twice without the cache, once for it


@pytest.mark.slow
def test_two_processes_share_a_cache(net, tmp_path):
    both = [start(tmp_path, 10_000) for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    assert check_shared(net, tmp_path) == 0


def test_progress_counts_the_rows(net, tmp_path):
    calls, features = [], FrozenFeatures(net, batch_size=4, cache=tmp_path)
    features.transform(images(6), progress=lambda *call: calls.append(call))
    features.transform(images(6), progress=lambda *call: calls.append(call))
    assert calls == [(4, 6), (6, 6)]


@pytest.mark.parametrize("reason", [(errno.ENOSPC, "No space left"), ("1 written",)])
def test_a_full_disk_keeps_what_is_written(net, tmp_path, monkeypatch, reason):
    X, writes = images(1300), []

    def write(path):
        writes.append(path)
        if len(writes) > 1:
            raise OSError(*reason)  # of the system, or of NumPy
        return atomic_write(path)

    monkeypatch.setattr("skal.models._frozen_cache.atomic_write", write)
    features = FrozenFeatures(net, batch_size=32, cache=tmp_path)
    with pytest.raises(OSError, match="No space left.*make room, and the same call"):
        features.transform(X)
    monkeypatch.undo()
    SEEN.clear()
    features.transform(X)
    assert sum(SEEN) == 1300 - 512


def test_a_cache_that_cannot_be_written(net, tmp_path):
    (tmp_path / "file").write_text("")
    for folder, match in (("file", "is a file; name"), ("file/sub", "be written")):
        with pytest.raises(OSError, match=f"cache=.*{match}.*folder that"):
            FrozenFeatures(net, cache=tmp_path / folder).transform(images())


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00nothing", b"\x80\x04N."])
def test_a_damaged_chunk_is_named(net, tmp_path, content):
    features = FrozenFeatures(net, cache=tmp_path)
    features.transform(images())
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name}.*is damaged.*Remove it"):
        features.transform(images())


def test_a_chunk_of_another_backbone_is_refused(net, tmp_path):
    FrozenFeatures(net, cache=tmp_path).transform(images())
    (path,) = tmp_path.rglob("*.npy")
    other = FrozenFeatures(net, layer="output", cache=tmp_path)
    other.transform(images(seed=1))
    (folder,) = {p.parent for p in tmp_path.rglob("*.npy")} - {path.parent}
    path.rename(folder / path.name)
    with pytest.raises(ValueError, match="of another backbone"):
        other.transform(images())


@pytest.mark.parametrize("layer, whose", [("auto", "this"), ("output", "another")])
def test_the_folder_of_one_backbone_is_refused(net, tmp_path, layer, whose):
    FrozenFeatures(net, cache=tmp_path).transform(images())
    (path,) = tmp_path.rglob("*.npy")
    features = FrozenFeatures(net, layer=layer, cache=path.parent)
    with pytest.raises(ValueError, match=f"of {whose} backbone.*folder above it, '"):
        features.transform(images())
    assert [*tmp_path.rglob("*.npy")] == [path]


# -- bad input


def several_sizes():
    return [np.zeros((3, 4, 4), np.uint8), np.zeros((3, 5, 5), np.uint8)]


@pytest.mark.parametrize(
    "X, match",
    [
        (several_sizes(), r"row 1 of X has shape \(3, 5, 5\), row 0 \(3, 4, 4\)"),
        ([np.zeros((3, 4, 4)), np.zeros((1, 4, 4))], "one number of channels"),
        (["a text, no file"], "which is no file: the backbone takes images"),
        ("no folder", "is no folder"),
        (np.array([[None]]), "no array of numbers"),
        (np.zeros((0, 3, 4, 4)), "no rows"),
        (np.full((2, 3, 4, 4), np.nan), "NaN or infinite features of row 0"),
        (np.zeros((2, 3, 5, 5)), r"fails on items of shape \(3, 5, 5\)"),
        (np.array(3.0), "X must have rows, got the one number"),
        (pd.DataFrame({"file": ["no.png"]}), "which is no file"),
    ],
)
def test_bad_rows_are_named(net, tmp_path, X, match):
    with pytest.raises(ValueError, match=match):
        FrozenFeatures(net, cache=tmp_path).transform(X)
    assert not list(tmp_path.rglob("*.npy"))


class Asserting(nn.Module):
    """As a transformer of torchvision does where images are of another size."""

    def forward(self, x):
        raise AssertionError("wrong height")


class Two(nn.Module):
    def forward(self, x):
        return {"x": x}


@pytest.mark.parametrize(
    "params, match",
    [
        ({"backbone": nn.Conv2d(3, 2, 3)}, r"no vector, but shape \(2, 2, 2\)"),
        ({"backbone": nn.Flatten(0)}, "must give one vector a row, and gives"),
        ({"backbone": Two()}, "a dict of 10 rows"),
        ({"backbone": Counting(), "layer": "nothing"}, "^layer='nothing' is not"),
        ({"backbone": Counting(), "device": "nothing"}, "device='nothing' cannot be"),
        ({"backbone": nn.Flatten(), "preprocess": lambda x: 1}, "must give a tensor"),
        (
            {"backbone": nn.Flatten(), "preprocess": lambda x: x @ x[0, :2]},
            "fails on row 0",
        ),
        (
            {"backbone": nn.Flatten(), "preprocess": lambda x: {}["x"]},
            "fails on row 0.*KeyError: 'x'",
        ),
        ({"backbone": Asserting()}, "Asserting fails on.*wrong height"),
        ({"backbone": "resnet18"}, "must be an nn.Module, torchvision:NAME"),
        ({"backbone": "torchvision:resnet19"}, "names no model of .*; did you mean"),
        ({"backbone": nn.Flatten(), "batch_size": 0}, "batch_size"),
    ],
)
def test_bad_parameters_are_named(params, match):
    with pytest.raises(ValueError, match=match):
        FrozenFeatures(**params).transform(images())


# -- by name


def no_network(url, timeout):
    assert timeout < 10
    raise URLError("no network")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder of torchvision's checkpoints, and no network."""

    monkeypatch.setattr("skal.models._pretrained.urlopen", no_network)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def squeezed(hub):
    """Random weights of torchvision's smallest network with a head."""
    from torchvision import models

    torch.manual_seed(0)
    weights = models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    module = models.shufflenet_v2_x0_5()
    torch.save(module.state_dict(), hub / Path(weights.url).name)
    return module, weights


def test_torchvision_by_name(squeezed, tmp_path):
    module, weights = squeezed
    X = images(3, size=16)
    named = FrozenFeatures("torchvision:shufflenet_v2_x0_5", cache=tmp_path / "cache")
    features = named.transform(X)
    module.fc = nn.Identity()
    with torch.no_grad():
        expected = module.eval()(weights.transforms()(torch.from_numpy(X)))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    # Grey images, floats and several sizes are brought to what it takes.
    grey = named.transform(X[:, :1])
    assert np.array_equal(grey, named.transform(np.repeat(X[:, :1], 3, axis=1)))
    assert np.array_equal(named.transform(X[:, 0] / 255), grey)
    assert named.transform([X[0], images(1, size=9)[0]]).shape == (2, 1024)
    for bad in (X.reshape(3, -1), X[:, [0, 0]], X * 1.0, X[:, :, :0] / 255):
        with pytest.raises(ValueError, match="row 0 of X"):
            named.transform(bad)


def test_weights_that_cannot_be_had_name_the_file_and_the_place(hub):
    path = hub / "shufflenetv2_x0.5-f707e7126e.pth"
    features = FrozenFeatures("torchvision:shufflenet_v2_x0_5")
    with pytest.raises(FileNotFoundError, match="fetch https://.*put it at") as error:
        features.transform(images())
    assert str(path) in str(error.value)
    torch.save([1, 2], hub / "others")
    for content in (b"", b"no weights", (hub / "others").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="are damaged.*Remove the file") as error:
            features.transform(images())
        assert str(path) in str(error.value)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_hub_out_of_reach_is_asked_once(library, monkeypatch, tmp_path):
    pytest.importorskip(library)
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def ask(url, timeout):
        asked.append(url)
        no_network(url, timeout)

    monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    name = {"timm": "hf-hub:some/network", "transformers": "some/network"}[library]
    with pytest.raises(FileNotFoundError, match="no network.*co/some/network.*FOLDER"):
        FrozenFeatures(f"{library}:{name}").transform(images())
    assert asked == ["https://huggingface.co/some/network/resolve/main/config.json"]
    # What is on this machine needs no network.
    snapshot = tmp_path / "models--some--network" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="cannot be had"):
        FrozenFeatures(f"{library}:{name}").transform(images())
    assert len(asked) == 1


def test_timm_by_name(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    module = timm.create_model("resnet10t", num_classes=3)
    timm.models.save_for_hf(module, tmp_path / "timm")
    X = images(2, size=40)
    features = FrozenFeatures(f"timm:local-dir:{tmp_path / 'timm'}").transform(X)
    assert features.shape == (2, module.num_features)
    config = timm.data.resolve_model_data_config(module)
    transform = timm.data.create_transform(**config, is_training=False)
    pictures = [Image.fromarray(x.transpose(1, 2, 0)) for x in X]
    with torch.no_grad():
        x = torch.stack([transform(picture) for picture in pictures])
        expected = module.eval().forward_head(module.forward_features(x), True)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="'timm:resnet10tt' names no .*; did you mean"):
        FrozenFeatures("timm:resnet10tt").transform(X)
    with pytest.raises(FileNotFoundError, match="put its config.json and model"):
        FrozenFeatures(f"timm:local-dir:{tmp_path}").transform(X)


def test_images_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 16, "image_size": 32, "patch_size": 8},
    )
    module = transformers.ViTModel(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    module.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    X, name = images(3, size=32), f"transformers:{tmp_path}"
    with torch.no_grad():
        output = module(
            **processor(images=list(torch.from_numpy(X)), return_tensors="pt")
        )
    expected = {
        "auto": output.pooler_output,
        "cls": output.last_hidden_state[:, 0],
        "mean": output.last_hidden_state.mean(1),
    }
    for layer, features in expected.items():
        found = FrozenFeatures(name, layer=layer).transform(X)
        np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)
    # A pooler without stored weights would be random.
    module.pooler = None
    module.save_pretrained(tmp_path)
    found = FrozenFeatures(name).transform(X)
    np.testing.assert_allclose(found, expected["cls"], rtol=1e-4, atol=1e-5)


def test_texts_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "[PAD]": 1, "good": 2, "bad": 3}
    model = tokenizers.models.WordLevel(words, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        **{"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"intermediate_size": 8, "max_position_embeddings": 16, "vocab_size": 4},
    )
    module = transformers.BertModel(config).eval()
    module.save_pretrained(tmp_path)
    texts = ["good", "bad good bad", "good " * 30]
    features = FrozenFeatures(f"transformers:{tmp_path}", cache=tmp_path / "cache")
    found = features.transform(texts)
    for row, ids in enumerate([[2], [3, 2, 3], [2] * 16]):
        with torch.no_grad():
            tokens = module(torch.tensor([ids])).last_hidden_state
        np.testing.assert_allclose(found[row], tokens.mean(1)[0], rtol=1e-4, atol=1e-5)
    assert np.array_equal(features.transform(texts[::-1]), found[::-1])
    for bad in (images(), "good", [1, 2]):
        with pytest.raises(ValueError, match="must be a list of texts"):
            features.transform(bad)
    with pytest.raises(ValueError, match="one of .*'pooler'"):
        features.set_params(layer="hidden").transform(texts)
