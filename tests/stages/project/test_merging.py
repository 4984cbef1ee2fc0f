"""Results that are put together, from files that may be damaged."""

import pytest

from gradshard.stages.project.merging import merged_costs, rows
from gradshard.stages.project.report_files import of_results
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results
from tests.helpers.error_matrices import write_results, wrong_images

WRONG = {("A_adv", "B", "fgsm"): wrong_images([0.1, 0.2], 1, 100)}


@pytest.mark.parametrize("damaged", ["", '{"10": ', "null", "\x00"])
def test_a_damaged_file_of_results_is_told_with_its_remedy(tmp_path, damaged):
    (tmp_path / "matrix.parquet").touch()
    for name in ("costs.json", "gradients.json", "metrics.json"):
        (tmp_path / name).write_text(damaged)
    found = of_results(tmp_path, [10])
    with pytest.raises(GradshardError, match=r"costs.json is damaged \(.*\): run the stage that writes it again, `gr"):
        merged_costs([tmp_path / "costs.json"])
    with pytest.raises(GradshardError, match=r"gradients.json is damaged \(.*\): run `gradshard analyze` again"):
        found.jsons(found.gradients)
    with pytest.raises(GradshardError, match=r"metrics.json is damaged \(.*\): run `gradshard evaluate` again"):
        found.each("metrics.json")


@pytest.mark.parametrize(("key", "value"), [("eps", 0.1), ("steps", 3), ("label", "least_likely")])
def test_seeds_that_were_attacked_otherwise_are_not_averaged(tmp_path, key, value):
    write_results(tmp_path, WRONG, [10, 11])
    assert [row["seed"] for row in rows(of_results(tmp_path, [10, 11]))] == [10, 11]
    matrix = tmp_path / "11/matrix.parquet"
    results.write_matrix(matrix, [row | {key: value} for row in results.read_matrix(matrix)])
    with pytest.raises(GradshardError, match=rf"fgsm on A_adv has {key} .* with seed 10 and {value} with seed 11: run"):
        rows(of_results(tmp_path, [10, 11]))


def test_a_matrix_of_several_seeds_is_not_taken_for_one_of_the_first(tmp_path):
    write_results(tmp_path, WRONG, [10, 11])
    both = [row for seed in (10, 11) for row in results.read_matrix(tmp_path / f"{seed}/matrix.parquet")]
    (tmp_path / "merged").mkdir()
    results.write_matrix(tmp_path / "merged/matrix.parquet", both)
    with pytest.raises(GradshardError, match="has results of the seeds 10, 11, not of 10 alone: name a folder"):
        rows(of_results(tmp_path / "merged", [10, 11]))
