"""Two targets compared on cells of choice: what is shown, what is not, and what cannot be."""

import re

import numpy as np
import pytest

from gradshard.pipeline.report.over_seeds.compared import Adversary, compared_table, shared_adversaries
from gradshard.storage.errors import GradshardError
from tests.helpers.error_matrices import error_matrix, wrong_images

SEEDS = (10, 11, 12, 13, 14)


def matrix(*, seeds=SEEDS, known=True):
    """A good and a bad target, alike on clean images; of B's attacks one fools each half of the good one's images."""
    count = len(seeds)
    halves = np.zeros((2, count, 1000), dtype=bool)
    halves[0, :, :300], halves[1, :, 500:800] = True, True
    wrong = {
        ("good", "", "clean"): wrong_images([0.01] * count, 1, 1000),
        ("bad", "", "clean"): wrong_images([0.01] * count, 1, 1000),
        ("good", "B", "fgsm"): halves[0],
        ("good", "B", "pgd"): halves[1],
        ("good", "good", "pgd"): wrong_images([0.2 + 0.01 * at for at in range(count)], 2, 1000),
        ("good", "bad", "fgsm"): halves[0],
        ("bad", "B", "fgsm"): wrong_images([0.7 + 0.01 * at for at in range(count)], 3, 1000),
        ("bad", "B", "pgd"): wrong_images([0.7 - 0.01 * at for at in range(count)], 4, 1000),
        ("bad", "bad", "pgd"): wrong_images([0.9] * count, 5, 1000),
    }
    return error_matrix(wrong, seeds, known=known)


def rows(table):
    return {head: [cell.text for cell in cells] + [cells[-1].bold] for head, cells in table.rows}


def test_without_a_choice_it_is_every_attack_that_both_were_measured_under_and_own_ones_stand_side_by_side():
    found = shared_adversaries(matrix(), "good", "bad")
    assert [adversary.title for adversary in found] == ["Clean", "FGSM from B", "PGD from B", "own PGD"]
    table = compared_table(matrix(), "good", "bad", found)
    assert rows(table)["own PGD"] == ["22.0 ± 1.6", "90.0 ± 0.0", "-68.0", True]
    assert rows(table)["Clean"][-2:] == ["+0.0", False], "equal, so nothing is shown"
    assert table.caption.endswith("corrected for all 4 (Holm).")


def test_the_other_way_round_every_difference_has_the_other_sign():
    there, back = (
        compared_table(matrix(), *pair, [Adversary.of("B:fgsm")]).rows[0][1][-1].measured
        for pair in (("good", "bad"), ("bad", "good"))
    )
    assert there.difference == -back.difference < 0
    assert there.corrected_p == pytest.approx(back.corrected_p)


def test_several_sources_and_attacks_are_a_worst_case_example_by_example():
    expected = wrong_images([0.01] * len(SEEDS), 1, 1000)
    expected[:, :300], expected[:, 500:800] = True, True
    found = compared_table(matrix(), "good", "bad", [Adversary.of("B:fgsm,pgd")])
    assert found.rows[0][0] == "worst case of FGSM, PGD from B"
    assert found.rows[0][1][0].text.startswith(f"{100 * expected.mean():.1f} ± ")


def test_what_is_named_twice_is_one():
    once, twice = (compared_table(matrix(), "good", "bad", [Adversary.of(on)]) for on in ("B:fgsm", "B,B:fgsm,fgsm"))
    assert once == twice
    assert once.rows[0][0] == "FGSM from B"


def test_both_sides_of_a_worst_case_count_clean_images_also_where_sources_fall_together():
    numbers = np.broadcast_to(np.arange(1000), (5, 1000))
    fooled = (numbers >= 100) & (numbers < 300)
    wrong = {
        ("one", "", "clean"): numbers < 50,
        ("one", "one", "fgsm"): fooled,
        ("other", "", "clean"): numbers < 0,
        ("other", "one", "fgsm"): fooled,
        ("other", "other", "fgsm"): numbers < 0,
    }
    table = compared_table(error_matrix(wrong), "one", "other", [Adversary.of("own,one:fgsm")])
    assert [cell.text for cell in table.rows[0][1]] == ["25.0 ± 0.0", "20.0 ± 0.0", "+5.0"]


