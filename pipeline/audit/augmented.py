"""Agreement of stored signs with the gradients at crops and mirror images of the images they were computed at."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradshard.pipeline.audit.recompute import compare
from gradshard.pipeline.gradients.augmentation import CropFlip
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.types import Gradient


@dataclass(frozen=True)
class AugmentedAgreement:
    """Per image, float64 (n,): the share of moved signs that are right at the moved image, and their gain there.

    The agreement counts only pixels that come from the image. The gain is that of ``recompute``: the share of an
    attack's first-order gain that the moved signs keep, padded pixels included.
    """

    agreement: Tensor
    gain: Tensor


def signs_held(
    model: nn.Module, images: Tensor, signs: Tensor, labels: Tensor, views: CropFlip, *, gradient: Gradient
) -> AugmentedAgreement:
    """Move images and their signs alike, and compare the signs with the gradient at the moved images.

    Args:
        model: the model that the signs are of, in eval mode.
        images: uint8 (n, C, H, W), on the model's device.
        signs: -1, 0 or +1, int8 (n, C, H, W), at the unmoved images.
        labels: the labels for which the signs were computed, int64 (n,).
        views: how each image is moved.
        gradient: which gradient the signs are of.
    """

    def held(rows: slice) -> tuple[Tensor, Tensor]:
        view = views[rows]
        moved, inside = view.apply(signs[rows]), view.apply(torch.ones_like(signs[rows])) == 1
        grad, _ = input_gradient(model, to_unit_range(view.apply(images[rows])), labels[rows], gradient=gradient)
        equal = (grad.sign() == moved) & inside
        gain, _ = compare(grad.flatten(1), moved.flatten(1))
        return equal.flatten(1).sum(1).double() / inside.flatten(1).sum(1), gain

    found = in_microbatches(held, images, model)
    return AugmentedAgreement(
        torch.cat([agreement for agreement, _ in found]).cpu(), torch.cat([gain for _, gain in found]).cpu()
    )
