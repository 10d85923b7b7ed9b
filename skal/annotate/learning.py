"""What learns from the labels: rows of numbers, and an estimator for them."""

import zipfile
from collections import namedtuple

import numpy as np
from scipy.stats import binomtest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    StandardScaler,
)
from sklearn.utils import Bunch

from skal.annotate.images import thumbnails
from skal.datasets import DamagedImageError
from skal.experiment.config import RunConfig
from skal.experiment.networks import build_estimator
from skal.experiment.options import UsageError
from skal.experiment.strategies import named_strategy
from skal.loop import ActiveLearningLoop
from skal.utils.files import atomic_write

N_COMPONENTS = 100
Estimate = namedtuple("Estimate", "accuracy low high n_labels")


def reader(source, settings, cache):
    """Make the transformer without state that reads what the models see.

    Parameters
    ----------
    source : ImageSource or RowSource
    settings : Settings
    cache : Path
        Folder for the features of a backbone.

    Returns
    -------
    reader : transformer or None
        Of what `source.raw` gives; None where that is taken as it is.
    """
    if settings.backbone:
        from skal.models import FrozenFeatures

        return FrozenFeatures(settings.backbone, cache=cache, changed_files="recompute")
    return FunctionTransformer(thumbnails) if source.kind == "images" else None


def read_images(reader, paths, contents, folder):
    """Read what the models see of images, those left out that cannot be read.

    Parameters
    ----------
    reader : transformer
        As `reader` makes it.
    paths, contents : list of str
        Of the images.
    folder : Path
        Keeps thumbnails; a backbone has a cache of its own.

    Returns
    -------
    X : ndarray of shape (n_images - n_faults, ...)
    faults : dict of int to str
        Reasons by position.
    """
    faults = {}
    if isinstance(reader, FunctionTransformer):
        X = _kept_thumbnails(paths, contents, folder / "thumbnails.npz", faults)
        return np.delete(X, [*faults], axis=0), faults
    try:
        return reader.transform(paths), faults
    except DamagedImageError:
        thumbnails(paths, faults=faults)
        if not faults:
            raise
    return reader.transform([p for k, p in enumerate(paths) if k not in faults]), faults