def test_a_static_target_attacked_by_a_model_of_every_seed_is_shown_over_the_seeds_that_its_difference_is_over():
    by_seed = wrong_images([0.1, 0.2, 0.3, 0.4, 0.5], 1, 1000)
    wrong = {("A", "robust", "fgsm"): by_seed, ("B", "robust", "fgsm"): wrong_images([0.1] * 5, 2, 1000)}
    cells = compared_table(error_matrix(wrong), "A", "B", [Adversary.of("robust:fgsm")]).rows[0][1]
    assert [cell.text for cell in cells] == ["30.0 ± 15.8", "10.0 ± 0.0", "+20.0"]


def test_of_two_models_that_no_seed_changes_nothing_is_shown_however_many_seeds_are_listed():
    rates = {"A": 0.1, "B": 0.9}
    alike = {(name, "", "clean"): np.repeat(wrong_images([its], 1, 1000), 5, axis=0) for name, its in rates.items()}
    ((_, cells),) = compared_table(error_matrix(alike), "A", "B", [Adversary()]).rows
    assert (cells[-1].text, cells[-1].beside, cells[-1].bold) == ("-80.0", "", False)
    assert cells[-1].fields["runs"] == 1


def test_the_caption_tells_why_some_differences_have_no_interval_and_how_the_others_were_corrected():
    clean = {(name, "", "clean"): np.repeat(wrong_images([0.1], 1, 1000), 5, axis=0) for name in ("A", "B")}
    attacked = {(name, "robust", "fgsm"): wrong_images([0.1 * at for at in range(5)], 2, 1000) for name in ("A", "B")}
    both = compared_table(error_matrix(clean | attacked), "A", "B", [Adversary(), Adversary.of("robust:fgsm")])
    assert "corrected for all 1 (Holm). A difference without an interval is of one seed" in both.caption


def test_with_one_seed_no_difference_is_shown():
    table = compared_table(matrix(seeds=(10,)), "good", "bad", [Adversary.of("own:pgd")])
    (difference,) = [cells[-1] for _, cells in table.rows]
    assert (difference.text, difference.beside, difference.bold) == ("-70.0", "", False)
    assert "no claim about training" in difference.note
    assert table.caption.endswith(
        "is of one seed, or of models that no seed changes: it allows no claim about training."
    )


@pytest.mark.parametrize(
    ("first", "second", "on", "saying"),
    [
        ("god", "bad", "clean", "god is no target of these results (did you mean good?)"),
        ("bad", "bad", "clean", "bad cannot be compared with itself: name two targets"),
        ("good", "bad", "C:fgsm", "good was not measured under fgsm from C, but under B:fgsm, B:pgd, "),
        ("bad", "good", "own:fgsm", "bad was not measured under fgsm from bad, but under B:fgsm, B:pgd, bad:pgd: "),
        ("good", "bad", "B", "'B' is no adversary: write clean, own:ATTACK or SOURCE:ATTACK"),
        ("good", "bad", ":fgsm", "':fgsm' is no adversary: "),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_sentence(first, second, on, saying):
    with pytest.raises(GradshardError, match=f"^{re.escape(saying)}"):
        compared_table(matrix(), first, second, [Adversary.of(on)])


def test_a_worst_case_of_errors_known_by_number_alone_asks_for_the_examples():
    with pytest.raises(GradshardError, match=r"put the run's examples\.parquet beside its matrix\.parquet"):
        compared_table(matrix(known=False), "good", "bad", [Adversary.of("B:fgsm,pgd")])
    table = compared_table(matrix(known=False), "good", "bad", [Adversary.of("B:fgsm")])
    assert table.rows[0][1][-1].measured.difference < 0
