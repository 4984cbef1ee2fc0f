"""Measurements of one model's own gradient: counts, which ``probing`` takes and ``gradient_masking`` judges."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gradshard.pipeline.evaluation.statistics import ErrorRate

_CURVES = ("curve", "transferred")


@dataclass(frozen=True)
class GradientProbe:
    """Counts measured on ``n`` test examples, so that the probes of several blocks add up.

    ``errors`` are those under ``fgsm``, ``ifgsm``, ``rand_fgsm``, ``noise`` (random signs of the same epsilon) and
    ``fgsm_less_alpha`` (FGSM of epsilon - alpha, the second step of RAND+FGSM on its own: section 4).
    ``curve`` holds those under FGSM for every epsilon of the sweep, 0 among them, ``transferred`` those under the
    holdout model's FGSM. ``zero_gradients`` counts rows whose gradient is 0 in every pixel, ``undefined_gradients``
    those where it is NaN or infinite in some, ``violations`` examples that left the ball or the range of pixels.
    """

    n: int
    classes: int
    errors: dict[str, int]
    curve: dict[float, int]
    transferred: dict[float, int]
    zero_gradients: int
    violations: int
    undefined_gradients: int = 0

    def rate(self, name: str) -> ErrorRate:
        """Return the error rate under one of ``errors``."""
        return ErrorRate(self.errors[name], self.n)

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON: curves as pairs, as keys cannot be numbers; undefined gradients, if any."""
        fields = asdict(self) | {name: sorted(getattr(self, name).items()) for name in _CURVES}
        return {name: value for name, value in fields.items() if name != "undefined_gradients" or value}

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> "GradientProbe":
        """Restore a probe from a record, whose other keys are ignored."""
        fields: dict[str, Any] = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return cls(**fields | {name: dict(fields[name]) for name in _CURVES})

    def __add__(self, other: "GradientProbe") -> "GradientProbe":
        return GradientProbe(
            n=self.n + other.n,
            classes=self.classes,
            errors={name: count + other.errors[name] for name, count in self.errors.items()},
            curve={epsilon: count + other.curve[epsilon] for epsilon, count in self.curve.items()},
            transferred={epsilon: count + other.transferred[epsilon] for epsilon, count in self.transferred.items()},
            zero_gradients=self.zero_gradients + other.zero_gradients,
            violations=self.violations + other.violations,
            undefined_gradients=self.undefined_gradients + other.undefined_gradients,
        )
