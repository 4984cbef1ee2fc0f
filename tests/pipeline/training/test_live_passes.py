"""Passes that a model makes to perturb by itself, and that it makes none where stores do."""

import pytest
import torch

from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.gradients.loss import attack_loss
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.training.methods.ensemble import Ensemble
from tests.helpers.trainers import adversary, without_dropout


def test_live_passes_are_made_on_the_batches_of_self_and_no_others(start, monkeypatch):
    calls, shared = [], Ensemble._clean_loss_and_perturbed

    def counted(*args):
        calls.append(1)
        return shared(*args)

    monkeypatch.setattr(Ensemble, "_clean_loss_and_perturbed", counted)
    trainer, reader = start(robust=adversary(schedule="rotate"), epochs=3)
    live = [step.live for step in trainer.steps(reader)]
    assert live == [number % 3 == 0 for number in range(33)]
    assert len(calls) == trainer.live_steps == 11


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_live_gradient_is_taken_in_the_mode_that_was_asked_for(start, mode):
    trainer, reader = start(robust=adversary(sources=("self",), live_mode=mode), epochs=1)
    passes = []
    trainer.model.fc1.register_forward_hook(
        lambda module, args, _: passes.append((trainer.model.training, len(args[0])))
    )
    next(trainer.steps(reader))
    # In train mode the clean pass serves the gradient too; in eval mode the gradient has a pass of its own.
    assert passes == ([(True, 64), (True, 64)] if mode == "train" else [(False, 64), (True, 128)])


def test_the_live_perturbation_is_fgsm_on_the_model_itself(start, small_dataset):
    trainer, reader = start(robust=adversary(sources=("self",)), epochs=1)
    without_dropout(trainer)
    raw = next(iter(reader.read(trainer.run.requests(0))))
    images = to_unit_range(torch.from_numpy(raw.images))
    predicted = trainer.model(images).argmax(1)
    expected = fgsm(trainer.model, images, predicted, epsilon=0.3)
    seen = []
    trainer.model.flatten.register_forward_hook(lambda module, args, _: seen.append(args[0].detach().clone()))
    next(trainer.steps(reader))
    assert torch.equal(seen[0], images)
    assert torch.equal(seen[1], expected)


def test_training_on_rand_fgsm_moves_at_random_first(start, small_dataset):
    trainer, reader = start(robust=adversary(sources=("self",), attack="rand_fgsm", alpha=0.1), epochs=1)
    without_dropout(trainer)
    seen = []
    trainer.model.flatten.register_forward_hook(lambda module, args, _: seen.append(args[0].detach().clone()))
    raw = next(iter(reader.read(trainer.run.requests(0))))
    images = to_unit_range(torch.from_numpy(raw.images))
    next(trainer.steps(reader))
    moved, both = seen
    inside = (images > 0.1) & (images < 0.9)
    assert torch.allclose((moved - images).abs()[inside], torch.tensor(0.1))
    assert torch.equal(both[:64], images)
    step = (both[64:] - moved).abs()[(moved > 0.2) & (moved < 0.8)]
    assert torch.allclose(step, torch.tensor(0.2))
    assert (both[64:] - images).abs().max() <= 0.3 + 1e-6


@pytest.mark.parametrize("label_at", ["clean", "moved"])
def test_rand_fgsm_is_about_the_label_of_the_clean_image_or_of_the_moved_one(start, monkeypatch, label_at):
    robust = adversary(sources=("self",), attack="rand_fgsm", alpha=0.2, label_at=label_at)
    trainer, reader = start(robust=robust, epochs=1)
    without_dropout(trainer)
    model, taken = trainer.model, []
    raw = next(iter(reader.read(trainer.run.requests(0))))
    clean = model(to_unit_range(torch.from_numpy(raw.images))).argmax(1)

    def loss(logits, labels, gradient):
        taken.append((labels, logits.argmax(1)))
        return attack_loss(logits, labels, gradient)

    monkeypatch.setattr("gradshard.pipeline.gradients.input_gradient.attack_loss", loss)
    next(trainer.steps(reader))
    ((labels, moved),) = taken
    assert not torch.equal(moved, clean)
    assert torch.equal(labels, clean if label_at == "clean" else moved)


@pytest.mark.parametrize("schedule", ["random", "rotate", "all", "top_k", "loss_weighted"])
def test_without_self_no_pass_is_made_but_that_of_the_loss(start, schedule, monkeypatch):
    """The trainer only streams: whatever would ask the model for an input gradient fails."""
    for name in ("_crafted", "_clean_loss_and_perturbed"):
        monkeypatch.setattr(Ensemble, name, None)
    trainer, reader = start(robust=adversary(sources=("A", "C"), schedule=schedule), epochs=1)
    passes = []
    trainer.model.fc1.register_forward_hook(lambda module, args, _: passes.append(len(args[0])))
    assert not any(step.live for step in trainer.steps(reader))
    versions = 2 if schedule in ("random", "rotate") else 3
    assert passes == [versions * 64] * 10 + [versions * 60]
