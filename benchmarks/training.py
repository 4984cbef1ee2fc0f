"""A step of robust training: model A, 64 clean and 64 adversarial images, four sources, one of them the model itself.

Ours is the trainer as it runs, its batches read from a resident dataset and stores, in the precision it chooses here.
Each peer does the same work as its users write it. A forward pass of a batch is 1 unit, backward to inputs 1, backward
to weights 1: training on clean and adversarial images costs 6, crafting live in a pass of its own 2 more. Our live
gradient comes out of the clean images' own passes, but for those that are classified wrong, so that a step of `A_adv`
costs little more than 6, and one of `A_adv-ens` a quarter of that little: the limit is 0.75 against the usual `A_adv`,
and 0.43 against crafting from all sources.

What it does not show: a GPU, or another model; and of the Adversarial Robustness Toolbox only its loop, not what it
computes before it.
"""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.devices import awaited
from benchmarks.digits import dataset_of_digits, random_store
from benchmarks.ratios import Claim, Step, claim, ratios, seconds
from gradshard.pipeline import models
from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models import tramer
from gradshard.pipeline.models.precision import Arithmetic, choose_precision, precision_context
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.optimizers import Adam, Optimization
from gradshard.pipeline.training.trainer import Trainer
from gradshard.pipeline.types import SELF, Mode
from gradshard.storage.formats.dataset import Split
from gradshard.storage.formats.sign_reader import SignStore
from gradshard.storage.streaming.reader import open_reader, plan_reading

BATCH = 64
SOURCES = ("A", "C", "D")
EPSILON = 0.3
STEPS = 4  # of them one is live, for four sources that take turns
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """A model of an architecture, trained on a device on batches of a split, with stores of other sources."""

    split: Split
    stores: Mapping[str, SignStore]
    device: torch.device
    architecture: str = "A"
    batch: int = BATCH

    @property
    def arithmetic(self) -> Arithmetic:
        """The precision that the trainer chooses on the device."""
        return choose_precision("auto", self.device)

    def model(self) -> nn.Module:
        """Return a new model, the same each time."""
        return models.create_model(self.architecture, self.split.sample_shape, self.split.classes, seed=0).to(
            self.device
        )

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return the first batch on the device: pixels in [0, 1], and labels."""
        images, labels = self.split.read_images(0, self.batch), self.split.read_labels(0, self.batch)
        return to_unit_range(torch.from_numpy(images).to(self.device)), torch.from_numpy(labels).to(self.device)


def measure(*, quick: bool = False) -> list[Claim]:
    """Time rounds of a few steps each."""
    with tempfile.TemporaryDirectory() as folder:
        split = dataset_of_digits(Path(folder) / "digits.zarr", rows=512 if quick else 4000)
        setting = Setting(split, random_stores(split, Path(folder)), _CPU)
        peers = {"all": _crafted_from_all(setting), "loop": _plain_loop(split), "art": _art_loop(split)}
        times = seconds(our_steps(setting, compiled=not quick) | peers, repeats=1 if quick else 45)
    return our_claims(setting, times) + _claims_on_peers(f"A_adv-ens ({setting.arithmetic})", times)


def random_stores(split: Split, folder: Path) -> dict[str, SignStore]:
    """Stores of random signs of the sources besides the model itself, made in a folder."""
    return {name: random_store(split, folder, name=name, seed=seed) for seed, name in enumerate(SOURCES)}


def our_steps(setting: Setting, *, compiled: bool) -> dict[str, Step]:
    """Return the steps that need no other library; with a ``compiled`` model or without."""
    steps = {
        "ensemble": _trained(setting, setting.stores),
        "self": _trained(setting, {}),
        "separate": _trained(setting, {}, live_mode="eval"),
        "twice": _trained(setting, {}, known=False),
        "ready": _ready_made(setting),
    }
    return steps | ({"compiled": _trained(setting, setting.stores, compiled=True)} if compiled else {})


def our_claims(setting: Setting, times: Mapping[str, list[float]]) -> list[Claim]:
    """Claims on the times of ``our_steps``."""
    limit = [ready + (live - ready) / 4 for ready, live in zip(times["ready"], times["self"], strict=True)]
    against_limit = [ours / least for ours, least in zip(times["ensemble"], limit, strict=True)]
    alone, arithmetic = f"{setting.architecture}_adv", setting.arithmetic
    name = f"{alone}-ens ({arithmetic})"
    claims = [
        claim(f"{name} over ready-made adversarial batches and the live share", against_limit, target=1.03),
        claim(f"{name} over {alone} with a pass of its own", ratios(times, "ensemble", "separate"), target=0.85),
        claim(f"{name} over our {alone}, which shares the clean passes", ratios(times, "ensemble", "self")),
        claim(f"{alone} ({arithmetic}) over the same with two backward passes", ratios(times, "self", "twice")),
    ]
    if "compiled" in times:
        claims.append(claim(f"{name} with a compiled model over {name}", ratios(times, "compiled", "ensemble")))
    return claims


def _claims_on_peers(name: str, times: Mapping[str, list[float]]) -> list[Claim]:
    return [
        claim(f"{name} over crafting from all sources live", ratios(times, "ensemble", "all"), target=0.5),
        claim(f"{name} over a PyTorch loop with torchattacks (fp32)", ratios(times, "ensemble", "loop"), target=0.4),
        claim(f"{name} over ART's AdversarialTrainer (fp32)", ratios(times, "ensemble", "art"), target=0.4),
    ]


def _trained(
    setting: Setting,
    stores: Mapping[str, SignStore],
    *,
    live_mode: Mode = "train",
    compiled: bool = False,
    known: bool = True,
) -> Step:
    """Return ours: the trainer over its reader. In the mode ``eval`` the live gradient has a pass of its own.

    Of a model that is not ``known`` to treat rows by themselves, it has a backward pass of its own.
    """
    split = setting.split
    reading = plan_reading(split, stores, memory=1 << 32)
    adversary = Adversary(
        attack="fgsm",
        epsilon=EPSILON,
        alpha=0.05,
        clean_weight=0.5,
        sources=(SELF, *stores),
        schedule="rotate",
        gradient="exact",
        policy="predicted",
        live_mode=live_mode,
        directions=dict.fromkeys(stores, 1),
    )
    run = TrainingRun(
        rows=len(split) // setting.batch * setting.batch,
        batch=setting.batch,
        epochs=10_000,
        seed=0,
        optimization=Optimization("adam", 1e-3),
        reading=reading,
        adversary=adversary,
    )
    model = setting.model() if known else _Unknown(setting.model())
    trainer = Trainer(model, run, device=setting.device, arithmetic=setting.arithmetic, compiled=compiled)
    steps = trainer.steps(open_reader(split, stores, reading))
    return awaited(lambda: [next(steps) for _ in range(STEPS)], setting.device)


class _Unknown(nn.Module):
    """The same model, of which nobody knows what it does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


