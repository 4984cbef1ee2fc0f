"""What the paper finds is checked on figures alone: its own hold, others do not, and chance is told from both."""

import dataclasses

import pytest

from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.pipeline.report.paper.claim_checks import check_over_images, check_over_seeds
from gradshard.pipeline.report.paper.claims import make_claims
from tests.helpers.error_matrices import examples_of, matrix_rows, wrong_images

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


def made(matrix, probes, baseline="A_adv", ensemble="A_ens"):
    probes = {name: dict.fromkeys(matrix.seeds.of, its) for name, its in probes.items()}
    names = {"undefended": ["A"], "baseline": baseline, "ensemble": ensemble, "holdout": "B", "others": ["B2"]}
    return make_claims(matrix, probes, **names, epsilon=0.3)


def found(errors=ERRORS, *, probes=PROBES, **roles):
    """Claims checked on one seed."""
    rows = [
        {"target": t, "source": s, "attack": a, "gradient": "exact", "errors": e, "n": 10_000, "top": 1, "seed": 10}
        for (t, s, a), e in errors.items()
    ]
    return check_over_images(made(ErrorMatrix(rows, "exact", Seeds((10,))), probes, **roles))


def over_seeds(errors=ERRORS, *, spread=0.01, probes=PROBES, known=True):
    """Claims checked on five seeds, whose rates spread by so much around the errors."""
    seeds = range(10, 15)
    moves = {"A": [0] * 5, "A_adv": [-spread, 0, spread, spread, -spread], "A_ens": [spread, -spread, 0, 0, 0]}
    wrong = {
        key: wrong_images([count / 10_000 + move for move in moves[key[0]]], noise)
        for noise, (key, count) in enumerate(errors.items())
    }
    wrong |= {key: rows[[0] * 5] for key, rows in wrong.items() if key[0] == "A"}
    examples = examples_of(wrong, seeds) if known else {}
    matrix = ErrorMatrix(matrix_rows(wrong, seeds), "exact", Seeds(seeds, frozenset("AB")), examples=examples)
    return check_over_seeds(made(matrix, probes))


def test_the_papers_findings_hold_on_the_papers_figures():
    assert [finding.said for finding in found()] == ["holds"] * 6
    assert found()[0].figures == "3.6 % against 18.2 %"
    assert found()[1].figures == "A 71.4 % against 75.3 %; A_adv 3.6 % against 34.1 %"
    assert found()[3].figures == (
        "FGSM 5.0 % against 18.2 %; I-FGSM 9.7 % against 19.8 %; RAND+FGSM 3.4 % against 12.4 %"
    )
    assert found()[4].figures == "ε = 0.1 1.5 % against 4.0 %"
    assert found()[5].figures == "B2 4.8 % against 17.0 %"


def test_a_finding_that_does_not_hold_says_so():
    reversed_roles = found(baseline="A_ens", ensemble="A_adv")
    assert [finding.said for finding in reversed_roles if "errs less" in finding.claim] == ["does not hold"]


OWN = [
    (1600, "holds"),
    (1790, "holds, but intervals overlap"),
    (1850, "not shown: intervals overlap"),
    (2000, "does not hold"),
]


@pytest.mark.parametrize(("own", "verdict"), OWN)
def test_a_difference_within_chance_is_no_clear_finding(own, verdict):
    errors = ERRORS | {("A_adv", "A_adv", "fgsm"): own}
    assert found(errors)[0].said == verdict
    assert found(errors)[0].verdict == {"h": "holds", "n": "not shown", "d": "reversed"}[verdict[0]]


def test_over_seeds_a_finding_holds_if_the_paired_differences_show_it():
    checked = over_seeds()
    assert [finding.verdict for finding in checked] == ["holds"] * 6
    assert checked[0].figures.startswith("3.6 % against 18.2 %: -14.6 points (-")
    assert checked[0].figures.endswith(" 5 seeds, p < 1e-12)") or ", 5 seeds, p = " in checked[0].figures


def test_over_seeds_a_difference_smaller_than_what_seeds_differ_by_is_not_shown():
    """Over the images of each seed the two are far apart."""
    near = ERRORS | {("A_adv", "B", "fgsm"): 900, ("A_ens", "B", "fgsm"): 800}

    def spread_by(spread):
        return [
            finding.verdict for finding in over_seeds(near, spread=spread) if "examples transferred" in finding.claim
        ]

    assert (spread_by(0.0), spread_by(0.03)) == (["holds"], ["not shown"])


def test_over_seeds_a_finding_is_reversed_if_one_of_its_differences_is_shown_the_other_way_round():
    turned = ERRORS | {("A_adv", "A_adv", "fgsm"): 4000}
    assert [finding.verdict for finding in over_seeds(turned)][:2] == ["reversed", "reversed"]


def test_what_no_seed_changes_is_told_apart_in_the_figures():
    undefended, defended = over_seeds()[1].figures.split("; ")
    assert "A 71.4 % against 75.3 %" in undefended.replace("71.3", "71.4")
    assert ", the same for every seed, p " in undefended
    assert ", 5 seeds, p " in defended


def test_where_errors_are_known_by_number_alone_large_differences_are_shown_all_the_same():
    assert [finding.verdict for finding in over_seeds(known=False)].count("holds") >= 4


def test_what_was_not_measured_is_no_finding():
    assert found({}, probes={}) == over_seeds({}, probes={}) == []
    (only,) = found({key: ERRORS[key] for key in (("A", "A", "fgsm"), ("A", "A", "rand_fgsm"))}, probes={})
    assert "RAND+FGSM beats FGSM" in only.claim


def test_no_epsilon_but_smaller_ones_is_compared():
    wide = {name: dataclasses.replace(p, transferred={0.3: 500, 0.5: 9000}) for name, p in PROBES.items()}
    assert not [finding for finding in found(probes=wide) if "smaller" in finding.claim]
