"""Attacks of other libraries, by their names there: ``torchattacks:DIFGSM``, ``foolbox:LinfPGD``, ``art:...``.

Libraries differ in how they take a model, labels and the radius; an attack's other arguments are passed on unchanged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradshard.pipeline import plugins
from gradshard.storage.errors import GradshardError

Arguments = Mapping[str, Any]
# Maps an attack's class, model, images, labels, epsilon and arguments to adversarial examples.
Craft = Callable[[Callable[..., Any], nn.Module, Tensor, Tensor, float, Arguments], Tensor]


@dataclass(frozen=True)
class Library:
    """A library: its distribution, the module of its attacks, and the function that crafts with one of them.

    ``positional`` is the number of positional arguments of an attack's constructor, ``epsilon`` the radius's keyword.
    """

    distribution: str
    module: str
    craft: Craft
    positional: int = 0
    epsilon: str | None = None

    @property
    def version(self) -> str:
        """The distribution and its installed version."""
        return f"{self.distribution} {metadata.version(self.distribution)}"

    def find(self, name: str, *, what: str) -> Callable[..., Any]:
        """Import the class of an attack.

        Raises:
            GradshardError: the library is not installed, or has no such attack.
        """
        return plugins.find(f"{self.module}:{name}", what=what)

    def check(self, name: str, arguments: Arguments, *, what: str) -> None:
        """Refuse an attack that is missing, or that takes other arguments.

        Raises:
            GradshardError: the attack is missing, takes other arguments, or takes no radius of an L-infinity ball.
        """
        attack, epsilon = self.find(name, what=what), {self.epsilon: 0.0} if self.epsilon else {}
        if self.epsilon and not plugins.takes(attack, self.epsilon):
            raise GradshardError(
                f"{what}: it takes no {self.epsilon}, but stores and errors are of moves within an L-infinity ball: "
                "name an attack that takes one"
            )
        plugins.check_call(attack, {**epsilon, **arguments}, what=what, positional=self.positional)


def _torchattacks(
    kind: Callable[..., Any], model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, arguments: Arguments
) -> Tensor:
    examples: Tensor = kind(model, eps=epsilon, **arguments)(images, labels)
    return examples


def _foolbox(
    kind: Callable[..., Any], model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, arguments: Arguments
) -> Tensor:
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    _, examples, _ = kind(**arguments)(wrapped, images, labels, epsilons=epsilon)
    clipped: Tensor = examples
    return clipped


def _art(
    kind: Callable[..., Any], model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, arguments: Arguments
) -> Tensor:
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        tuple(images.shape[1:]),
        classes,
        clip_values=(0, 1),
        device_type="gpu" if images.device.type == "cuda" else "cpu",
    )
    quiet = {"verbose": False} if "verbose" in getattr(kind, "attack_params", ()) else {}
    attack = kind(classifier, eps=epsilon, **{**quiet, **arguments})
    examples = attack.generate(images.cpu().numpy(), np.eye(classes, dtype=np.float32)[labels.cpu().numpy()])
    return torch.from_numpy(examples).to(images.device)


LIBRARIES: Mapping[str, Library] = {
    "torchattacks": Library("torchattacks", "torchattacks", _torchattacks, positional=1, epsilon="eps"),
    "foolbox": Library("foolbox", "foolbox.attacks", _foolbox),
    "art": Library("adversarial-robustness-toolbox", "art.attacks.evasion", _art, positional=1, epsilon="eps"),
}