def _ready_made(setting: Setting) -> Step:
    """Return the training alone: adversarial images lie in memory."""
    model, (images, labels) = setting.model().train(), setting.rows()
    optimizer = Adam(model)
    both = torch.cat([images, images])

    def step() -> None:
        _train_on(model, both, labels, setting)
        optimizer.step(1e-3)

    return awaited(_repeated(step), setting.device)


def _crafted_from_all(setting: Setting) -> Step:
    """Return a step as the original code does it: every source crafts for every batch, and one is used."""
    model, (images, labels) = setting.model().train(), setting.rows()
    others = [replace(setting, architecture=name).model() for name in SOURCES]
    statics = [model.eval().requires_grad_(False) for model in others]
    optimizer = Adam(model)

    def step() -> None:
        with precision_context(setting.arithmetic, setting.device):
            crafted = [fgsm(source, images, labels, epsilon=EPSILON) for source in (model, *statics)]
        _train_on(model, torch.cat([images, crafted[1]]), labels, setting)
        optimizer.step(1e-3)

    return awaited(_repeated(step), setting.device)


def _train_on(model: nn.Module, both: Tensor, labels: Tensor, setting: Setting) -> None:
    """Add the gradients of a batch of clean and adversarial images, (2n, C, H, W), to those of the parameters."""
    with precision_context(setting.arithmetic, setting.device):
        logits = model(both).float()
    loss = 0.5 * functional.cross_entropy(logits[: setting.batch], labels)
    loss = loss + 0.5 * functional.cross_entropy(logits[setting.batch :], labels)
    torch.autograd.backward(loss)


def _plain_loop(split: Split) -> Step:
    """Standard adversarial training as people write it: eager, fp32, default layout, FGSM by torchattacks."""
    import torchattacks

    model, (images, labels) = tramer.build("A", split.sample_shape, split.classes, seed=0), _batch(split)
    optimizer = torch.optim.Adam(model.parameters())
    attack = torchattacks.FGSM(model, eps=EPSILON)

    def step() -> None:
        adversarial = attack(images, labels)
        model.train()
        optimizer.zero_grad()
        loss = 0.5 * functional.cross_entropy(model(images), labels)
        loss = loss + 0.5 * functional.cross_entropy(model(adversarial), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return _repeated(step)


def _art_loop(split: Split) -> Step:
    """Return a step of the Adversarial Robustness Toolbox: half of every 128 images are replaced by FGSM examples."""
    from art.attacks.evasion import FastGradientMethod
    from art.defences.trainer import AdversarialTrainer
    from art.estimators.classification import PyTorchClassifier

    logging.getLogger("art").setLevel(logging.ERROR)
    model, (images, labels) = tramer.build("A", split.sample_shape, split.classes, seed=0), _batch(split)
    classifier = PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(model.parameters()),
        input_shape=split.sample_shape,
        nb_classes=split.classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    trainer = AdversarialTrainer(classifier, FastGradientMethod(classifier, eps=EPSILON), ratio=0.5)
    batches = images.repeat(2 * STEPS, 1, 1, 1).numpy()
    targets = functional.one_hot(labels, 10).float().repeat(2 * STEPS, 1).numpy()
    return lambda: trainer.fit(batches, targets, batch_size=2 * BATCH, nb_epochs=1)


def _repeated(step: Step) -> Step:
    return lambda: [step() for _ in range(STEPS)]


def _batch(split: Split) -> tuple[Tensor, Tensor]:
    images, labels = split.load()
    return to_unit_range(torch.from_numpy(images[:BATCH])), torch.from_numpy(labels[:BATCH])


if __name__ == "__main__":
    for found in measure():
        print(found.line())
