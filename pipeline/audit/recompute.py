"""A check that a sign store is what it says: some rows are computed again from the model and compared.

Two machines, or two precisions, disagree only on signs whose gradient is almost zero, while signs that were made in any
other way are wrong where the gradient is large. So a row is judged by its *gain*: the first-order gain in loss of an
attack with the stored signs, as a share of that with the right ones, <g, s> / ||g||_1. The plain share of equal signs,
the agreement, is reported beside it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.end_direction import AttackSpec, to_signs
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.types import Gradient, LabelPolicy

Rows = npt.NDArray[np.int64]

# Two classes whose logits differ by less than this share of the largest one may swap ranks on another machine.
TIE = 0.02


@dataclass(frozen=True)
class Thresholds:
    """Limits that an honest store reaches: the gain and agreement of every row, and the means of both.

    ``mean_surplus`` is the mean gain minus the mean agreement: signs that rounding decides add little to the gain, so
    the surplus is below 0 only if other signs are wrong too.
    """

    gain: float
    agreement: float
    mean_gain: float
    mean_agreement: float = 0.0
    mean_surplus: float = -math.inf


def limits(gradient: str, dtype: str) -> Thresholds:
    """Return the limits for a store's gradient and arithmetic.

    Exact signs in fp32 are almost equal on every machine; in bf16 the worst of 10,000 rows of model D had a gain of
    0.83. Cross-entropy's signs depend on the rounding of the machine, for some rows entirely, so only their mean is
    judged. docs/sharing.md has the measurements.
    """
    if gradient != "exact":
        return Thresholds(gain=-math.inf, agreement=0.0, mean_gain=0.8)
    if dtype == "float32":
        return Thresholds(gain=0.95, agreement=0.9, mean_gain=0.99)
    return Thresholds(gain=0.75, agreement=0.7, mean_gain=0.99)


_ENDS = Thresholds(gain=0.8, agreement=0.8, mean_gain=0.98, mean_agreement=0.98)
_ENDS_BF16 = Thresholds(gain=-math.inf, agreement=0.0, mean_gain=0.72, mean_agreement=0.7, mean_surplus=-0.01)
_ENDS_ROUNDED = Thresholds(gain=-math.inf, agreement=0.0, mean_gain=0.8, mean_agreement=0.8)


def attack_limits(attack: AttackSpec, gradient: str, dtype: str) -> Thresholds:
    """Return the limits for a store of an attack.

    An attack of one step follows one gradient, whose limits hold. The end of many steps depends on the rounding of
    each: in bf16 some rows end elsewhere, mostly with few steps and towards a target. So of bf16 stores, and of those
    that climb another loss than the exact one, only the means are judged. docs/transfer-defence.md has the
    measurements.
    """
    if attack.one_step:
        return limits(gradient, dtype)
    if gradient != "exact":
        return _ENDS_ROUNDED
    return _ENDS if dtype == "float32" else _ENDS_BF16


@dataclass(frozen=True)
class RowAudit:
    """Rows compared with their recomputation, all arrays (n,): ``gain`` and ``agreement`` are 1 for equal rows.

    ``zero_rows`` counts the rows whose gradient, computed again, is 0 in every pixel: they are honest, but useless.
    """

    rows: Rows
    gain: npt.NDArray[np.float64]
    agreement: npt.NDArray[np.float64]
    zero_rows: int = 0

    def bad(self, least: Thresholds) -> Rows:
        """Return the rows that no honest computation gives."""
        bad: Rows = self.rows[(self.gain < least.gain) | (self.agreement < least.agreement)]
        return bad

    def best(self, other: "RowAudit", *, at: npt.NDArray[np.intp]) -> "RowAudit":
        """Return the same, but with the better of both findings for the rows at some places, (m,), of this audit."""
        gain, agreement = self.gain.copy(), self.agreement.copy()
        better = other.agreement > agreement[at]
        gain[at[better]], agreement[at[better]] = other.gain[better], other.agreement[better]
        return replace(self, gain=gain, agreement=agreement)

    def without(self, undefined: npt.NDArray[np.bool_]) -> "RowAudit":
        """Return the same, but with no sign counted as right in rows for which no gradient is defined."""
        gain, agreement = np.where(undefined, 0, self.gain), np.where(undefined, 0, self.agreement)
        return replace(self, gain=gain, agreement=agreement)


def audit_rows(
    model: nn.Module, images: Tensor, labels: Tensor, signs: Tensor, *, gradient: Gradient, rows: Rows
) -> RowAudit:
    """Compare stored signs with the gradient, computed again, for the stored labels.

    Args:
        model: the static model, in eval mode.
        images: uint8 (n, C, H, W), on the model's device.
        labels: the stored labels, int64 (n,), on the model's device.
        signs: the stored signs, int8 (n, C·H·W), on the model's device.
        gradient: which gradient the store promises.
        rows: the row numbers, (n,).
    """

    def compare_rows(part: slice) -> tuple[Tensor, Tensor, int]:
        grad, _ = input_gradient(model, to_unit_range(images[part]), labels[part], gradient=gradient, policy="true")
        return *compare(grad.flatten(1), signs[part]), int((grad.flatten(1) == 0).all(1).sum())

    found = in_microbatches(compare_rows, images, model)
    return RowAudit(
        rows=rows,
        gain=_numpy([gain for gain, _, _ in found]),
        agreement=_numpy([agreement for _, agreement, _ in found]),
        zero_rows=sum(zero for _, _, zero in found),
    )


def compare(grad: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Return gain and agreement of signs, int8 (n, P), with gradients, float (n, P); float64 (n,), 1 for equal rows.

    If a row's gradient is NaN or infinite, no sign is right, and both are 0.
    """
    defined, grad = grad.isfinite().all(1), grad.double()
    total = grad.abs().sum(1)
    gain = (grad * signs).sum(1) / total
    agreement = (grad.sign() == signs).double().mean(1)
    return torch.where(total > 0, gain, agreement).where(defined, 0), agreement.where(defined, 0)


