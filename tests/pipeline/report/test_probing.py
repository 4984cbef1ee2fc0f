"""Probes of each model's gradient, shown for every seed."""

import pytest

from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.report import probing
from gradshard.pipeline.report.over_seeds.seeds import Seeds

TWO = Seeds((10, 11), frozenset("AB"))
FLAG = {"name": "transfer-beats-own", "says": "others fool it more often than itself", "figures": "1 < 2"}


def record(errors, flags=()):
    probe = GradientProbe(
        n=100,
        classes=10,
        errors=dict.fromkeys(("fgsm", "ifgsm", "rand_fgsm", "noise", "fgsm_less_alpha"), errors),
        curve={0.0: 1, 0.3: errors},
        transferred={0.0: 1, 0.3: 2 * errors},
        zero_gradients=0,
        violations=0,
    )
    return {"exact": probe.record() | {"flags": list(flags)}}


@pytest.fixture
def measured():
    diagnostics = {
        10: {"models": {"A": record(20), "A_adv": record(10, [FLAG])}},
        11: {"models": {"A": record(20), "A_adv": record(14)}},
    }
    return probing.records(diagnostics, "exact")


def test_a_flag_names_the_seed_of_the_model_it_is_about(measured):
    assert probing.flags(measured, TWO) == {"A": [], "A_adv, seed 10": [FLAG], "A_adv, seed 11": []}
    alone = {name: {10: of[10]} for name, of in measured.items()}
    assert probing.flags(alone, Seeds((10,))) == {"A": [], "A_adv": [FLAG]}


def test_a_flag_that_one_seeds_models_raise_on_a_static_model_is_not_lost(measured):
    changed = measured | {"A": measured["A"] | {11: measured["A"][11] | {"flags": [FLAG]}}}
    assert list(probing.flags(changed, TWO)) == ["A, seed 10", "A, seed 11", "A_adv, seed 10", "A_adv, seed 11"]


def test_probes_of_several_seeds_are_means_in_tables_and_points_in_curves(measured):
    probes = probing.restored(measured)
    own, transferred = probing.tables(probes, {}, "B", TWO)
    assert {head: cells[3].text for head, cells in own.rows} == {"A": "20.0", "A_adv": "12.0 ± 2.8"}
    assert {head: cells[0].text for head, cells in transferred.rows} == {"A": "40.0", "A_adv": "24.0 ± 5.7"}
    assert (
        own.caption
        == transferred.caption
        == "Mean ± standard deviation over 2 seeds of training, the same static models. "
        "No interval stands where errors are known by their number alone."
    )
    several, one = (
        probing.curves(probes, "B", TWO),
        probing.curves(probes, "B", Seeds((10,), frozenset(("A", "A_adv", "B")))),
    )
    assert several.count("<use") > one.count("<use")
