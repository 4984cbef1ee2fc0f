"""Fidelity of a store to its attack: errors of targets under the attack itself, and under its stored signs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.end_direction import AttackSpec, crafted, end_directions, to_signs
from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.gradients.microbatches import rows_at_once
from gradshard.pipeline.gradients.random_step import RandomStep, random_step, step_along
from gradshard.pipeline.gradients.signs import GradientSpec, to_unit_range
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.models.tensors import device_of
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.labelled_rows import LabelledRows
from gradshard.storage.formats.sign_reader import SignStore

Rows = npt.NDArray[np.int64]
Errors = dict[str, int]

CLEAN, ATTACK, STORE = "clean", "attack", "store"


@dataclass(frozen=True)
class Fidelity:
    """Numbers of examples that targets get wrong, by method and target, out of ``rows`` at an epsilon.

    The methods are ``clean``, ``attack`` (crafted live in full precision), ``store`` (the stored signs), and
    ``threshold T`` (the signs that the store would have with another threshold for 0).
    """

    epsilon: float
    rows: int
    errors: Mapping[str, Errors]


@dataclass(frozen=True)
class Batch:
    """Rows of a store with their images, true and stored labels, and signs, on the model's device."""

    rows: Rows
    images: Tensor
    true: Tensor
    labels: Tensor
    signs: Tensor


def measure(
    store: SignStore,
    split: LabelledRows,
    source: nn.Module,
    spec: GradientSpec | AttackSpec,
    targets: Mapping[str, nn.Module],
    *,
    rows: Rows,
    epsilons: Sequence[float],
    thresholds: Sequence[float] = (),
    advance: Callable[[int], None] = lambda rows: None,
) -> list[Fidelity]:
    """Count the errors of targets at some rows of a store, for each epsilon.

    Args:
        store: open, of the rows of ``split``.
        split: the rows that the store was made from.
        source: the model that the store was made from, in eval mode.
        spec: the store's gradient or attack, as ``audit.store.spec_of`` returns it.
        targets: the models to be fooled, in eval mode, on the same device.
        rows: ascending row numbers.
        epsilons: the epsilons at which the attack is crafted live, and the signs are used.
        thresholds: other thresholds for 0 to try, on ends crafted at the store's own epsilon.
        advance: called with the number of further rows done at an epsilon.

    Raises:
        GradshardError: a shard is missing or damaged, a stored label is no class, or an attack fails.
    """
    device = device_of(source)
    batches = [_read(store, split, part, device) for part in _batches(spec, rows, split, source, device)]
    found = []
    for epsilon in epsilons:
        errors: dict[str, Errors] = {}
        for batch in batches:
            asked = torch.from_numpy(np.isin(batch.rows, rows))
            with precision_context("fp32", device):
                tried = _examples(source, batch, spec, epsilon, random_step(store), store.copy)
                tried |= {
                    f"threshold {share:g}": _with_threshold(source, batch, spec, share, epsilon, store.copy)
                    for share in thresholds
                    if isinstance(spec, AttackSpec) and not spec.one_step
                }
                for method, examples in tried.items():
                    counts = errors.setdefault(method, dict.fromkeys(targets, 0))
                    for name, target in targets.items():
                        counts[name] += _wrong(target, examples[asked], batch.true[asked])
            advance(int(asked.sum()))
        found.append(Fidelity(epsilon, len(rows), errors))
    return found


def _batches(
    spec: GradientSpec | AttackSpec, rows: Rows, split: LabelledRows, source: nn.Module, device: torch.device
) -> list[Rows]:
    cutter = spec if isinstance(spec, AttackSpec) else AttackSpec("fgsm", spec.gradient, spec.policy)
    at_once = rows_at_once(split.sample_shape, device, source)
    return list(cutter.batches(rows, at_once=at_once, total=len(split)))


def _read(store: SignStore, split: LabelledRows, rows: Rows, device: torch.device) -> Batch:
    planes = np.concatenate([store.read(int(row), int(row) + 1) for row in rows])
    images = torch.from_numpy(split.take_images(rows)).to(device)
    signs = torch.from_numpy(bitplanes.unpack(planes, store.manifest.dataset.pixels)).to(device)
    return Batch(
        rows=rows,
        images=images,
        true=torch.from_numpy(split.read_labels()[rows]).to(device),
        labels=torch.from_numpy(store.load_classes(split)[rows]).to(device),
        signs=store.manifest.direction.step * signs.view_as(images),
    )


def _examples(
    source: nn.Module,
    batch: Batch,
    spec: GradientSpec | AttackSpec,
    epsilon: float,
    step: RandomStep | None,
    copy: int,
) -> dict[str, Tensor]:
    pixels = to_unit_range(batch.images)
    if isinstance(spec, AttackSpec):
        live = replace(spec, epsilon=epsilon, precision="fp32")
        attacked = crafted(source, pixels, batch.labels, live, rows=batch.rows, copy=copy)
    else:
        targeted = spec.policy == "least_likely"
        attacked = fgsm(source, pixels, batch.labels, epsilon=epsilon, gradient=spec.gradient, targeted=targeted)
    stored = step_along(pixels, batch.signs, epsilon, step=step, rows=batch.rows)
    return {CLEAN: pixels, ATTACK: attacked, STORE: stored}


def _with_threshold(
    source: nn.Module, batch: Batch, spec: AttackSpec, threshold: float, epsilon: float, copy: int
) -> Tensor:
    """Return the examples of signs with another threshold, computed again from the attack itself."""
    ends = end_directions(source, batch.images, batch.labels, spec, rows=batch.rows, copy=copy)
    signs = to_signs(ends, replace(spec, threshold=threshold)).view_as(batch.images)
    return step_along(to_unit_range(batch.images), signs, epsilon)


def _wrong(target: nn.Module, examples: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return int((target(examples).argmax(1) != labels).sum())
