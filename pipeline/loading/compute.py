"""The making, from Python, of a sign store of any model over any dataset, as ``gradshard precompute`` makes it.

The dataset is read twice: once for its digest, which identifies a store before it is computed, and once for the
gradients, when every row must have the same hash as before.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gradshard.pipeline.attacks.stored_direction import (
    check_direction,
    direction_record,
    measure_agreement,
    short_steps,
)
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.loading.guard import remember
from gradshard.pipeline.loading.logits import Logits, Output, check_eval, check_model, count_classes, frozen, normalised
from gradshard.pipeline.loading.making import (
    Computer,
    Making,
    check_classes,
    check_unchanged,
    computing,
    make,
    read_probe,
)
from gradshard.pipeline.loading.places import CACHE, check_target
from gradshard.pipeline.loading.request import direction_asked_for
from gradshard.pipeline.loading.row_hashes import OnRows, RowHashes, hash_rows, hash_sample, sample_rows
from gradshard.pipeline.loading.rows import Rows, Transform, as_rows
from gradshard.pipeline.models.precision import settings_kept
from gradshard.pipeline.models.tensors import check_plain, device_of
from gradshard.pipeline.types import Gradient, StoreLabel, StorePrecision
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.bitplanes import Labels, Planes
from gradshard.storage.formats.checkpoints import tensors_digest
from gradshard.storage.formats.dataset import Images
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.formats.manifest import DatasetRecord, ModelRecord, check_word
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.formats.sign_writer import spec_for

_PROBED_ROWS = 8
# The longest name that a manifest takes.
_LONGEST = 100


@settings_kept()
def compute_signs(
    model: nn.Module,
    dataset: Any,
    target: str | Path,
    *,
    name: str = "dataset",
    split: str = "train",
    model_name: str | None = None,
    architecture: str | None = None,
    weights: str | Path | None = None,
    transform: Transform | None = None,
    columns: tuple[str, str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    output: Output | None = None,
    gradient: Gradient | None = None,
    label: StoreLabel = "predicted",
    precision: StorePrecision = "fp32",
    attack: str | None = None,
    epsilon: float | None = None,
    alpha: float | None = None,
    steps: int | None = None,
    arguments: Mapping[str, object] | None = None,
    copies: int = 1,
    seed: int = 0,
    licence: str | None = None,
    zero_rows: float = 0.5,
    workers: int = 0,
    threads: int | None = None,
    on_rows: OnRows | None = None,
) -> SignStore:
    """Make the sign store of a model over a dataset, and open it.

    Killed and called again, it computes only the shards that are missing; the bytes are those of an undisturbed run.
    A store of the same model over the same rows that is already at ``target`` is opened; anything else there is an
    error.

    Args:
        model: in eval mode; maps images (N, C, H, W) to logits (N, classes), or to an object that has them as
            ``.logits``.
        dataset: a map-style dataset of pairs (image, label), one split of a Hugging Face dataset, or arrays (images,
            labels). Images are PIL images, or uint8 or floats in [0, 1], (C, H, W).
        target: the folder of the store.
        name: the dataset's name, in the store's manifest.
        split: the name of this part of the dataset.
        model_name: the model's name; by default the target's.
        architecture: the name of the model's architecture; by default its class.
        weights: the file of the model's weights, whose SHA-256 the manifest records; by default it records the model's
            digest instead.
        transform: the dataset's own transform of an image, without randomness.
        columns: the columns of image and label, if rows are mappings.
        mean: subtracted from each channel before the model; it becomes part of the gradient.
        std: what each channel is then divided by.
        output: a function that maps the model's output to logits.
        gradient: the gradient whose sign is stored, or that the attack climbs: ``exact``, the default, or
            ``cross_entropy``; None for an attack that has its own loss.
        label: which label the gradient or attack is for; ``least_likely`` and ``random`` are an attack's target.
        precision: the precision of the forward passes.
        attack: the attack whose end directions are stored instead of the gradient: a name in ``ATTACKS``,
            ``torchattacks:NAME`` and the like, or ``package.module:function``.
        epsilon: the attack's, if it takes one, in units of pixels in [0, 1].
        alpha: the random step of RAND+FGSM.
        steps: the attack's number of steps, if it takes one.
        arguments: keyword arguments of an attack from elsewhere.
        copies: the number of draws of the attack, at most 15.
        seed: the seed of these draws.
        licence: an SPDX identifier.
        zero_rows: the largest share of images whose signs may be 0 in every pixel, so that they attack nobody.
        workers: how many processes read the dataset; 0: only this one.
        threads: how many pieces are computed at once on a CPU; by default as many as torch has threads.
        on_rows: called with the numbers of rows done and of all rows, as rows are computed.

    Raises:
        GradshardError: no store can be made of the model or the dataset, or at the target, or there is no such attack.
    """
    direction = direction_asked_for(
        gradient=gradient,
        label=label,
        precision=precision,
        attack=attack,
        epsilon=epsilon,
        alpha=alpha,
        steps=steps,
        arguments=arguments,
        copies=copies,
        seed=seed,
    )
    check_target(target)
    target = Path(target)
    called, kind = model_name or target.stem, architecture or _kind(model)
    # Before the dataset is read, which may take hours.
    _check_numbers(workers, threads, zero_rows)
    _check_names(weights, name=name, split=split, model_name=called, architecture=kind, licence=licence)
    check_eval(model)
    rows = as_rows(dataset, transform, columns)
    check_plain(model, where="the model")
    sample = hash_sample(rows, sample_rows(len(rows)))
    image, _ = rows.read(0)
    whole = normalised(model, mean, std, channels=image.shape[0])
    logits = Logits(whole, output).eval()
    device = device_of(logits)
    with frozen(model):
        classes = _count_classes(logits, rows, device)
        check_direction(direction, classes=classes)
        agreement = measure_agreement(logits, direction, len(rows), partial(_read_classes, rows, classes), device)
        with computing(logits, direction, device, threads, image.shape) as computer:
            hashes, probe = _read_twice(rows, classes, computer, image.shape, workers)
            spec = spec_for(
                DatasetRecord(
                    name=name,
                    split=split,
                    digest=hashes.digest(classes),
                    rows=len(rows),
                    sample_shape=hashes.sample_shape,
                    classes=classes,
                ),
                _model_record(whole, called, kind, weights),
                direction_record(direction, agreement=agreement),
                licence=licence,
            )
            store = make(Making(rows, hashes, spec, computer, probe, zero_rows, workers, on_rows), target)
    if (warning := short_steps(store.manifest)) is not None:
        logging.getLogger("gradshard").warning("%s: %s", target, warning)
    _remember(rows, spec.dataset, hashes, sample, target)
    return store


def _check_numbers(workers: int, threads: int | None, zero_rows: float) -> None:
    if workers < 0:
        raise GradshardError(f"compute_signs: workers is {workers}, but must be 0 or more")
    if threads is not None and threads < 1:
        raise GradshardError(f"compute_signs: threads is {threads}, but must be 1 or more, or None")
    if not 0 <= zero_rows <= 1:
        raise GradshardError(f"compute_signs: zero_rows is {zero_rows:g}, but must be a share from 0 to 1")


def _check_names(weights: str | Path | None, **words: str | None) -> None:
    """Refuse names that a manifest cannot hold, and weights that are no file."""
    for what, word in words.items():
        if word is not None:
            check_word(word, what=what)
    if weights is not None and not Path(weights).is_file():
        raise GradshardError(f"weights {weights} is no file: name the one that the model's weights lay in, or none")


def _count_classes(logits: Logits, rows: Rows, device: torch.device) -> int:
    """Count the classes on a few images, spread over the rows, and check the model on them."""
    images, _ = rows.read_many(np.linspace(0, len(rows) - 1, min(_PROBED_ROWS, len(rows))).astype(int).tolist())
    probed = to_unit_range(torch.from_numpy(images).to(device))
    classes = count_classes(logits, probed)
    check_model(logits, probed, classes)
    return classes


def _read_classes(rows: Rows, classes: int, numbers: npt.NDArray[np.int64]) -> tuple[Images, Labels]:
    """Read some rows, whose labels must be classes of the model."""
    images, labels = rows.read_many(numbers.tolist())
    check_classes(numbers.tolist(), labels, classes)
    return images, labels


def _read_twice(
    rows: Rows, classes: int, computer: Computer, shape: tuple[int, ...], workers: int
) -> tuple[RowHashes, Planes]:
    """Hash all rows while the first piece is computed, and check that its rows did not change meanwhile."""
    piece, images, labels = read_probe(rows, computer, shape)
    check_classes(range(len(labels)), labels, classes)
    probing = computer.begin(piece, images, labels)
    if workers or not computer.ahead:
        # No process may be forked while another thread computes.
        wait([probing])
    hashes = hash_rows(rows, workers=workers)
    check_unchanged(hashes, piece.rows, images, labels)
    return hashes, probing.result()[0]


def _remember(rows: Rows, dataset: DatasetRecord, hashes: RowHashes, sample: list[bytes], target: Path) -> None:
    """Keep the hashes, so that ``SignedDataset`` need not read the whole dataset again."""
    try:
        remember(rows, dataset, hashes, sample, CACHE)
    except OSError as error:
        logging.getLogger("gradshard").warning(
            "%s is made, but the hashes of the dataset's rows cannot be kept in %s (%s): SignedDataset will read the "
            "whole dataset once more",
            target,
            CACHE,
            error.strerror or error,
        )


def _kind(model: nn.Module) -> str:
    """Return the full name of a model's class, shortened to what a manifest takes."""
    kind = f"{type(model).__module__}.{type(model).__qualname__}".replace("<locals>", "locals")
    return kind[-_LONGEST:].lstrip(".")


def _model_record(whole: nn.Module, name: str, architecture: str, weights: str | Path | None) -> ModelRecord:
    """Return the model's record, whose digest covers a normalisation by ``mean`` and ``std``."""
    tensors = {key: value for key, value in whole.state_dict().items() if isinstance(value, torch.Tensor)}
    digest = tensors_digest(tensors, architecture)
    file = digest if weights is None else file_sha256(Path(weights))
    return ModelRecord(name=name, architecture=architecture, digest=digest, weights_sha256=file)
