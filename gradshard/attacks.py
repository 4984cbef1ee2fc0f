"""The attacks, all with one signature, on any model that maps images in [0, 1] to logits."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.crafting import craft_by_name, sample_noise
from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.types import EvaluationLabel, Gradient
from gradshard.storage.errors import GradshardError


@dataclass(frozen=True)
class Attack:
    """An attack by its name in ``ATTACKS``; all share one signature, and each leaves alone what it has no use for."""

    name: str
    does: str

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float,
        alpha: float | None = None,
        steps: int | None = None,
        restarts: int = 1,
        gradient: Gradient = "exact",
        label: EvaluationLabel = "true",
        seed: int = 0,
    ) -> Tensor:
        """Craft adversarial examples.

        Args:
            model: maps images to logits (N, classes), in the mode that it is attacked in.
            images: float (N, C, H, W) in [0, 1], on the model's device.
            labels: the true labels, int64 (N,).
            epsilon: how far a pixel may move, in units of pixels in [0, 1].
            alpha: of RAND+FGSM: its random step, by default half of epsilon.
            steps: of I-FGSM and MI-FGSM (by default 10), PGD and C&W (40).
            restarts: of PGD and C&W: from so many random starts.
            gradient: ``exact``, whose signs do not suffer from rounding, or ``cross_entropy`` as the paper computed it.
            label: step away from the ``true`` label, or of FGSM, I-FGSM and RAND+FGSM towards the ``least_likely`` one.
            seed: of whatever is random.

        Returns:
            Float (N, C, H, W) in [0, 1], at most epsilon from the images.

        Raises:
            GradshardError: the images are no pixels in [0, 1].
        """
        check_pixels(images)
        config = attack_config(epsilon=epsilon, alpha=alpha, steps=steps, restarts=restarts)
        noise = sample_noise(images.shape, restarts, generator=torch.Generator().manual_seed(seed))
        return craft_by_name(
            self.name,
            model,
            images,
            labels,
            strength=config,
            draws=noise.to(images.device),
            gradient=gradient,
            policy=label,
        )


def attack_config(
    *, epsilon: float, alpha: float | None = None, steps: int | None = None, restarts: int = 1
) -> AttackConfig:
    """Return what attacks may do, with the defaults of ``Attack`` filled in."""
    return AttackConfig(
        epsilon=epsilon,
        alpha=epsilon / 2 if alpha is None else alpha,
        steps=steps or 10,
        pgd_steps=steps or 40,
        restarts=restarts,
    )


def check_pixels(images: Tensor) -> None:
    """Refuse images that are no float pixels in [0, 1].

    Raises:
        GradshardError: they are not; the sentence names the remedy.
    """
    if not images.is_floating_point():
        raise GradshardError(f"images are {images.dtype}, not float pixels in [0, 1]: divide them by 255")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise GradshardError(
            f"pixels run from {low:.4g} to {high:.4g} and not from 0 to 1: normalise inside the model, so that epsilon "
            "keeps its unit"
        )


fgsm = Attack("fgsm", "Step once along the signed gradient (FGSM, section 2.2).")
iterative_fgsm = Attack("ifgsm", "Step along the signed gradient several times (I-FGSM, section 2.2).")
rand_fgsm = Attack("rand_fgsm", "Step at random, then along the signed gradient (RAND+FGSM, section 4).")
mi_fgsm = Attack("mifgsm", "Step along the sum of past gradients (MI-FGSM, Dong et al. 2018).")
pgd = Attack("pgd", "Climb inside the ball from random starts (PGD, Madry et al. 2018).")
cw = Attack("cw", "Climb the margin of Carlini and Wagner (2017) inside the ball.")
autoattack = Attack("autoattack", "Run the standard ensemble of Croce and Hein (2020); needs the extra autoattack.")
