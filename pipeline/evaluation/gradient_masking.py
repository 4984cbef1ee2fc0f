"""Flags that a model hides its gradient rather than resists, raised by measurements alone.

Rates are compared by their 99.9 % Wilson intervals, so that chance raises no flag although there are many comparisons;
docs/diagnostics.md says for each flag what it compares, what it means and what to do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.statistics import ErrorRate

# FGSM and RAND+FGSM differ a little on any model: the random step costs epsilon, but is a fresh start.
RAND_MARGIN = 0.05
ZERO_GRADIENTS = 0.01
_Z999 = 3.290526731491926
# The meaning of each flag, and what to do, for readers who do not have docs/diagnostics.md at hand.
MEANINGS: Mapping[str, str] = {
    "undefined-gradients": "Where a gradient is no number the attack leaves the pixel alone, so those examples were "
    "never attacked. Mend the model (eps inside a root, clamp_min).",
    "black-box-beats-white-box": "Whoever knows a model can do anything that a stranger can, so its own attack has "
    "failed. Take the worst case over all sources as its error.",
    "iterative-weaker-than-single-step": "Looking at the gradient again after each step made the attack weaker, so the "
    "gradient misleads. Attack with more steps, random starts and another loss.",
    "error-falls-with-epsilon": "A larger ball holds the smaller one, so the best attack only grows stronger. Attack "
    "with the best ε up to the one allowed.",
    "correct-at-full-epsilon": "An attack that may replace the image leaves nothing better than guessing, so the "
    "direction of this one is wrong nearly everywhere. Attack with more than one step, and by transfer.",
    "noise-as-strong-as-the-attack": "Random signs do as much as the gradient's, so it holds no information. Trust "
    "transferred examples and attacks by queries alone.",
    "random-start-far-stronger": "The gradient at the image itself misleads: the loss is sharply curved around the "
    "data. Attack from random starts.",
    "zero-gradients": "Where the gradient is 0 in every pixel the attack leaves the image as it is. Look for "
    "saturation, rounding or thresholds inside the model, or take the exact gradient.",
    "out-of-bounds": "Adversarial examples left the ball or [0, 1]: a fault of the attack, and no figure can be used.",
}


@dataclass(frozen=True)
class Flag:
    """A warning about one model; ``name`` is its section in docs/diagnostics.md."""

    name: str
    says: str
    figures: str


def masking_flags(probe: GradientProbe, transferred: Mapping[str, ErrorRate]) -> list[Flag]:
    """Return every warning that the measurements of one model give.

    Args:
        probe: its white-box measurements.
        transferred: its error under FGSM crafted by other models, by their names.
    """
    return [
        *_undefined_gradients(probe),
        *_black_box(probe, transferred),
        *_iterative(probe),
        *_sweep(probe),
        *_noise(probe),
        *_random_start(probe),
        *_zero_gradients(probe),
        *_violations(probe),
    ]


def _black_box(probe: GradientProbe, transferred: Mapping[str, ErrorRate]) -> Iterator[Flag]:
    own = probe.rate("fgsm")
    for source, rate in transferred.items():
        if _above(rate, own):
            yield Flag(
                "black-box-beats-white-box",
                f"FGSM examples of {source} fool it more than its own do",
                f"{_percent(rate)} against {_percent(own)}",
            )


def _iterative(probe: GradientProbe) -> Iterator[Flag]:
    one, many = probe.rate("fgsm"), probe.rate("ifgsm")
    if _above(one, many):
        yield Flag(
            "iterative-weaker-than-single-step",
            "I-FGSM, white box, is weaker than FGSM of the same ε",
            f"{_percent(many)} against {_percent(one)}",
        )


def _sweep(probe: GradientProbe) -> Iterator[Flag]:
    guessing = _guessing(probe).rate
    curve = sorted((epsilon, ErrorRate(errors, probe.n)) for epsilon, errors in probe.curve.items())
    for index, (epsilon, rate) in enumerate(curve):
        if _high(rate) >= guessing:
            # The ball of any larger epsilon holds these examples too, so a larger step that overshoots proves nothing.
            return
        worse = [(smaller, before) for smaller, before in curve[:index] if _above(before, rate)]
        if worse:
            smaller, before = worse[-1]
            yield Flag(
                "error-falls-with-epsilon",
                "a larger ε fools it less",
                f"{_percent(before)} at ε = {smaller:g}, {_percent(rate)} at ε = {epsilon:g}",
            )
            break
    highest = max((rate for _, rate in curve), key=lambda rate: rate.rate)
    if curve[-1][0] >= 1 and _high(highest) < guessing:
        yield Flag(
            "correct-at-full-epsilon",
            "FGSM with no ε up to 1, where it may replace the whole image, brings it down to guessing",
            f"at most {_percent(highest)}, guessing {_percent(_guessing(probe))}",
        )


def _noise(probe: GradientProbe) -> Iterator[Flag]:
    noise, own, clean = probe.rate("noise"), probe.rate("fgsm"), ErrorRate(probe.curve[0.0], probe.n)
    # A model that only guesses cannot be fooled further, and with few images every difference is within chance.
    if _high(own) < _guessing(probe).rate and noise.rate >= own.rate and _above(noise, clean):
        yield Flag(
            "noise-as-strong-as-the-attack",
            "random signs of the same ε fool it as much as FGSM does",
            f"{_percent(noise)} against {_percent(own)}",
        )


def _random_start(probe: GradientProbe) -> Iterator[Flag]:
    randomised, own = probe.rate("rand_fgsm"), probe.rate("fgsm")
    if _above(randomised, own) and randomised.rate > own.rate + RAND_MARGIN:
        yield Flag(
            "random-start-far-stronger",
            "RAND+FGSM, whose gradient is taken a small random step away, fools it far more than FGSM",
            f"{_percent(randomised)} against {_percent(own)}",
        )


def _zero_gradients(probe: GradientProbe) -> Iterator[Flag]:
    if probe.zero_gradients > ZERO_GRADIENTS * probe.n:
        yield Flag(
            "zero-gradients",
            "for some examples the gradient is 0 in every pixel, so the attack does nothing",
            f"{probe.zero_gradients} of {probe.n}",
        )


def _undefined_gradients(probe: GradientProbe) -> Iterator[Flag]:
    if probe.undefined_gradients:
        yield Flag(
            "undefined-gradients",
            "for some examples the gradient is NaN or infinite, and the attack moves no such pixel",
            f"{probe.undefined_gradients} of {probe.n}",
        )


def _violations(probe: GradientProbe) -> Iterator[Flag]:
    if probe.violations:
        yield Flag(
            "out-of-bounds",
            "adversarial examples lie further than ε from their image, or outside [0, 1]: the attack is wrong",
            f"{probe.violations} examples",
        )


def _guessing(probe: GradientProbe) -> ErrorRate:
    return ErrorRate(round(probe.n * (1 - 1 / probe.classes)), probe.n)


def _above(one: ErrorRate, other: ErrorRate) -> bool:
    """Tell whether one rate is higher beyond chance: the intervals do not overlap."""
    return one.score_interval(_Z999)[0] > _high(other)


def _high(rate: ErrorRate) -> float:
    return rate.score_interval(_Z999)[1]


def _percent(rate: ErrorRate) -> str:
    return f"{100 * rate.rate:.1f} %"
