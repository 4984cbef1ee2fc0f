"""Checks before a target is queried."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from gradshard.pipeline.config.schema import read_params
from gradshard.stages.jobs.queries import _check_groups
from gradshard.storage.errors import GradshardError


def test_more_groups_than_pixels_are_refused():
    params = read_params(Path(__file__).parents[3] / "pipeline/config/profiles/mnist5k.yaml")
    digits = SimpleNamespace(name="digits", sample_shape=(1, 28, 28))
    _check_groups(params, digits)
    estimation = params.blackbox.estimation.model_copy(update={"groups": [98, 1000]})
    params = params.model_copy(update={"blackbox": params.blackbox.model_copy(update={"estimation": estimation})})
    with pytest.raises(GradshardError, match="has 1000, but an image of digits has 784 pixels: lower it"):
        _check_groups(params, digits)
