import numpy as np
import pytest

from gradshard.pipeline.evaluation.statistics import mcnemar
from gradshard.pipeline.report.significance import compare_models

RIGHT = {
    ("first", "B", "fgsm"): np.arange(1000) >= 200,
    ("second", "B", "fgsm"): np.arange(1000) >= 100,
    ("first", "", "clean"): np.arange(1000) >= 10,
    ("second", "", "clean"): np.arange(1000)[::-1] >= 11,
}


@pytest.fixture
def compared():
    return compare_models({"12 epochs": ["first", "second"]}, "B", lambda seed, *key: RIGHT.get(key), [10])


def test_models_are_compared_where_both_were_measured_on_the_same_examples(compared):
    assert [(c.attack, c.only_first, c.only_second) for c in compared] == [("Clean", 10, 11), ("FGSM from B", 100, 0)]


def test_a_difference_is_named_only_if_it_is_no_likely_chance(compared):
    assert [c.verdict for c in compared] == ["no difference shown", "second errs less"]
    assert compared[1].p_text == "< 1e-12"


def test_of_several_seeds_all_must_show_the_difference():
    def right(seed, target, source, attack):
        wrong = {("first", 1): 200, ("second", 1): 100, ("first", 2): 100, ("second", 2): 200}
        return np.arange(1000) >= wrong[target, seed % 10] if (source, attack) == ("B", "fgsm") else None

    groups = {"12 epochs": ["first", "second"]}
    (alike,) = compare_models(groups, "B", right, [1, 11, 21])
    assert (alike.verdict, alike.only_first, alike.only_second) == ("second errs less", 300, 0)
    (opposed,) = compare_models(groups, "B", right, [1, 11, 2])
    assert (opposed.verdict, opposed.p) == ("no difference shown", 1.0)


def test_p_values_are_corrected_for_their_number(compared):
    alone = mcnemar(RIGHT["first", "B", "fgsm"], RIGHT["second", "B", "fgsm"])
    assert compared[1].p == pytest.approx(2 * alone.p)
