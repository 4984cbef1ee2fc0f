"""The attacks of foolbox, torchattacks and the Adversarial Robustness Toolbox, set up to compute what ours do.

Each function returns the images (N, C, H, W) after ``climb.steps`` steps; its docstring says where definitions differ.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import eagerpy
import foolbox
import numpy as np
import torch
import torchattacks
from art.attacks.evasion import BasicIterativeMethod, FastGradientMethod, MomentumIterativeMethod
from art.estimators.classification import PyTorchClassifier
from foolbox.attacks.carlini_wagner import best_other_classes
from torch import Tensor, nn


@dataclass(frozen=True)
class Climb:
    """Task of an attack: ``steps`` steps of size ``step`` within ``epsilon``, from ``start``.

    ``noise`` are the signs of a first random step of epsilon / 2 (RAND+FGSM), which torchattacks draws by ``seed``;
    ``targeted`` says that the labels are to be approached.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    epsilon: float
    step: float
    steps: int
    start: Tensor
    noise: Tensor
    seed: int = 0
    targeted: bool = False


Peer = Callable[[Climb], Tensor]


class _FromStart(foolbox.attacks.LinfProjectedGradientDescentAttack):
    """Foolbox's PGD, from a given start."""

    def __init__(self, climb: Climb) -> None:
        super().__init__(abs_stepsize=climb.step, steps=climb.steps, random_start=True)
        self.start = climb.start

    def get_random_start(self, x0: eagerpy.Tensor, epsilon: float) -> eagerpy.Tensor:
        return eagerpy.astensor(self.start)


class _Hinge(_FromStart):
    """The same, with the best other class as foolbox itself chooses it."""

    def get_loss_fn(self, model: foolbox.Model, labels: eagerpy.Tensor) -> Callable[[eagerpy.Tensor], eagerpy.Tensor]:
        def loss(inputs: eagerpy.Tensor) -> eagerpy.Tensor:
            logits, rows = model(inputs), range(len(inputs))
            return (logits[rows, best_other_classes(logits, labels)] - logits[rows, labels]).sum()

        return loss


def _foolbox(attack: foolbox.attacks.base.FixedEpsilonAttack, climb: Climb, epsilon: float, images: Tensor) -> Tensor:
    criteria = foolbox.criteria.TargetedMisclassification if climb.targeted else foolbox.criteria.Misclassification
    model = foolbox.PyTorchModel(climb.model, bounds=(0, 1), device=images.device)
    return attack.run(model, images, criteria(climb.labels), epsilon=epsilon).detach()


def foolbox_fgsm(climb: Climb) -> Tensor:
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    return _foolbox(attack, climb, climb.epsilon, climb.images)


def foolbox_fgsm_after_the_random_step(climb: Climb) -> Tensor:
    """Craft from the moved image with the epsilon that is left: foolbox's own start is uniform and costs no epsilon."""
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    return _foolbox(attack, climb, climb.epsilon / 2, climb.start)


def foolbox_bim(climb: Climb) -> Tensor:
    attack = foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=climb.step, steps=climb.steps)
    return _foolbox(attack, climb, climb.epsilon, climb.images)


def foolbox_pgd(climb: Climb) -> Tensor:
    return _foolbox(_FromStart(climb), climb, climb.epsilon, climb.images)


def foolbox_hinge(climb: Climb) -> Tensor:
    return _foolbox(_Hinge(climb), climb, climb.epsilon, climb.images)


def _torchattacks(attack: torchattacks.attack.Attack, climb: Climb) -> Tensor:
    torch.manual_seed(climb.seed)
    return attack(climb.images, climb.labels)


def torchattacks_fgsm(climb: Climb) -> Tensor:
    return _torchattacks(torchattacks.FGSM(climb.model, eps=climb.epsilon), climb)


def torchattacks_rfgsm(climb: Climb) -> Tensor:
    """Craft with a gradient step of alpha, not epsilon - alpha: the paper's attack only at alpha = epsilon / 2."""
    attack = torchattacks.RFGSM(climb.model, eps=climb.epsilon, alpha=climb.epsilon / 2, steps=1)
    return _torchattacks(attack, climb)


def torchattacks_bim(climb: Climb) -> Tensor:
    attack = torchattacks.BIM(climb.model, eps=climb.epsilon, alpha=climb.step, steps=climb.steps)
    return _torchattacks(attack, climb)


def torchattacks_mifgsm(climb: Climb) -> Tensor:
    """Craft with gradients over the mean of |gradient|, not the sum (Dong et al.): a constant factor turns no sign."""
    attack = torchattacks.MIFGSM(climb.model, eps=climb.epsilon, alpha=climb.step, steps=climb.steps, decay=1.0)
    return _torchattacks(attack, climb)


def torchattacks_pgd(climb: Climb) -> Tensor:
    attack = torchattacks.PGD(climb.model, eps=climb.epsilon, alpha=climb.step, steps=climb.steps, random_start=True)
    return _torchattacks(attack, climb)


def _art(kind: type, climb: Climb, **options: float) -> Tensor:
    # The toolbox changes the mode of a model, so it gets a copy.
    classifier = PyTorchClassifier(
        copy.deepcopy(climb.model), nn.CrossEntropyLoss(), climb.images.shape[1:], 10, clip_values=(0, 1)
    )
    attack = kind(classifier, eps=climb.epsilon, targeted=climb.targeted, batch_size=len(climb.images), **options)
    return torch.from_numpy(attack.generate(climb.images.numpy(), np.eye(10)[climb.labels]))


def art_fgsm(climb: Climb) -> Tensor:
    return _art(FastGradientMethod, climb)


def art_bim(climb: Climb) -> Tensor:
    return _art(BasicIterativeMethod, climb, eps_step=climb.step, max_iter=climb.steps, verbose=False)


def art_mim(climb: Climb) -> Tensor:
    return _art(MomentumIterativeMethod, climb, eps_step=climb.step, max_iter=climb.steps, decay=1.0, verbose=False)