def compare_ends(ends: Tensor, signs: Tensor, attack: AttackSpec) -> tuple[Tensor, Tensor]:
    """Return gain and agreement of signs, int8 (n, P), with an attack's ends; float64 (n,), 1 for equal rows.

    The gain is how far the signs go along the directions, as a share of how far the right ones go.
    """
    right, ends = to_signs(ends, attack), ends.flatten(1).double()
    total = (ends * right).sum(1)
    agreement = (right == signs).double().mean(1)
    return torch.where(total > 0, (ends * signs).sum(1) / total, agreement), agreement


def labels_match(model: nn.Module, images: Tensor, true: Tensor, stored: Tensor, policy: LabelPolicy) -> Tensor:
    """Tell whether each stored label is what the policy gives, bool (n,); near ties count as right.

    Args:
        model: the static model, in eval mode.
        images: uint8 (n, C, H, W), on the model's device.
        true: the dataset's labels, int64 (n,).
        stored: the store's labels, int64 (n,).
        policy: the policy that the store promises.
    """
    if policy == "true":
        return stored == true

    def match(part: slice) -> Tensor:
        with torch.no_grad():
            logits = model(to_unit_range(images[part])).float()
        best = logits.amin(1) if policy == "least_likely" else logits.amax(1)
        distance = (logits.gather(1, stored[part].unsqueeze(1)).squeeze(1) - best).abs()
        near: Tensor = distance <= TIE * logits.abs().amax(1)
        return near

    return torch.cat(in_microbatches(match, images, model))


def detection_probability(rows: int, sampled: int, bad: int) -> float:
    """Return the probability that at least one of ``bad`` bad rows out of ``rows`` is among ``sampled`` drawn without
    replacement: 1 - C(rows - bad, sampled) / C(rows, sampled).
    """
    if bad + sampled > rows:
        return 1.0
    missed = _log_choose(rows - bad, sampled) - _log_choose(rows, sampled)
    return -math.expm1(missed)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _numpy(parts: list[Tensor]) -> npt.NDArray[np.float64]:
    if not parts:
        return np.zeros(0)
    joined: npt.NDArray[np.float64] = torch.cat(parts).cpu().numpy()
    return joined
