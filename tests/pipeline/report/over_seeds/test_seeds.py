"""Models that change with the seeds that were measured, and those that do not."""

from pathlib import Path

from gradshard.pipeline.config.schema import read_params
from gradshard.pipeline.report.over_seeds.seeds import Seeds


def test_stand_ins_of_seeds_that_were_not_measured_change_nothing():
    params = read_params(Path(__file__).parents[4] / "pipeline/config/profiles/mnist.yaml")
    params = params.model_copy(update={"seeds": [10, 11, 14], "stand_ins": {14: {"A": "B-2"}}})
    some, all_of_them = Seeds.of_params(params, [10, 11]), Seeds.of_params(params, [10, 11, 14])
    assert "A" in some.steady
    assert not some.sources_vary
    assert "A" not in all_of_them.steady
    assert {"B", "C"} <= all_of_them.steady
    assert all_of_them.sources_vary
