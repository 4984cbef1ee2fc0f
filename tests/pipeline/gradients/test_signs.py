"""The signs that are stored: exact, whatever the batch they were computed in."""

import numpy as np
import pytest
import torch

from gradshard.pipeline import models
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.signs import GradientSpec, agreement_with_float64, compute_signs, to_unit_range
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.trainer import Trainer
from gradshard.storage.streaming.reader import open_reader, plan_reading


@pytest.fixture(scope="module")
def confident_model(small_dataset_path):
    """Model B, trained until it is confident: where softmax cross-entropy rounds."""
    from gradshard.storage.formats.dataset import open_dataset

    split = open_dataset(small_dataset_path).train
    reading = plan_reading(split, {}, memory=1 << 30)
    run = TrainingRun(len(split), 32, 12, 0, Optimization("adam", 0.002), reading)
    model = models.create_model("B", split.sample_shape, 10, seed=0)
    trainer = Trainer(model, run, device=torch.device("cpu"), arithmetic="fp32")
    for _ in trainer.steps(open_reader(split, {}, reading)):
        pass
    return model.eval().requires_grad_(False)


@pytest.fixture
def rows(small_dataset):
    images, labels = small_dataset.train.load()
    return torch.from_numpy(images), torch.from_numpy(labels)


def float64_signs(model, images):
    parameters = {name: tensor.double() for name, tensor in model.state_dict().items()}
    exact = models.create_model("B", (1, 28, 28), 10, seed=0).double()
    exact.load_state_dict(parameters)
    grad, _ = input_gradient(exact.eval(), images.double() / 255, None, policy="predicted")
    return grad.sign().flatten(1)


def test_stored_signs_equal_a_float64_recomputation_zeros_included(confident_model, rows):
    images, labels = rows
    signs, _ = compute_signs(confident_model, images, labels, GradientSpec("exact", "predicted"))
    expected = float64_signs(confident_model, images)
    assert (signs != expected).double().mean() <= 1e-4
    assert ((signs == 0) != (expected == 0)).double().mean() <= 1e-4


def test_the_agreement_is_the_share_of_signs_that_float64_gives(confident_model, rows):
    images, labels = rows[0][:200], rows[1][:200]
    for precision, least in (("fp32", 0.9999), ("bf16", 0.95)):
        direction = GradientSpec("exact", "predicted", precision)
        signs, _ = compute_signs(confident_model, images, labels, direction)
        share = agreement_with_float64(confident_model, images, labels, direction)
        assert share == pytest.approx(
            (signs == float64_signs(confident_model, images)).double().mean().item(), abs=1e-3
        )
        assert least < share <= 1
    assert share < 0.9999, "bf16 rounds"
    assert not any(parameter.dtype == torch.float64 for parameter in confident_model.parameters())


def test_signs_of_fp32_cross_entropy_do_not(confident_model, rows):
    images, labels = rows
    signs, _ = compute_signs(confident_model, images, labels, GradientSpec("cross_entropy", "predicted"))
    assert (signs != float64_signs(confident_model, images)).double().mean() > 1e-3


def test_signs_do_not_depend_on_the_batch_or_the_threads(confident_model, rows):
    images, labels = rows
    direction = GradientSpec("exact", "predicted")
    whole, used = compute_signs(confident_model, images, labels, direction)
    torch.set_num_threads(1)
    pieces = [
        compute_signs(confident_model, images[s : s + 50], labels[s : s + 50], direction) for s in range(0, 700, 50)
    ]
    assert torch.equal(torch.cat([signs for signs, _ in pieces]), whole)
    assert torch.equal(torch.cat([labels for _, labels in pieces]), used)


def test_the_labels_are_those_the_gradient_was_taken_for(confident_model, rows):
    images, labels = rows
    with torch.no_grad():
        logits = confident_model(to_unit_range(images))
    expected = {"predicted": logits.argmax(1), "least_likely": logits.argmin(1), "true": labels}
    for policy, label in expected.items():
        signs, used = compute_signs(confident_model, images, labels, GradientSpec("exact", policy))
        assert torch.equal(used, label)
        assert signs.dtype == torch.int8
        assert signs.shape == (700, 784)


def test_pixels_are_the_stored_bytes_over_255():
    images = torch.tensor([[[[0, 1, 128, 255]]]], dtype=torch.uint8)
    assert np.allclose(to_unit_range(images).numpy(), np.array([0, 1, 128, 255]) / 255)
