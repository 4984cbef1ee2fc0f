"""The manifest's record of a store's directions, the same wherever the store is made."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from gradshard.pipeline.attacks import custom
from gradshard.pipeline.attacks.crafting import check_attacks
from gradshard.pipeline.attacks.end_direction import AttackSpec
from gradshard.pipeline.attacks.stored_rows import Direction
from gradshard.pipeline.gradients.loss import step_sign
from gradshard.pipeline.gradients.signs import DTYPES, GradientSpec, agreement_with_float64
from gradshard.pipeline.types import OWN_LOSS
from gradshard.storage.formats.dataset import Images, Labels
from gradshard.storage.formats.manifest import AgreementRecord, AttackRecord, DirectionRecord, Manifest
from gradshard.storage.formats.shard_reader import Rows

_AGREEMENT_ROWS = 256
# An attack that hardly crosses half of the ball leaves a store of almost no signs.
_FEW_SIGNS = 0.8


def check_direction(direction: Direction, *, classes: int) -> None:
    """Refuse an attack that cannot run here, before any long work begins.

    Raises:
        GradshardError: the attack's package is missing, or the attack needs more classes or takes other arguments.
    """
    if isinstance(direction, AttackSpec):
        check_attacks([direction.attack], classes=classes, attacks={direction.attack: direction.entry})


def measure_agreement(
    model: nn.Module,
    direction: Direction,
    rows: int,
    read: Callable[[Rows], tuple[Images, Labels]],
    device: torch.device,
) -> AgreementRecord | None:
    """Measure how often a precision below fp32 gives the signs of float64, on rows spread over the dataset.

    Args:
        model: in eval mode, on ``device``.
        direction: the direction whose signs are stored; nothing is measured in fp32, or for an attack.
        rows: the number of rows of the dataset.
        read: returns the images, uint8 (n, C, H, W), and the labels, int64 (n,), of rows by their numbers.
        device: the device to compute on.
    """
    if not isinstance(direction, GradientSpec) or direction.precision == "fp32":
        return None
    chosen = np.linspace(0, rows - 1, min(_AGREEMENT_ROWS, rows)).astype(np.int64)
    images, labels = (torch.from_numpy(part).to(device) for part in read(chosen))
    share = agreement_with_float64(model, images, labels, direction)
    return AgreementRecord(rows=len(chosen), share=round(share, 6))


def short_steps(published: Manifest) -> str | None:
    """Return a sentence of warning if an attack moved few pixels far enough for a sign; none if it did, or is none."""
    attack = published.direction.attack
    if attack is None or published.zero_fraction <= _FEW_SIGNS:
        return None
    return (
        f"{attack.name} moved {published.zero_fraction:.0%} of the pixels less than half as far as epsilon allows, and "
        "these have no sign: give it more steps, or larger ones by its arguments"
    )


def direction_record(direction: Direction, *, agreement: AgreementRecord | None = None) -> DirectionRecord:
    """Return the record of the directions whose signs a store holds.

    ``agreement`` is the agreement of a gradient's signs with float64.

    Raises:
        GradshardError: the attack is from elsewhere, and cannot be imported.
    """
    dtype = DTYPES[direction.precision]
    if isinstance(direction, AttackSpec):
        return DirectionRecord(
            gradient=OWN_LOSS if direction.entry.own_loss else direction.gradient,
            label=direction.policy,
            mode="eval",
            dtype=dtype,
            step=1,
            attack=_attack_record(direction),
        )
    return DirectionRecord(
        gradient=direction.gradient,
        label=direction.policy,
        mode="eval",
        dtype=dtype,
        step=step_sign(direction.policy),
        agreement=agreement,
    )


def _attack_record(attack: AttackSpec) -> AttackRecord:
    name, takes = attack.attack, attack.entry.takes.values()
    return AttackRecord(
        name=name,
        epsilon=None if name == "fgsm" else attack.epsilon,
        alpha=attack.alpha if "alpha" in takes else None,
        steps=None if {"steps", "pgd_steps"}.isdisjoint(takes) else attack.steps,
        arguments=cast(Any, dict(attack.arguments)),
        code=custom.provenance(name=attack.where, call=name) if ":" in name else None,
        threshold=None if attack.one_step else attack.threshold,
        seed=attack.seed,
        copies=attack.copies,
    )
