"""A watched model is the same model; what it counts is its own undefined gradients, whoever asks for them."""

import copy

import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.fgsm import fgsm, iterative_fgsm
from gradshard.pipeline.attacks.pgd import pgd
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.watching import Watched


class NormAtZero(nn.Module):
    """Logits of a linear model, times a norm that has no slope where an image is black."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) * (1 + images.flatten(1).norm(dim=1, keepdim=True).square().sqrt())


def some_images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 1, 3, 4, generator=generator)
    images[[1, 4]] = 0
    return images, torch.tensor([0, 1, 0, 1, 0, 1])


def test_logits_gradients_and_attacks_are_those_of_the_model_bit_for_bit(linear_model):
    images, labels = some_images()
    model = linear_model()
    watched = Watched(model)
    assert torch.equal(watched(images), model(images))
    assert torch.equal(input_gradient(watched, images, labels)[0], input_gradient(model, images, labels)[0])
    options = {"epsilon": 0.1, "steps": 3}
    assert torch.equal(
        iterative_fgsm(watched, images, labels, **options), iterative_fgsm(model, images, labels, **options)
    )
    assert (watched.rows, watched.undefined) == (4 * 6, 0)


def test_rows_without_a_gradient_are_counted_in_every_pass(linear_model):
    images, labels = some_images()
    watched = Watched(NormAtZero(linear_model()))
    fgsm(watched, images, labels, epsilon=0.1)
    assert (watched.rows, watched.undefined) == (6, 2)
    # A random start leaves no image black.
    noise = torch.rand(1, *images.shape, generator=torch.Generator().manual_seed(1))
    pgd(watched, images, labels, epsilon=0.1, step=0.01, steps=2, noise=noise)
    assert (watched.rows, watched.undefined) == (18, 2)


def test_what_a_copy_meets_is_counted_with_it(linear_model):
    watched = Watched(NormAtZero(linear_model()))
    copied = copy.deepcopy(watched)
    fgsm(copied, *some_images(), epsilon=0.1)
    assert (watched.rows, watched.undefined) == (copied.rows, copied.undefined) == (6, 2)
    assert all(ours is not theirs for ours, theirs in zip(watched.parameters(), copied.parameters(), strict=True))


def test_a_loss_that_is_itself_undefined_is_no_fault_of_the_model(linear_model):
    images, _ = some_images()
    watched = Watched(linear_model())
    inputs = images.requires_grad_(True)
    (watched(inputs) * torch.nan).sum().backward()
    assert (watched.rows, watched.undefined) == (6, 0)
