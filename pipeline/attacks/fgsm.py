"""FGSM, I-FGSM (section 2.2) and RAND+FGSM (section 4).

Images are float tensors (N, C, H, W) in [0, 1]; epsilon and alpha are in the same units; every adversarial example is
clipped to [0, 1]. A model is used in the mode it is in, and its parameters' ``grad`` stays untouched.
"""

from torch import Tensor, nn

from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import perturb, project
from gradshard.pipeline.types import Gradient


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor,
    gradient: Gradient = "exact",
    targeted: bool = False,
) -> Tensor:
    """Craft by FGSM (section 2.2): one step of epsilon away from the labels or, if ``targeted``, towards them."""
    grad, _ = input_gradient(model, images, labels, gradient=gradient)
    signs = grad.sign()
    return perturb(images, -signs if targeted else signs, epsilon)


def iterative_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    steps: int,
    gradient: Gradient = "exact",
    targeted: bool = False,
) -> Tensor:
    """Craft by I-FGSM (section 2.2): ``steps`` times FGSM with epsilon / steps, clipped to [0, 1] each time."""
    adversarial = images
    for _ in range(steps):
        adversarial = fgsm(model, adversarial, labels, epsilon=epsilon / steps, gradient=gradient, targeted=targeted)
    # The rounding of the steps adds up.
    return project(adversarial, images, epsilon)


def rand_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    alpha: float,
    noise: Tensor,
    gradient: Gradient = "exact",
    targeted: bool = False,
) -> Tensor:
    """Craft by RAND+FGSM (section 4): a random step of alpha, then FGSM with epsilon - alpha; epsilon is the total.

    ``noise`` holds the signs of the random step, -1 or +1, in the images' shape; see ``random_signs``.
    """
    moved = perturb(images, noise, alpha)
    return fgsm(model, moved, labels, epsilon=epsilon - alpha, gradient=gradient, targeted=targeted)
