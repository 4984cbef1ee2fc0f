"""A batch that passes in pieces gives the losses and the step of one that passes at once."""

import pytest
import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.gradients.augmentation import Augmentation
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.errors import GradshardError
from gradshard.storage.streaming.reader import ReadingPlan
from tests.helpers.random_rows import RandomRows

CPU = torch.device("cpu")


def trainer(rows_at_once, model=None, *, batch_norm="per_rank", **options):
    adversary = {"attack": "fgsm", "sources": ("self", "S"), "schedule": "rotate", "objective": "both"}
    adversary |= {"epsilon_law": "fixed", **options}
    run = TrainingRun(
        rows=60,
        batch=16,
        epochs=1,
        seed=1,
        # Adam's steps are of one length whatever the gradient's, and so show rounding where it is about 0.
        optimization=Optimization("sgd", 0.1),
        reading=ReadingPlan(True, 60, 1),
        adversary=Adversary(
            epsilon=0.3,
            alpha=0.05,
            clean_weight=0.5,
            gradient="exact",
            policy="predicted",
            live_mode="train",
            directions={"S": 1, "T": -1},
            adversarial_weight=0.3,
            **adversary,
        ),
        augmentation=Augmentation(2, True),
        batch_norm=batch_norm,
    )
    module = model or models.create_model("D", (1, 28, 28), 10, seed=0)
    return Trainer(module, run, device=CPU, arithmetic="fp32", rows_at_once=rows_at_once)


def trained(rows_at_once, **options):
    loop = trainer(rows_at_once, **options)
    records = [step.record for step in loop.steps(RandomRows()) if step.record is not None]
    return records[-1], torch.cat([tensor.flatten() for tensor in loop.model.state_dict().values()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "half", "epsilon_law": "truncated_normal"},
        {"attack": "rand_fgsm", "sources": ("self",)},
        {"sources": ("self", "S", "T"), "schedule": "loss_weighted"},
        {"sources": ("S", "T"), "schedule": "top_k"},
    ],
    ids=["dropout, shared pass", "half, drawn epsilons", "random steps", "recent losses", "top k"],
)
def test_pieces_take_the_steps_of_whole_batches(options):
    (one, weights), (other, pieced) = trained(None, **options), trained(5, **options)
    assert other.clean_loss == pytest.approx(one.clean_loss, rel=1e-4)
    assert other.adversarial_loss == pytest.approx(one.adversarial_loss, rel=1e-3)
    assert torch.allclose(pieced, weights, atol=1e-5)


def test_a_piece_of_a_single_row_may_stay_clean():
    options = {"objective": "half", "sources": ("self",)}
    (one, weights), (other, pieced) = trained(None, **options), trained(1, **options)
    assert other.adversarial_loss == pytest.approx(one.adversarial_loss, rel=1e-3)
    assert torch.allclose(pieced, weights, atol=1e-5)


def test_no_pass_has_more_rows_than_are_allowed():
    loop = trainer(5, sources=("self",), attack="rand_fgsm")
    passed = []
    loop.model.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    next(loop.steps(RandomRows()))
    # Clean and perturbed images pass together.
    assert max(passed) == 2 * 4
    assert sum(passed) == 3 * 16


def test_memory_that_is_too_small_is_told_with_the_remedy():
    loop = trainer(None)

    def full(_, inputs):
        raise torch.OutOfMemoryError

    loop.model.register_forward_pre_hook(full)
    with pytest.raises(GradshardError, match="not enough memory to train on 16 rows at once: set GRADSHARD_ROWS_AT"):
        next(loop.steps(RandomRows()))


def test_statistics_of_whole_batches_and_pieces_of_them_exclude_one_another():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))
    trainer(16, model, batch_norm="synchronised")
    trainer(5, model)
    with pytest.raises(GradshardError, match="needs all rows of a batch at once, not 5"):
        trainer(5, model, batch_norm="synchronised")
