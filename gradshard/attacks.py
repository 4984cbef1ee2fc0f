"""The attacks, all with one signature, on any model that maps images in [0, 1] to logits."""

from dataclasses import dataclass

from torch import Tensor, nn

from gradshard.arguments import (
    attack_config,
    check_gradients,
    check_labels,
    check_pixels,
    check_words,
    count_classes,
    seeded,
)
from gradshard.pipeline.attacks.crafting import craft_by_name, sample_noise
from gradshard.pipeline.attacks.registry import ATTACKS
from gradshard.pipeline.gradients.model_checks import Sample, check_differentiable
from gradshard.pipeline.gradients.watching import Watched
from gradshard.pipeline.types import EvaluationLabel, Gradient

# Images that a model is tried on before an attack; one alone may sum to one by chance.
_TRIED = 2


@dataclass(frozen=True)
class Attack:
    """An attack by its name in ``ATTACKS``; all share one signature, and each ignores what it does not use."""

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
            alpha: the random step of RAND+FGSM, at most epsilon; by default half of epsilon.
            steps: the number of steps of I-FGSM and MI-FGSM (by default 10), PGD and C&W (40).
            restarts: the number of random starts of PGD and C&W.
            gradient: ``exact``, whose signs do not suffer from rounding, or ``cross_entropy`` as the paper computed it.
            label: ``true`` steps away from the true label; ``least_likely`` lets FGSM, I-FGSM and RAND+FGSM step
                towards that class.
            seed: the seed of all random draws.

        Returns:
            Float (N, C, H, W) in [0, 1], at most epsilon from the images.

        Raises:
            GradshardError: the images are not pixels in [0, 1] or do not fit the model, the labels do not fit the
                images, the model gives no logits, changes its input or has no gradient or one that is NaN or infinite,
                or another argument is not valid.
        """
        check_pixels(images)
        check_words(gradient, label)
        config = attack_config(epsilon=epsilon, alpha=alpha, steps=steps, restarts=restarts)
        classes = count_classes(model, images)
        check_labels(labels, images, classes=classes)
        images = images.detach()
        check_differentiable(model, Sample(images[:_TRIED], labels[:_TRIED], classes), where="the model")
        noise = sample_noise(images.shape, config.restarts, generator=seeded(seed))
        watched = Watched(model)
        examples = craft_by_name(
            self.name,
            watched,
            images,
            labels,
            strength=config,
            draws=noise.to(images.device),
            gradient=gradient,
            policy=label if ATTACKS[self.name].targeted else "true",
        )
        check_gradients({"the model": watched})
        return examples


fgsm = Attack("fgsm", "Step once along the signed gradient (FGSM, section 2.2).")
iterative_fgsm = Attack("ifgsm", "Step along the signed gradient several times (I-FGSM, section 2.2).")
rand_fgsm = Attack("rand_fgsm", "Step at random, then along the signed gradient (RAND+FGSM, section 4).")
mi_fgsm = Attack("mifgsm", "Step along the sum of past gradients (MI-FGSM, Dong et al. 2018).")
pgd = Attack("pgd", "Climb inside the ball from random starts (PGD, Madry et al. 2018).")
cw = Attack("cw", "Climb the margin of Carlini and Wagner (2017) inside the ball.")
autoattack = Attack("autoattack", "Run the standard ensemble of Croce and Hein (2020); needs the extra autoattack.")
