"""What the paper finds is checked on figures alone: its own hold, others do not, and chance is told from both."""

import dataclasses

import pytest

from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.report.claims import check_claims
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.seeds import Seeds

# The paper's figures at 6 epochs (tables 1, 2 and 4), per 10,000.
ERRORS = {
    ("A", "A", "fgsm"): 7140,
    ("A", "A", "rand_fgsm"): 7530,
    ("A_adv", "A_adv", "fgsm"): 360,
    ("A_adv", "A_adv", "rand_fgsm"): 3410,
    ("A_adv", "B", "fgsm"): 1820,
    ("A_adv", "B", "ifgsm"): 1980,
    ("A_adv", "B", "rand_fgsm"): 1240,
    ("A_ens", "B", "fgsm"): 500,
    ("A_ens", "B", "ifgsm"): 970,
    ("A_ens", "B", "rand_fgsm"): 340,
    ("A_adv", "B2", "fgsm"): 1700,
    ("A_ens", "B2", "fgsm"): 480,
}


def probe(transferred, less):
    return GradientProbe(
        n=10_000,
        classes=10,
        errors={"fgsm": 360, "fgsm_less_alpha": less},
        curve={0.0: 100},
        transferred={0.0: 100, **transferred},
        zero_gradients=0,
        violations=0,
    )


PROBES = {"A_adv": probe({0.1: 400, 0.3: 1820}, 200), "A_ens": probe({0.1: 150, 0.3: 500}, 200)}


def found(*by_seed, probes=PROBES, baseline="A_adv", ensemble="A_ens"):
    rows = [
        {"target": t, "source": s, "attack": a, "gradient": "exact", "errors": e, "n": 10_000, "top": 1, "seed": seed}
        for seed, errors in enumerate(by_seed or [ERRORS])
        for (t, s, a), e in errors.items()
    ]
    seeds = Seeds(range(len(by_seed) or 1))
    probes = {name: dict.fromkeys(seeds.of, its) for name, its in probes.items()}
    names = {"undefended": ["A"], "baseline": baseline, "ensemble": ensemble, "holdout": "B", "others": ["B2"]}
    return check_claims(ErrorMatrix(rows, "exact", seeds), probes, **names, epsilon=0.3)


def test_the_papers_findings_hold_on_the_papers_figures():
    assert [(finding.holds, finding.clear) for finding in found()] == [(True, True)] * 6
    assert found()[0].figures == "3.6 % against 18.2 %"
    assert found()[1].figures == "A 71.4 % against 75.3 %; A_adv 3.6 % against 34.1 %"
    assert found()[3].figures == (
        "FGSM 5.0 % against 18.2 %; I-FGSM 9.7 % against 19.8 %; RAND+FGSM 3.4 % against 12.4 %"
    )
    assert found()[4].figures == "ε = 0.1 1.5 % against 4.0 %"
    assert found()[5].figures == "B2 4.8 % against 17.0 %"


def test_a_finding_that_does_not_hold_says_so():
    reversed_roles = found(baseline="A_ens", ensemble="A_adv")
    assert [finding.verdict for finding in reversed_roles if "errs less" in finding.claim] == ["does not hold"]


OWN = [
    (1600, "holds"),
    (1790, "holds, but intervals overlap"),
    (1850, "not shown: intervals overlap"),
    (2000, "does not hold"),
]


@pytest.mark.parametrize(("own", "verdict"), OWN)
def test_a_difference_within_chance_is_no_clear_finding(own, verdict):
    errors = ERRORS | {("A_adv", "A_adv", "fgsm"): own}
    assert found(errors)[0].verdict == verdict


def test_a_finding_holds_only_if_it_does_with_every_seed():
    def own(errors):
        return ERRORS | {("A_adv", "A_adv", "fgsm"): errors}

    assert found(own(360), own(400))[0].verdict == "holds with each of 2 seeds"
    assert found(own(360), own(400))[0].figures == "3.8 % against 18.2 %"
    assert found(own(360), own(1790))[0].verdict == "holds with each of 2 seeds, but intervals overlap"
    assert found(own(360), own(2500))[0].verdict == "not shown: reversed with some seed"
    assert found(own(2400), own(2500))[0].verdict == "does not hold"


def test_what_was_not_measured_is_no_finding():
    assert found({}, probes={}) == []
    (only,) = found({key: ERRORS[key] for key in (("A", "A", "fgsm"), ("A", "A", "rand_fgsm"))}, probes={})
    assert "RAND+FGSM beats FGSM" in only.claim


def test_no_epsilon_but_smaller_ones_is_compared():
    wide = {name: dataclasses.replace(p, transferred={0.3: 500, 0.5: 9000}) for name, p in PROBES.items()}
    assert not [finding for finding in found(probes=wide) if "smaller" in finding.claim]
