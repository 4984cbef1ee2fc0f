"""Small models whose gradients do or do not show their weakness, each for a known reason; trained in seconds.

The functions of ``sample_shape`` and ``classes`` are factories that ``package.module:factory`` can name.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradshard as gs
from gradshard.pipeline.attacks.fgsm import rand_fgsm
from gradshard.pipeline.attacks.pgd import iterate_linf
from gradshard.pipeline.evaluation.examination import Examination
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.gradients.perturb import random_signs
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.types import Gradient
from tests.helpers.trained import train_on

EPSILON, ALPHA = 0.3, 0.15
TEMPERATURE = 100.0
_STEEPEST = 1000.0
_PGD_STEPS = 7
_BATCH, _RATE = 50, 2e-3
_SHAPE, _CLASSES = (1, 28, 28), 10

Shape = tuple[int, int, int]
# Given a model, images, labels, the share of training that is done, and a generator: the images to train on.
Perturbed = Callable[[nn.Module, Tensor, Tensor, float, torch.Generator], Tensor]


def cnn(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network of two convolutions and two dense layers."""
    return _network(sample_shape, classes, last=nn.ReLU)


def distilled(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network with logits 100 times as large, as training at temperature 100 gives (Papernot et al. 2016)."""
    return nn.Sequential(cnn(sample_shape=sample_shape, classes=classes), _Times(TEMPERATURE))


def saturated(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network with units at the ends of their tanh, where Nayebi and Ganguli 2017 drive them by a penalty."""
    return _network(sample_shape, classes, last=_Steep)


def quantised(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network that sees eight levels of grey."""
    return nn.Sequential(_Levels(7), cnn(sample_shape=sample_shape, classes=classes))


def stochastic(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network behind noise, which differs for images that differ in a bit."""
    return nn.Sequential(_Noise(0.5), cnn(sample_shape=sample_shape, classes=classes))


def random_each_pass(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network behind noise that differs in every pass, which is refused."""
    return nn.Sequential(_Dropping(), cnn(sample_shape=sample_shape, classes=classes))


def probabilities(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network with a softmax at the end."""
    return nn.Sequential(cnn(sample_shape=sample_shape, classes=classes), nn.Softmax(1))


def eleven_classes(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network with one class too many."""
    return cnn(sample_shape=sample_shape, classes=classes + 1)


def without_gradient(*, sample_shape: Shape, classes: int) -> nn.Module:
    """Return a network behind something that is not differentiable."""
    return nn.Sequential(_Detached(), cnn(sample_shape=sample_shape, classes=classes))


class Forest(nn.Module):
    """A random forest as a module, with logits but without a gradient."""

    def __init__(self, digits: dict, *, trees: int = 100) -> None:
        super().__init__()
        from sklearn.ensemble import RandomForestClassifier

        images, labels = digits["train"]
        self._forest = RandomForestClassifier(n_estimators=trees, random_state=0)
        self._forest.fit(images.reshape(len(images), -1) / np.float32(255), labels)

    def forward(self, images: Tensor) -> Tensor:
        shares = self._forest.predict_proba(images.detach().flatten(1).numpy())
        return torch.from_numpy(shares + 1e-6).log().float()


def train(
    factory: Callable[..., nn.Module],
    digits: dict,
    *,
    epochs: int,
    seed: int,
    perturbed: Perturbed | None = None,
    beside_clean: bool = False,
    temperature: float = 1.0,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """Train a member of the zoo on the 4,000 training digits; return it frozen, in eval mode.

    With ``beside_clean`` the loss is the mean over perturbed and clean images; with a teacher, its softened
    probabilities take the place of labels.
    """
    images, labels = to_unit_range(torch.from_numpy(digits["train"][0])), torch.from_numpy(digits["train"][1]).long()
    targets = labels if teacher is None else (teacher(images) / temperature).softmax(1)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = factory(sample_shape=_SHAPE, classes=_CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    batches = -(-len(images) // _BATCH)
    for epoch in range(epochs):
        for number, rows in enumerate(torch.randperm(len(images), generator=generator).split(_BATCH)):
            done = (epoch + number / batches) / epochs
            optimizer.param_groups[0]["lr"] = _RATE * min(1.0, 2 * (1 - done) + 0.02)
            x, y = images[rows], labels[rows]
            moved = x if perturbed is None else perturbed(model, x, y, done, generator)
            _steepen(model, done)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(moved) / temperature, targets[rows])
            if beside_clean:
                loss = (loss + functional.cross_entropy(model(x), y)) / 2
            loss.backward()
            optimizer.step()
    _steepen(model, 1.0)
    return model.eval().requires_grad_(False)


def unseen(digits: dict, *, rows: int) -> tuple[Tensor, Tensor]:
    """Return the first test digits, float32 (rows, 1, 28, 28) in [0, 1], and their labels."""
    images, labels = (torch.from_numpy(part[:rows]) for part in digits["test"])
    return to_unit_range(images), labels.long()


MEMBERS: Mapping[str, Callable[[dict], nn.Module]] = {
    "A": lambda digits: train_on(digits, "A", seed=1),
    "PGD": lambda digits: train(cnn, digits, epochs=8, seed=3, perturbed=pgd_examples),
    "distilled": lambda digits: distil(digits),
    "saturated": lambda digits: train(saturated, digits, epochs=6, seed=3),
    "quantised": lambda digits: train(quantised, digits, epochs=4, seed=3),
    "stochastic": lambda digits: train(stochastic, digits, epochs=8, seed=3),
    "RAND+FGSM": lambda digits: train(cnn, digits, epochs=20, seed=3, perturbed=rand_fgsm_examples, beside_clean=True),
}
GRADIENTS: Sequence[Gradient] = ("exact", "cross_entropy")
_STRONG = ("pgd", "autoattack")


@dataclass(frozen=True)
class Measured:
    """A member examined on test digits with each gradient, and its error on the first tenth under strong attacks."""

    examined: Mapping[str, Examination]
    strong: Mapping[str, ErrorRate]


def source(digits: dict) -> nn.Module:
    """Train the model whose examples are transferred."""
    return train(cnn, digits, epochs=4, seed=1)


def measure(member: str, source: nn.Module, digits: dict) -> Measured:
    """Train and examine a member; PGD follows the exact gradient, AutoAttack its own losses."""
    # A takes thirty times as long as the others.
    model, rows = MEMBERS[member](digits), 300 if member == "A" else 1000
    examined = {
        gradient: gs.examine(
            model,
            *unseen(digits, rows=rows),
            epsilon=EPSILON,
            sources={"S": source},
            attacks=("fgsm", "rand_fgsm", "ifgsm"),
            transferred=("fgsm",),
            gradient=gradient,
        )
        for gradient in GRADIENTS
    }
    tenth = unseen(digits, rows=rows // 10)
    found = gs.evaluate({"self": model}, *tenth, attacks=_STRONG, epsilon=EPSILON)
    return Measured(examined, {result.attack: result.error for result in found})


def distil(digits: dict) -> nn.Module:
    """Train a student on a teacher's probabilities, both at the temperature 100 (defensive distillation)."""
    teacher = train(distilled, digits, epochs=4, seed=3, temperature=TEMPERATURE)
    return train(distilled, digits, epochs=4, seed=4, temperature=TEMPERATURE, teacher=teacher)


def pgd_examples(model: nn.Module, x: Tensor, y: Tensor, done: float, generator: torch.Generator) -> Tensor:
    """Craft PGD examples (Madry et al. 2018), whose epsilon grows during the first half."""
    epsilon = EPSILON * min(1.0, 2 * done)
    start = x + epsilon * (2 * torch.rand(x.shape, generator=generator) - 1)
    return iterate_linf(model, x, y, start=start, epsilon=epsilon, step=epsilon / 4, steps=_PGD_STEPS)


def rand_fgsm_examples(model: nn.Module, x: Tensor, y: Tensor, done: float, generator: torch.Generator) -> Tensor:
    """Craft RAND+FGSM examples, away from the prediction (section 4)."""
    with torch.no_grad():
        predicted = model(x).argmax(1)
    noise = random_signs(x.shape, generator=generator)
    return rand_fgsm(model, x, predicted, epsilon=EPSILON, alpha=ALPHA, noise=noise)


def _network(shape: Shape, classes: int, *, last: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 100),
        last(),
        nn.Linear(100, classes),
    )


def _steepen(model: nn.Module, done: float) -> None:
    """Raise the steepness, by the same factor each step, from 1 to its end."""
    for module in model.modules():
        if isinstance(module, _Steep):
            module.steepness.fill_(_STEEPEST**done)


class _Steep(nn.Module):
    """A tanh whose steepness is kept with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steepness", torch.tensor(1.0))

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.steepness * features)


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return self.factor * logits


class _Levels(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, images: Tensor) -> Tensor:
        return (self.steps * images).round() / self.steps


class _Noise(nn.Module):
    """Normal noise by a generator that the image's own bytes seed."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, images: Tensor) -> Tensor:
        seeds = [zlib.crc32(image.detach().cpu().numpy().tobytes()) for image in images]
        drawn = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return images + self.deviation * torch.stack(drawn).to(images.device)


class _Dropping(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return functional.dropout(images, 0.5, training=True)


class _Detached(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.detach()
