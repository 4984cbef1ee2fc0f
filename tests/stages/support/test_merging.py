"""Results that are put together, from files that may be damaged."""

import pytest

from gradshard.stages.support.merging import merged_costs
from gradshard.stages.support.report_files import of_results
from gradshard.storage.errors import GradshardError


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
