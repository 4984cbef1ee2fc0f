"""Results of seeds that were not measured alike are refused, and not averaged."""

import pytest

from gradshard.pipeline.report import measurements, probing
from gradshard.pipeline.report.over_seeds.same_attacks import check_same_measurements
from gradshard.storage.errors import GradshardError


def queried(*queries, an_image=196):
    swept = [{"epsilon": 0.3, "errors": 1}]
    rounds = [{"queries": number, "n": 10, "errors": 1, "sweep": swept} for number in queries]
    return {"substitute": rounds, "estimation": {"estimated": [{"queries_per_example": an_image}]}}


@pytest.mark.parametrize("other", [queried(150, 300, an_image=98), queried(150), queried(150, 400)])
def test_seeds_with_other_queries_are_refused(other):
    measured = {10: {"A_adv": queried(150, 300)}, 11: {"A_adv": queried(150, 300)}}

    def check():
        words = {seed: {name: measurements.queries(of) for name, of in its.items()} for seed, its in measured.items()}
        check_same_measurements(words, stage="blackbox")

    check()
    measured[12] = {"A_adv": other}
    with pytest.raises(GradshardError, match=r"A_adv was measured with .* with seed 10 and .* with seed 12: run `"):
        check()


def test_seeds_that_were_probed_at_other_epsilons_are_refused():
    def probed(*epsilons):
        return {"models": {"A_adv": {"exact": {"curve": [(epsilon, 1) for epsilon in epsilons]}}}}

    assert set(probing.records({10: probed(0, 0.3), 11: probed(0, 0.3)}, "exact")["A_adv"]) == {10, 11}
    with pytest.raises(GradshardError, match=r"with \[0, 0.3\] with seed 10 and \[0, 0.2, 0.3\] with seed 11"):
        probing.records({10: probed(0, 0.3), 11: probed(0, 0.2, 0.3)}, "exact")
