"""Images and models of an examination: read from anybody's files, checked first, opened once per process."""

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradshard.pipeline import models
from gradshard.pipeline.config.training import StaticModel
from gradshard.pipeline.evaluation.examination import EXAMINED_TOGETHER
from gradshard.pipeline.gradients.model_checks import Gradients, Sample, check_frozen
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.malloc import keep_freed_memory
from gradshard.pipeline.types import PRETRAINED, RANDOM, SELF, Output
from gradshard.stages.training.initial_weights import initial_static_model
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.checkpoints import load, tensors_digest
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.digests import digest_of, file_sha256
from gradshard.storage.ingest.npz import opened_archive

_TRIED, _DRAW = 8, 9

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images that a model is examined on; ``pixels`` reads rows, as floats in [0, 1] or as bytes."""

    name: str
    classes: int
    digest: str
    sample_shape: tuple[int, int, int]
    labels: npt.NDArray[np.int64]
    pixels: Any

    def take(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Read rows: images float32 (n, C, H, W) in [0, 1], labels int64 (n,)."""
        found = self.pixels(rows)
        images = torch.from_numpy(found)
        return to_unit_range(images) if found.dtype == np.uint8 else images, torch.from_numpy(self.labels[rows])


@dataclass(frozen=True)
class ExaminedModel:
    """A model by its name, its architecture and its weights.

    ``weights`` is a path, ``pretrained``, or ``random`` if the factory itself fills them in.
    """

    name: str
    architecture: str
    weights: str
    output: Output = "logits"


def open_images(place: Path) -> LabelledImages:
    """Open the test images of a prepared dataset, or x_test and y_test of a NumPy archive.

    In an archive, x_test is float in [0, 1] or uint8, (N, C, H, W) or, with one channel, (N, H, W).

    Raises:
        GradshardError: the images are missing or of another form.
    """
    if place.suffix == ".npz":
        return _archived(place)
    split = open_dataset(place).test
    return LabelledImages(
        split.dataset, split.classes, split.digest, split.sample_shape, split.read_labels(), split.take_images
    )


def chosen_rows(n: int, wanted: int | None, *, seed: int) -> Rows:
    """Choose the rows to examine: all, or ``wanted`` of them at random; sorted, int64."""
    if wanted is None or wanted >= n:
        return np.arange(n)
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _DRAW))))
    return np.sort(draws.permutation(n)[:wanted])


def open_model(model: ExaminedModel, images: LabelledImages, device: torch.device) -> tuple[nn.Module, str]:
    """Build a model with its weights, frozen and in eval mode; return it and its digest.

    Raises:
        GradshardError: the model cannot be built, or its weights do not fit or are not finite.
    """
    keep_freed_memory()
    described = StaticModel(
        architecture=model.architecture, epochs=0, seed=0, weights=model.weights, output=model.output
    )
    module = initial_static_model(described, images).module.to(device).eval().requires_grad_(False)
    return module, tensors_digest(module.state_dict(), model.architecture)


def check_model(model: ExaminedModel, module: nn.Module, images: LabelledImages, device: torch.device) -> Gradients:
    """Check a model on a few images, before any long work.

    Raises:
        GradshardError: the model cannot be attacked; the message says why.
    """
    count = min(_TRIED, len(images.labels))
    tried, labels = images.take(np.linspace(0, len(images.labels) - 1, count).astype(np.int64))
    sample = Sample(tried.to(device), labels.to(device), images.classes)
    return check_frozen(module, sample, where=model.architecture if model.name == SELF else model.name)


def provenance(model: ExaminedModel, digest: str) -> dict[str, str]:
    """Return a model's architecture, the digest of architecture and weights, and the provenance of its code."""
    return {"architecture": model.architecture, "digest": digest, **models.provenance(model.architecture)}


