"""Passes that making a store takes, against those that went through a real model."""

import numpy as np
import pytest
import torch

from gradshard.pipeline import models
from gradshard.pipeline.attacks.end_direction import AttackSpec, end_directions, store_labels
from gradshard.pipeline.attacks.store_passes import store_passes
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.signs import to_unit_range

IMAGES, LABELS, ROWS = torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8), torch.arange(4), np.arange(4)


@pytest.fixture
def counted():
    """A model, and the numbers of passes through it so far, forward and backward."""
    model, counts = models.create_model("D", (1, 28, 28), 10, seed=1).eval().requires_grad_(False), [0, 0]

    def count(module, inputs, logits):
        counts[0] += 1
        if logits.requires_grad:
            logits.register_hook(lambda grad: counts.__setitem__(1, counts[1] + 1))

    model.register_forward_hook(count)
    return model, counts


@pytest.mark.parametrize("policy", ["true", "predicted"])
@pytest.mark.parametrize(
    "spec",
    [
        {"attack": "fgsm"},
        {"attack": "rand_fgsm", "alpha": 0.1, "copies": 3},
        {"attack": "ifgsm", "steps": 4},
        {"attack": "mifgsm", "steps": 5},
        {"attack": "pgd", "steps": 3, "copies": 2},
        {"attack": "cw", "steps": 2},
    ],
    ids=lambda spec: spec["attack"],
)
def test_the_passes_of_an_attacks_store_are_those_that_making_it_takes(counted, spec, policy):
    (model, counts), attack = counted, AttackSpec(gradient="exact", policy=policy, epsilon=0.3, **spec)
    used = store_labels(model, IMAGES, LABELS, attack, rows=ROWS)
    for copy in range(attack.copies):
        end_directions(model, IMAGES, used, attack, rows=ROWS, copy=copy)
    assert store_passes(spec["attack"], label=policy, steps=attack.steps, copies=attack.copies) == tuple(counts)


def test_signs_of_the_gradient_take_one_pass_each_way(counted):
    model, counts = counted
    input_gradient(model, to_unit_range(IMAGES), LABELS, policy="predicted")
    assert store_passes(None, label="predicted") == tuple(counts) == (1, 1)


@pytest.mark.parametrize("attack", ["autoattack", "torchattacks:DIFGSM"])
def test_of_an_attack_that_tells_no_steps_the_passes_are_not_known(attack):
    assert store_passes(attack, label="true", steps=10) is None
