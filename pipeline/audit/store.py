"""The audit of a whole store: random rows computed again, their labels checked, and a verdict."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gradshard.pipeline.attacks.end_direction import AttackSpec, end_directions
from gradshard.pipeline.attacks.registry import ATTACKS
from gradshard.pipeline.audit.recompute import (
    RowAudit,
    Rows,
    Thresholds,
    attack_limits,
    audit_rows,
    compare,
    compare_ends,
    labels_match,
    limits,
)
from gradshard.pipeline.audit.rounding import second_look
from gradshard.pipeline.gradients.microbatches import rows_at_once
from gradshard.pipeline.gradients.row_noise import row_classes
from gradshard.pipeline.gradients.signs import GradientSpec
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.models.tensors import device_of
from gradshard.pipeline.types import OWN_LOSS, Gradient, LabelPolicy, StoreLabel
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.labelled_rows import LabelledRows
from gradshard.storage.formats.manifest import Manifest
from gradshard.storage.formats.sign_reader import SignStore

Advance = Callable[[int], None]

# Labels that are checked for each row whose signs are compared: a check takes only a forward pass, and finds true
# labels where predicted ones are promised, which differ in few rows.
_LABELS_PER_ROW = 50
_LABELS_AT_ONCE = 1000


@dataclass(frozen=True)
class StoreAudit:
    """Findings of an audit.

    ``sample`` holds the random rows. ``critical`` holds rows, among those with a checked label, whose stored label is
    not the true one: signs made for true labels differ there and nowhere else.
    """

    sample: RowAudit
    critical: RowAudit
    labels_checked: int
    labels_wrong: Rows
    limits: Thresholds
    where: str = "the store"

    @property
    def bad(self) -> Rows:
        """The rows whose signs no honest computation gives."""
        return np.union1d(self.sample.bad(self.limits), self.critical.bad(self.limits))

    @property
    def honest(self) -> bool:
        """True if no fault was found."""
        gain, agreement = float(self.sample.gain.mean()), float(self.sample.agreement.mean())
        means = gain >= self.limits.mean_gain and agreement >= self.limits.mean_agreement
        means &= gain - agreement >= self.limits.mean_surplus
        return means and not len(self.bad) and not len(self.labels_wrong)

    @property
    def verdict(self) -> str:
        """The finding, in one sentence."""
        if self.honest:
            return f"{self.where} is honest as far as these rows show"
        return f"{self.where} is not what it says: its signs or labels are not those of this model"

    def __str__(self) -> str:
        """Return the verdict and the numbers that it rests on."""
        sample = self.sample
        masked = f"; {sample.zero_rows} of these rows have no sign and attack nobody" if sample.zero_rows else ""
        return (
            f"{self.verdict}\n"
            f"{len(sample.rows)} random rows and {len(self.critical.rows)} critical ones computed again: "
            f"{sample.agreement.mean():.4%} of the signs agree, mean gain {sample.gain.mean():.6f}, "
            f"{len(self.bad)} bad rows; {self.labels_checked} labels checked, {len(self.labels_wrong)} wrong{masked}"
        )


@dataclass(frozen=True)
class AuditPlan:
    """Rows to check.

    ``sample``, ``critical`` and ``labelled`` are row numbers, int64. Of all rows, ``stored`` and ``true`` are the
    labels, and ``copies`` are the copies to check.
    """

    sample: Rows
    critical: Rows
    labelled: Rows
    stored: Rows
    true: Rows
    copies: Rows

    @property
    def rows(self) -> int:
        """The number of rows to check, a row counted once for each check."""
        return len(self.sample) + len(self.critical) + len(self.labelled)


def plan_audit(store: SignStore, split: LabelledRows, *, count: int, seed: int) -> AuditPlan:
    """Choose ``count`` random rows of a store, or all if it has fewer; the same seed chooses the same rows.

    Raises:
        GradshardError: the store was made for other rows than those of the split, or its labels are damaged.
    """
    store.check_made_for(split)
    order = np.random.default_rng(seed).permutation(len(store))
    labelled = np.sort(order[: count * _LABELS_PER_ROW])
    stored, true = store.load_labels(), split.read_labels()
    return AuditPlan(
        sample=np.sort(order[:count]),
        critical=labelled[stored[labelled] != true[labelled]][:count],
        labelled=labelled,
        stored=stored,
        true=true,
        copies=np.random.default_rng((seed, 1)).integers(store.manifest.copies, size=len(store)),
    )


def audit_store(
    plan: AuditPlan, store: SignStore, split: LabelledRows, model: nn.Module, *, advance: Advance = lambda rows: None
) -> StoreAudit:
    """Compute the planned rows of a store again and compare.

    Args:
        plan: the rows.
        store: open, of the rows of ``split``.
        split: the rows that the store was made from.
        model: the static model that the store was made from, in eval mode, on the device to compute on.
        advance: called with the number of further ``plan.rows`` that are done.

    Raises:
        GradshardError: a shard is missing or damaged.
    """
    spec = spec_of(store.manifest, where=store.where)
    audit = _Audit(plan, store, split, model, spec, device_of(model), advance)
    with precision_context("fp32", audit.device):
        return StoreAudit(
            labels_wrong=plan.labelled[~audit.right_labels()],
            sample=audit.compare(plan.sample),
            critical=audit.compare(plan.critical),
            labels_checked=len(plan.labelled),
            limits=_limits(spec, store.manifest),
            where=store.where,
        )


def _limits(spec: GradientSpec | AttackSpec, manifest: Manifest) -> Thresholds:
    direction = manifest.direction
    if isinstance(spec, AttackSpec):
        return attack_limits(spec, direction.gradient, direction.dtype)
    return limits(direction.gradient, direction.dtype)


def spec_of(manifest: Manifest, *, where: str) -> GradientSpec | AttackSpec:
    """Return the gradient, or the attack, that a manifest promises.

    Raises:
        GradshardError: this version does not know the gradient or the attack.
    """
    if manifest.direction.attack is not None:
        return _attack_of(manifest, where=where)
    for gradient in get_args(Gradient):
        for label in get_args(LabelPolicy):
            if (gradient, label) == (manifest.direction.gradient, manifest.direction.label):
                return GradientSpec(gradient, label, "fp32" if manifest.direction.dtype == "float32" else "bf16")
    raise GradshardError(
        f"{where} holds the gradient {manifest.direction.gradient} for the label {manifest.direction.label}, which "
        "this gradshard cannot compute: use the one that made it"
    )


def _attack_of(manifest: Manifest, *, where: str) -> AttackSpec:
    direction = manifest.direction
    attack = direction.attack
    assert attack is not None
    known = attack.name in ATTACKS or ":" in attack.name
    gradient = "exact" if direction.gradient == OWN_LOSS else direction.gradient
    if not known or gradient not in get_args(Gradient) or direction.label not in get_args(StoreLabel):
        raise GradshardError(
            f"{where} holds {attack.name} of the gradient {direction.gradient} for the label {direction.label}, which "
            "this gradshard cannot compute: use the one that made it"
        )
    return AttackSpec(
        attack=attack.name,
        gradient=cast(Gradient, gradient),
        policy=cast(StoreLabel, direction.label),
        epsilon=attack.epsilon or 1.0,
        alpha=attack.alpha or 0.0,
        steps=attack.steps or 1,
        arguments=attack.arguments,
        threshold=attack.threshold or 0.0,
        seed=attack.seed,
        copies=attack.copies,
        precision="fp32" if direction.dtype == "float32" else "bf16",
        where=where,
    )


@dataclass(frozen=True)
class _Audit:
    plan: AuditPlan
    store: SignStore
    split: LabelledRows
    model: nn.Module
    spec: GradientSpec | AttackSpec
    device: torch.device
    advance: Advance

    def right_labels(self) -> npt.NDArray[np.bool_]:
        """Return for each labelled row if its stored label is what the policy gives, bool (n,)."""
        plan, right = self.plan, []
        for start in range(0, len(plan.labelled), _LABELS_AT_ONCE):
            rows = plan.labelled[start : start + _LABELS_AT_ONCE]
            true, stored = self._to_device(plan.true[rows]), self._to_device(self._labels(rows))
            right.append(self._labels_match(rows, true, stored).cpu().numpy() & self._classes(rows))
            self.advance(len(rows))
        return np.concatenate(right)

    def compare(self, rows: Rows) -> RowAudit:
        """Compare the stored signs of some rows with those computed again."""
        if not len(rows):
            return RowAudit(rows=rows, gain=np.zeros(0), agreement=np.zeros(0))
        copies = [
            (self.store.of_copy(int(copy)), int(row)) for row, copy in zip(rows, self.plan.copies[rows], strict=True)
        ]
        planes = np.concatenate([store.read(row, row + 1) for store, row in copies])
        signs = bitplanes.unpack(planes, self.store.manifest.dataset.pixels)
        if isinstance(self.spec, AttackSpec):
            return self._compare_attack(rows, self._to_device(signs), self.spec)
        labels = self._to_device(self._labels(rows))
        audit = audit_rows(
            self.model, self._images(rows), labels, self._to_device(signs), gradient=self.spec.gradient, rows=rows
        )
        self.advance(len(rows))
        return audit.without(~self._classes(rows))

    def _compare_attack(self, rows: Rows, signs: torch.Tensor, attack: AttackSpec) -> RowAudit:
        """Compare stored signs with those of the attack, crafted again in full precision."""
        attack = replace(attack, precision="fp32")

        def craft(model: nn.Module, some: Rows) -> RowAudit:
            at = torch.from_numpy(np.searchsorted(rows, some))
            return self._craft(model, some, signs[at], attack)

        audit = craft(self.model, rows)
        if not attack.one_step:
            audit = second_look(audit, self.model, _limits(self.spec, self.store.manifest), craft)
        self.advance(len(rows))
        return audit.without(~self._classes(rows))

    def _craft(self, model: nn.Module, rows: Rows, signs: torch.Tensor, attack: AttackSpec) -> RowAudit:
        gain, agreement, zero_rows = np.zeros(len(rows)), np.zeros(len(rows)), 0
        at_once = rows_at_once(self.split.sample_shape, self.device, self.model)
        for copy in range(attack.copies):
            mine = rows[self.plan.copies[rows] == copy]
            for batch in attack.batches(mine, at_once=at_once, total=len(self.split)):
                at, asked = np.searchsorted(rows, np.intersect1d(batch, mine)), np.flatnonzero(np.isin(batch, mine))
                labels = self._to_device(self._labels(batch))
                found = end_directions(model, self._images(batch), labels, attack, rows=batch, copy=copy)
                found, stored = found[torch.from_numpy(asked)].flatten(1), signs[torch.from_numpy(at)]
                both = compare(found, stored) if attack.one_step else compare_ends(found, stored, attack)
                gain[at], agreement[at] = (values.cpu().numpy() for values in both)
                zero_rows += int((found == 0).all(1).sum())
        return RowAudit(rows=rows, gain=gain, agreement=agreement, zero_rows=zero_rows)

    def _labels_match(self, rows: Rows, true: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
        if self.spec.policy == "random":
            assert isinstance(self.spec, AttackSpec)
            classes = self.store.manifest.dataset.classes
            return stored == row_classes(true, rows, seed=self.spec.seed, classes=classes)
        return labels_match(self.model, self._images(rows), true, stored, self.spec.policy)

    def _classes(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return for each row if its stored label is a class at all, bool (n,)."""
        stored = self.plan.stored[rows]
        is_class: npt.NDArray[np.bool_] = (stored >= 0) & (stored < self.split.classes)
        return is_class

    def _labels(self, rows: Rows) -> Rows:
        """Return the stored labels to compute with, and 0 for those that are no class and so have no logit."""
        return np.where(self._classes(rows), self.plan.stored[rows], 0)

    def _images(self, rows: Rows) -> torch.Tensor:
        return self._to_device(self.split.take_images(rows))

    def _to_device(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)