def _kept_thumbnails(paths, contents, file, faults):
    """Read images as small squares, those that were read before from a file."""
    known, new_faults = {}, {}
    try:
        with open(file, "rb") as stored, np.load(stored, allow_pickle=False) as arrays:
            images = arrays["images"]
            known = dict(zip(arrays["contents"].tolist(), images, strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent or damaged: read all
    new = [place for place, content in enumerate(contents) if content not in known]
    images = thumbnails([paths[place] for place in new], faults=new_faults)
    faults |= {new[k]: why for k, why in new_faults.items()}
    known |= {contents[place]: image for place, image in zip(new, images, strict=True)}
    if len(new) > len(faults):
        kept = [c for k, c in enumerate(contents) if k not in faults]
        with atomic_write(file) as stored:
            images = np.stack([known[content] for content in kept])
            np.savez(stored, contents=np.array(kept, dtype=str), images=images)
    squares = [known[content] for content in contents]
    return np.stack(squares) if squares else images


def build_features(source, settings, n_rows):
    """Make the transformer to rows of numbers, which is fitted on all items.

    Parameters
    ----------
    source : ImageSource or RowSource
    settings : Settings
    n_rows : int

    Returns
    -------
    features : transformer or None
        None where the model takes what the reader gives.
    """
    if settings.model in ("cnn", "resnet"):
        return None
    if settings.backbone:
        return StandardScaler()
    if source.kind == "images":
        n_components = min(N_COMPONENTS, n_rows)
        return make_pipeline(
            FunctionTransformer(_flat), PCA(n_components, random_state=settings.seed)
        )
    if source.kind == "texts":
        return make_pipeline(
            # Hashed words: no vocabulary that may be empty or small.
            HashingVectorizer(
                n_features=2**17,
                ngram_range=(1, 2),
                token_pattern=r"\w+",
                alternate_sign=False,
                norm=None,
            ),
            TfidfTransformer(sublinear_tf=True),
            TruncatedSVD(min(N_COMPONENTS, n_rows), random_state=settings.seed),
            Normalizer(),
        )
    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    categories = make_pipeline(
        FunctionTransformer(_texts),
        OneHotEncoder(
            max_categories=50, handle_unknown="infrequent_if_exist", sparse_output=False
        ),
    )
    return ColumnTransformer(
        [
            ("numbers", numbers, make_column_selector(dtype_include="number")),
            ("texts", categories, make_column_selector(dtype_exclude="number")),
        ]
    )


def _texts(frame):
    """Write cells of any kind, lists too, as texts; what is missing as one of them."""
    return frame.astype(object).where(frame.notna(), None).map(str)


def _flat(images):
    return images.reshape(len(images), -1).astype(np.float32) / 255


def build_model(settings, X, n_classes):
    """Make the classifier.

    Parameters
    ----------
    settings : Settings
    X : array of shape (n_rows, ...)
    n_classes : int

    Returns
    -------
    estimator : classifier
    """
    if settings.model == "linear":
        return LogisticRegression(C=10.0, max_iter=2000)
    image = X.ndim == 4
    axes = (0, 2, 3) if image else 0
    data = Bunch(
        X_train=X,
        classes=range(n_classes),
        image_shape=X.shape[1:] if image else None,
        mean=X.mean(axis=axes),
        std=X.std(axis=axes),
        augmentation=None,
    )
    config = RunConfig(model=settings.model, seed=settings.seed)
    return build_estimator(config.resolve(), data)


def build_loop(settings, X, classes, n_items):
    """Make what trains the classifier and chooses the next items.

    Parameters
    ----------
    settings : Settings
    X : array of shape (n_rows, ...)
    classes : sequence of str
    n_items : int

    Returns
    -------
    loop : ActiveLearningLoop
    """
    return ActiveLearningLoop(
        build_model(settings, X, len(classes)),
        named_strategy(settings.strategy),
        batch_size=n_items,
        oracle="ask",
        missing_label=None,
        classes=classes,
        random_state=settings.seed,
    )


def try_out(source, settings):
    """Raise where a backbone cannot be had, or a strategy does not fit the model.

    Better now than when a person has labelled the first batch.

    Parameters
    ----------
    source : ImageSource or RowSource
    settings : Settings
    """
    rng = np.random.default_rng(0)
    try:
        option = f"--backbone {settings.backbone}"
        if settings.backbone:
            image = rng.integers(256, size=(1, 64, 64, 3), dtype=np.uint8)
            rows = image if source.kind == "images" else ["a text"]
            reader(source, settings, None).transform(rows)
        option = f"--strategy {settings.strategy} with --model {settings.model}"
        shape = (3, 32, 32) if settings.model in ("cnn", "resnet") else (4,)
        X = rng.integers(256, size=(16, *shape)).astype(np.float32)
        y = np.array(["a", "b", None, None] * 4, dtype=object)
        build_loop(settings, X, ["a", "b"], 2).fit(X, y)
    except (ImportError, OSError, ValueError) as error:
        text = f"{option}: {error}"
        if str(error).startswith("backbone="):
            text = str(error).replace("backbone=", "--backbone ", 1)
        raise UsageError(text) from error


def estimate_accuracy(settings, X, y, level=0.95):
    """Cross-validate the model on what is labelled.

    The strategy chose what is labelled, mostly what is hard, and the models are trained
    on fewer labels: the estimate is rather too low for the items as they come.

    Parameters
    ----------
    settings : Settings
    X : array of shape (n_rows, ...)
        Labelled rows.
    y : array of str of shape (n_rows,)
    level : float, default=0.95
        Of the interval.

    Returns
    -------
    estimate : Estimate or None
        accuracy, low, high (Wilson's interval) and n_labels; None where fewer than two
        classes have two labels each. Classes with one label are left out.
    """
    names, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    if (counts > 1).sum() < 2:
        return None
    kept = counts[codes] > 1
    _, codes = np.unique(codes[kept], return_inverse=True)
    folds = StratifiedKFold(
        min(5, counts[counts > 1].min()), shuffle=True, random_state=settings.seed
    )
    X = np.asarray(X)[kept]
    model = build_model(settings, X, len(names))
    found = cross_val_predict(model, X, codes, cv=folds)
    right = binomtest(int((found == codes).sum()), len(codes))
    interval = right.proportion_ci(level, method="wilson")
    return Estimate(
        right.statistic, float(interval.low), float(interval.high), len(codes)
    )
