"""Every benchmark runs; what it claims is for whoever runs it, not for the suite."""

import dataclasses

import pytest

from benchmarks import opening
from benchmarks.ratios import compare


@pytest.mark.slow
def test_the_benchmark_of_opening_runs():
    (claim,) = opening.measure(repeats=1)
    assert claim.value > 0
    assert claim.name in claim.line()


def test_a_claim_holds_up_to_its_target():
    claim = compare("work", lambda: None, lambda: None, target=1e9, repeats=3)
    assert claim.reached
    assert "NOT reached" in dataclasses.replace(claim, target=0).line()
    assert claim.least <= claim.value <= claim.largest
