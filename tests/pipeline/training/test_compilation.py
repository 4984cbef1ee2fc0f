"""A compiled run takes the steps of an eager one, where a compiler is there."""

import numpy as np
import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.models.precision import choose_compilation
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.errors import GradshardError
from tests.helpers.trainers import CPU, adversary


@pytest.mark.slow
@pytest.mark.parametrize("model", ["in pieces, between which dropout draws", "in one piece"])
def test_a_compiled_run_takes_the_steps_of_an_eager_one(start, small_dataset, model):
    losses = []
    for compiled in (False, True):
        trainer, reader = start(robust=adversary(schedule="rotate"), epochs=1)
        module = models.create_model("A", small_dataset.sample_shape, 10, seed=3)
        if model == "in one piece":
            module = nn.Sequential(*(layer for layer in module if not isinstance(layer, nn.Dropout)))
        again = Trainer(module, trainer.run, device=CPU, arithmetic="fp32", compiled=compiled)
        losses.append([(r.clean_loss, r.adversarial_loss) for r in (s.record for s in again.steps(reader)) if r])
    assert np.allclose(losses[0], losses[1], rtol=1e-4)


def test_a_compiler_is_asked_for_before_anything_is_compiled(monkeypatch):
    assert not choose_compilation("auto", CPU, steps=10**9)
    assert not choose_compilation("off", torch.device("cuda"), steps=10**9)
    assert choose_compilation("auto", torch.device("cuda"), steps=10**9)
    assert not choose_compilation("auto", torch.device("cuda"), steps=100)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(GradshardError, match=r"training\.compile: on needs a C"):
        choose_compilation("on", CPU, steps=1)
