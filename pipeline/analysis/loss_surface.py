"""The loss of a model over the plane of two signed gradients around an image (figures 2 and 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.loss import logit_margin
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.types import Gradient

# Steps to look at along a signed gradient, as shares of epsilon; the first is the vicinity of the image.
_SHARES = tuple(tenth / 10 for tenth in range(1, 11))


@dataclass(frozen=True)
class Directions:
    """Images on which FGSM fools a model, by its own gradient and by a source's; bool (n,) each.

    ``right`` marks the images that the model classifies right unperturbed; only for these can the other two be true.
    """

    right: Tensor
    own: Tensor
    other: Tensor

    @property
    def other_alone(self) -> Tensor:
        """The images that figure 2 is about: the source's example fools the model, its own does not."""
        return self.other & ~self.own

    @property
    def own_alone(self) -> Tensor:
        """The images on which the model's own example fools it, and the source's does not."""
        return self.own & ~self.other


def fooling_directions(
    model: nn.Module, source: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, gradient: Gradient = "exact"
) -> Directions:
    """Attack ``model`` by FGSM with its own gradient and with that of ``source``; images (n, C, H, W), labels (n,)."""
    own, other = (
        perturb(images, input_gradient(m, images, labels, gradient=gradient)[0].sign(), epsilon)
        for m in (model, source)
    )
    with torch.no_grad():
        right, *kept = (model(tried).argmax(1) == labels for tried in (images, own, other))
    return Directions(right, *(right & ~k for k in kept))


def loss_along(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    signs: Tensor,
    *,
    epsilon: float,
    shares: tuple[float, ...] = _SHARES,
) -> Tensor:
    """Return the cross-entropy at steps along signs (n, C, H, W), clipped to [0, 1]; float32 (n, steps)."""
    return torch.stack([_loss(model, perturb(images, signs, share * epsilon), labels) for share in shares], dim=1)


@dataclass(frozen=True)
class Curvature:
    """The number of images, out of ``n``, around which the loss behaves as in figure 2.

    ``near_own``: at a tenth of epsilon it is higher along the model's own signed gradient than along the source's.
    ``falls_again``: along the model's own, it is higher at some smaller step than at epsilon.
    """

    n: int
    near_own: int
    falls_again: int


def curvature(
    model: nn.Module, source: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, gradient: Gradient = "exact"
) -> Curvature:
    """Count the images (n, C, H, W) around which the loss of ``model`` is curved as the paper shows it."""
    own, other = (
        loss_along(
            model, images, labels, input_gradient(m, images, labels, gradient=gradient)[0].sign(), epsilon=epsilon
        )
        for m in (model, source)
    )
    falls = own[:, :-1].amax(1) > own[:, -1]
    return Curvature(len(images), int((own[:, 0] > other[:, 0]).sum()), int(falls.sum()))


def loss_plane(
    model: nn.Module,
    source: nn.Module,
    image: Tensor,
    label: Tensor,
    steps: Tensor,
    *,
    gradient: Gradient = "exact",
) -> Tensor:
    """Return the cross-entropy of ``model`` at x + e1 * sign(g1) + e2 * sign(g2), clipped to [0, 1] (section 3.3).

    g1 is the gradient of the model, g2 that of the source, both at x. The paper does not write the clipping, but says
    that all its attacks are clipped; unclipped points are no images. The loss is softplus of the margin, which keeps
    its digits where softmax would round it to 0.

    Args:
        model: the model whose loss is computed, in eval mode.
        source: the model that gives the second direction, in eval mode.
        image: (1, C, H, W) in [0, 1].
        label: int64 (1,).
        steps: the values of e1 and of e2, (k,), in pixel units.
        gradient: which gradient gives the signs.

    Returns:
        Float32 (k, k) on the CPU; rows follow e1, columns e2.
    """
    own, other = (input_gradient(m, image, label, gradient=gradient)[0].sign() for m in (model, source))
    labels = label.expand(len(steps))

    def row(step: Tensor) -> Tensor:
        tried = perturb(image + step * own, other, steps.view(-1, 1, 1, 1))
        return torch.cat(in_microbatches(lambda at: _loss(model, tried[at], labels[at]).cpu(), tried, model))

    return torch.stack([row(step) for step in steps])


def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return functional.softplus(logit_margin(model(images).float(), labels))
