"""Flags are raised by the measurements that they name, by nothing else, and never by chance alone."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from gradshard.pipeline.evaluation import gradient_masking
from gradshard.pipeline.evaluation.gradient_masking import masking_flags
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.statistics import ErrorRate

N = 1000
# An undefended model: as measured on model A of the paper, exact gradient.
PLAIN = GradientProbe(
    n=N,
    classes=10,
    errors={"fgsm": 920, "ifgsm": 1000, "rand_fgsm": 880, "noise": 60},
    curve={0.0: 10, 0.1: 200, 0.2: 700, 0.3: 920, 0.5: 930, 1.0: 900},
    transferred={},
    zero_gradients=0,
    violations=0,
)
TRANSFERRED = {"B": ErrorRate(830, N)}


def raised(probe=PLAIN, transferred=TRANSFERRED, **errors):
    changed = dataclasses.replace(probe, errors=probe.errors | errors)
    return [flag.name for flag in masking_flags(changed, transferred)]


def test_an_undefended_model_raises_none():
    assert raised() == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("black-box-beats-white-box", {"transferred": {"B": ErrorRate(300, N)}, "fgsm": 96, "noise": 10}),
        ("iterative-weaker-than-single-step", {"ifgsm": 700}),
        ("noise-as-strong-as-the-attack", {"noise": 720, "fgsm": 700, "rand_fgsm": 700, "transferred": {}}),
        ("random-start-far-stronger", {"rand_fgsm": 990}),
        ("zero-gradients", {"probe": dataclasses.replace(PLAIN, zero_gradients=11)}),
        ("undefined-gradients", {"probe": dataclasses.replace(PLAIN, undefined_gradients=1)}),
        ("out-of-bounds", {"probe": dataclasses.replace(PLAIN, violations=1)}),
        ("error-falls-with-epsilon", {"probe": dataclasses.replace(PLAIN, curve=PLAIN.curve | {0.3: 300})}),
        ("correct-at-full-epsilon", {"probe": dataclasses.replace(PLAIN, curve={0.0: 10, 0.5: 400, 1.0: 570})}),
    ],
)
def test_a_flag_is_raised_by_its_own_measurement_alone(name, change):
    assert raised(**change) == ([name] if name != "black-box-beats-white-box" else [name, "random-start-far-stronger"])


def test_the_paper_s_a_adv_raises_the_masking_flags():
    """White box FGSM 3.6 %, from B 15.5 %, RAND+FGSM 34.1 %, 43 % right at epsilon 1 (tables 2 and 4, section 3.3)."""
    probe = GradientProbe(
        n=10_000,
        classes=10,
        errors={"fgsm": 360, "ifgsm": 9000, "rand_fgsm": 3410, "noise": 150},
        curve={0.0: 100, 0.3: 360, 0.6: 2500, 1.0: 5700},
        transferred={},
        zero_gradients=0,
        violations=0,
    )
    found = [flag.name for flag in masking_flags(probe, {"B": ErrorRate(1550, 10_000)})]
    assert found == ["black-box-beats-white-box", "correct-at-full-epsilon", "random-start-far-stronger"]


@pytest.mark.parametrize("seed", range(20))
def test_chance_alone_raises_none(seed):
    """Every rate of an honest model drawn anew around one value, as a small test set gives them."""
    rng = np.random.default_rng(seed)
    errors = {name: int(rng.binomial(N, 0.6)) for name in ("fgsm", "ifgsm", "rand_fgsm")}
    curve = dict(zip((0.0, 0.2, 0.3, 0.4), rng.binomial(N, [0.02, 0.6, 0.6, 0.6]).tolist(), strict=True))
    probe = GradientProbe(N, 10, errors | {"noise": 50}, curve, {}, 0, 0)
    assert masking_flags(probe, {"B": ErrorRate(int(rng.binomial(N, 0.6)), N)}) == []


@pytest.mark.parametrize(
    ("n", "own", "noise"),
    [
        (50, 34, 30),  # weaker, if not beyond chance
        (50, 45, 45),  # both at guessing
        (1000, 920, 930),
        (1000, 700, 690),
    ],
)
def test_noise_that_is_weaker_or_leaves_no_better_than_guessing_accuses_no_gradient(n, own, noise):
    errors = {"fgsm": own, "ifgsm": n, "rand_fgsm": own, "noise": noise}
    assert masking_flags(GradientProbe(n, 10, errors, {0.0: n // 25, 0.3: own}, {}, 0, 0), {}) == []


def test_every_flag_has_a_section_in_the_docs_and_a_meaning():
    source = Path(gradient_masking.__file__).read_text()
    names = set(re.findall(r'Flag\(\s*"([a-z-]+)"', source))
    page = (Path(__file__).parents[3] / "docs/diagnostics.md").read_text()
    sections = {re.sub(r"[^a-z]+", "-", title.lower()) for title in re.findall(r"^## (.*)$", page, flags=re.MULTILINE)}
    assert len(names) == 9
    assert names <= sections
    assert set(gradient_masking.MEANINGS) == names
