import numpy as np
import pytest

from gradshard.pipeline.evaluation.paired_defences import paired_difference
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds.seed_errors import difference, tied_for_best
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.storage.errors import GradshardError
from tests.helpers.error_matrices import error_matrix, examples_of, matrix_rows, wrong_images

FIRST, SECOND = ("A_adv", "B", "fgsm"), ("A_ens", "B", "fgsm")
NEAR = {
    FIRST: wrong_images([0.08, 0.16, 0.12, 0.11, 0.13], 1),
    SECOND: wrong_images([0.17, 0.11, 0.14, 0.18, 0.10], 2),
}
FAR = NEAR | {SECOND: wrong_images([0.3, 0.35, 0.31, 0.33, 0.32], 3)}


def errors(wrong, **options):
    matrix = error_matrix(wrong, **options)
    return [matrix.errors(*key) for key in wrong]


def test_two_are_compared_on_the_seeds_that_both_have():
    one, other = errors(FAR)
    assert difference(one.of([10, 12]), other) == paired_difference(FAR[FIRST][[0, 2]], FAR[SECOND][[0, 2]])
    assert difference(one, other.of([14])).finding == "one seed: no claim about training"


def test_two_are_compared_on_the_images_that_both_have():
    """As a white box on all images is with a transfer on a sample of them."""
    sample = np.sort(np.random.default_rng(0).permutation(2000)[:500])
    seeds = (10, 11, 12, 13, 14)
    examples = examples_of(FAR, seeds)
    for of in examples.values():
        numbers, correct = of[*SECOND, "exact", 1]
        of[*SECOND, "exact", 1] = numbers[sample], correct[sample]
    sampled = FAR | {SECOND: FAR[SECOND][:, sample]}
    matrix = ErrorMatrix(matrix_rows(sampled, seeds), "exact", Seeds(seeds), examples=examples)
    found = difference(matrix.errors(*FIRST), matrix.errors(*SECOND))
    assert found == paired_difference(FAR[FIRST][:, sample], FAR[SECOND][:, sample])


def test_errors_known_by_number_alone_are_compared_with_wider_intervals():
    (low, high), by_number = difference(*errors(FAR)).interval, difference(*errors(FAR, known=False))
    assert by_number.interval[0] < low
    assert high < by_number.interval[1]
    assert by_number.finding == "lower"


def test_one_that_is_not_shown_to_err_more_is_tied_for_best():
    assert tied_for_best(errors(NEAR)) == [True, True]
    assert tied_for_best(errors(FAR)) == [True, False]


def test_nothing_is_tied_where_images_are_not_known_no_seed_is_shared_or_one_is_alone():
    one, other = errors(NEAR)
    assert tied_for_best(errors(NEAR, known=False)) == [False, False]
    assert tied_for_best([one.of([10]), other.of([11])]) == [False, False]
    assert tied_for_best([one]) == [False]


def test_images_that_do_not_belong_to_an_error_rate_are_refused():
    examples = examples_of(NEAR, range(5))
    matrix = ErrorMatrix(matrix_rows(FAR, range(5)), "exact", Seeds(range(5)), examples=examples)
    with pytest.raises(GradshardError, match=r"of seed 0 does not belong .*run `gradshard evaluate --seed 0` again"):
        matrix.errors(*SECOND)
    nothing = {seed: {} for seed in range(5)}
    missing = ErrorMatrix(matrix_rows(NEAR, range(5)), "exact", Seeds(range(5)), examples=nothing)
    with pytest.raises(GradshardError, match="0 of 0 images wrong"):
        missing.errors(*FIRST)


def test_seeds_that_were_evaluated_on_different_images_are_refused():
    examples = examples_of(NEAR, range(5))
    key = (*FIRST, "exact", 1)
    examples[3][key] = (examples[3][key][0] + 1, examples[3][key][1])
    matrix = ErrorMatrix(matrix_rows(NEAR, range(5)), "exact", Seeds(range(5)), examples=examples)
    with pytest.raises(GradshardError, match="evaluated on different test images: run `gradshard evaluate` again"):
        matrix.errors(*FIRST)
