"""Results that are put together, from files that may be damaged."""

import json
from pathlib import Path

import pytest

from gradshard.pipeline.config.schema import read_params
from gradshard.stages.project.merging import merged_costs, provenance, rows
from gradshard.stages.project.report_files import of_results
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results
from tests.helpers.error_matrices import write_results, wrong_images

PROFILE = Path(__file__).parents[3] / "pipeline/config/profiles/mnist5k.yaml"
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


def write_provenance(folder, seed, *, test="0", static="1", attack=None):
    (folder / str(seed)).mkdir(exist_ok=True)
    (folder / f"{seed}/matrix.parquet").touch()
    record = {
        "seed": seed,
        "params": {"attack": attack or {}, "evaluation": {}},
        "dataset": {"test": test},
        "models": {"B": static, f"A_adv-{seed}": str(seed)},
        "stores": {},
        "versions": {},
    }
    (folder / f"{seed}/provenance.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"test": "9"}, r"seeds 10 and 11 were evaluated with different dataset \(test, by the digests"),
        ({"static": "9"}, r"seeds 10 and 11 were evaluated with different models \(B, by the digests"),
        ({"attack": {"eps": 0.1}}, "seed 11 was evaluated with attack.eps 0.1, but the parameters say 0.3: run"),
    ],
)
def test_seeds_of_other_images_models_or_parameters_are_not_put_together(tmp_path, changed, sentence):
    params = read_params(PROFILE)
    for seed in (10, 11):
        write_provenance(tmp_path, seed)
    assert provenance(of_results(tmp_path, [10, 11]), params)["models"] == {
        "B": "1",
        "A_adv-10": "10",
        "A_adv-11": "11",
    }
    write_provenance(tmp_path, 11, **changed)
    with pytest.raises(GradshardError, match=sentence):
        provenance(of_results(tmp_path, [10, 11]), params)
