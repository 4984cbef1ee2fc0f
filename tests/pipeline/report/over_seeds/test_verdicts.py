import pytest

from gradshard.pipeline.evaluation.paired_defences import PairedDifference
from gradshard.pipeline.report.over_seeds.verdicts import ClaimedDifference, verdict


def difference(points, p, seeds=5):
    interval = None if p is None else (points / 100 - 0.02, points / 100 + 0.02)
    return PairedDifference(points / 100, interval, p, p, seeds, 10_000)


LOWER, HIGHER, UNCLEAR, ONE = difference(-5, 0.001), difference(5, 0.001), difference(-1, 0.3), difference(-60, None, 1)


@pytest.mark.parametrize(
    ("expected", "measured", "found"),
    [
        ("lower", [LOWER], "holds"),
        ("higher", [HIGHER], "holds"),
        ("lower", [HIGHER], "reversed"),
        ("higher", [LOWER], "reversed"),
        ("lower", [UNCLEAR], "not shown"),
        ("lower", [ONE], "not shown"),
        ("lower", [LOWER, LOWER], "holds"),
        ("lower", [LOWER, UNCLEAR], "not shown"),
        ("lower", [LOWER, UNCLEAR, HIGHER], "reversed"),
        ("lower", [], "not shown"),
    ],
)
def test_a_claim_holds_if_all_it_says_does_and_is_reversed_if_one_thing_is(expected, measured, found):
    assert verdict([ClaimedDifference(expected, each) for each in measured]) == found


def test_the_correction_for_the_number_of_comparisons_decides():
    corrected = PairedDifference(-0.05, (-0.09, -0.01), 0.02, 0.08, 5, 10_000)
    assert verdict([ClaimedDifference("lower", corrected)]) == "not shown"


def test_figures_tell_the_interval_the_seeds_and_the_p_value_or_why_there_are_none():
    assert ClaimedDifference("lower", LOWER).figures == "-5.0 points (-7.0 to -3.0, 5 seeds, p = 0.001)"
    assert ClaimedDifference("lower", difference(-5, 1e-20)).figures.endswith("5 seeds, p < 1e-12)")
    assert ClaimedDifference("lower", ONE).figures == "-60.0 points (one seed: no claim about training)"