def recorded_model(name: str, file: Path) -> ExaminedModel:
    """Read which model a weights file of gradshard holds.

    Raises:
        GradshardError: it is no such file, or its architecture is user code, which runs only if the user names it.
    """
    _, record = load(file)
    architecture = str(record.get("architecture"))
    if models.runs_user_code(architecture):
        raise GradshardError(
            f"{file} holds a model of {architecture}, whose code runs only if you name it: give {architecture} as the "
            "architecture and the file as its weights"
        )
    output: Output = "probabilities" if record.get("output") == "probabilities" else "logits"
    return ExaminedModel(name, architecture, str(file), output)


def check_weights_named(model: ExaminedModel) -> None:
    """Refuse a model whose weights are not named, unless its own factory may fill them in.

    Raises:
        GradshardError: the weights would be random, or pretrained ones are said to give probabilities.
    """
    if model.weights == PRETRAINED and model.output != "logits":
        raise GradshardError("pretrained models give logits: leave --output out")
    if model.weights == RANDOM and not models.runs_user_code(model.architecture):
        raise GradshardError(
            f"{model.architecture} has no weights: name their file by --weights, or `pretrained` for timm:NAME"
        )


@dataclass(frozen=True)
class Subjects:
    """Places of images and models, which a worker opens for itself, and the digests that they must have."""

    place: Path
    images_digest: str
    models: tuple[ExaminedModel, ...]
    digests: tuple[str, ...]
    device: str

    def open(self) -> tuple[LabelledImages, Mapping[str, nn.Module]]:
        """Open the images and all models, once per process.

        Raises:
            GradshardError: something changed since the run began.
        """
        with _opening:
            return _open_once(self)


_opening = threading.Lock()


@functools.lru_cache(maxsize=1)
def _open_once(subjects: Subjects) -> tuple[LabelledImages, Mapping[str, nn.Module]]:
    if subjects.device == "cpu":
        # Blocks are what runs in parallel: with one thread each, no result depends on the number of threads.
        torch.set_num_threads(1)
    images, device = open_images(subjects.place), torch.device(subjects.device)
    opened = {model.name: open_model(model, images, device) for model in subjects.models}
    digests = tuple(digest for _, digest in opened.values())
    if images.digest != subjects.images_digest or digests != subjects.digests:
        raise GradshardError(f"{subjects.place} or a model changed while it was examined: start again")
    return images, {name: module for name, (module, _) in opened.items()}


def blocks(rows: Rows) -> list[Rows]:
    """Cut rows into the blocks that are examined together."""
    return [rows[start : start + EXAMINED_TOGETHER] for start in range(0, len(rows), EXAMINED_TOGETHER)]


def _archived(file: Path) -> LabelledImages:
    remedy = "name a prepared .zarr dataset or an .npz archive"
    with opened_archive(file, "x_test and y_test", remedy) as archive:
        images, labels = np.asarray(archive["x_test"]), np.asarray(archive["y_test"])
        classes = int(archive["classes"]) if "classes" in archive else 0
    images = _pixels(file, images[:, None] if images.ndim == 3 else images)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),) or labels.min() < 0:
        raise GradshardError(
            f"{file}, y_test is {labels.dtype} of shape {labels.shape}: give the number of each image's class, "
            f"of shape ({len(images)},)"
        )
    return LabelledImages(
        name=file.stem,
        classes=max(classes, int(labels.max()) + 1),
        digest=digest_of({"archive": file_sha256(file)}),
        sample_shape=images.shape[1:],
        labels=labels.astype(np.int64),
        pixels=images.__getitem__,
    )


def _pixels(file: Path, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if images.ndim != 4 or not len(images) or (images.dtype != np.uint8 and images.dtype.kind != "f"):
        raise GradshardError(
            f"{file}, x_test is {images.dtype} of shape {images.shape}: give images (N, C, H, W), "
            "uint8 or float in [0, 1]"
        )
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise GradshardError(
            f"{file}, x_test runs from {low:.4g} to {high:.4g} and not from 0 to 1: give pixels, and normalise inside "
            "the model, so that epsilon keeps its unit"
        )
    return images.astype(np.float32)
