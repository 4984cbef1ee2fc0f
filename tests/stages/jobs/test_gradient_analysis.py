"""Summaries of what was measured of gradients."""

import json

import pytest
import torch

from gradshard.stages.jobs.gradient_analysis import _summary


def test_one_example_has_no_deviation():
    assert _summary(torch.tensor([0.5])) == {"mean": 0.5, "deviation": 0.0, "examples": 1}
    assert "NaN" not in json.dumps(_summary(torch.tensor([0.5])))
    assert _summary(torch.tensor([0.0, 2.0]))["deviation"] == pytest.approx(2**0.5)
