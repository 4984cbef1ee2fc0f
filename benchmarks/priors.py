"""Two ways to keep every image's last perturbation: as signs, two bits a pixel, or in float32 as methods' authors do.

Both go through the same trainer, model A on 64 digits a step, and differ in what is read, encoded and written back.
How often a stored sign is not the perturbation that a float buffer holds is counted after some epochs with the float
buffer, on all digits at an epsilon of 0.3, nearly all of whose pixels are within epsilon of black or white, and on
pieces of photographs at 8/255: the perturbation there is compared with what the sign gives, clipped to [0, 1].

What it does not show: a GPU, where the buffers would lie beside the model.
"""

import tempfile
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks.digits import dataset_of_digits
from benchmarks.float_buffer import FloatBuffer
from benchmarks.ratios import Claim, Step, claim, ratios, seconds
from gradshard.pipeline import models
from gradshard.pipeline.gradients.perturb import nearest_signs, perturb
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import Arithmetic, choose_precision
from gradshard.pipeline.training.adversary import Adversary
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.distributed import Rank
from gradshard.pipeline.training.methods.registry import METHODS
from gradshard.pipeline.training.optimizers import Optimization
from gradshard.pipeline.training.priors import Kept, SignBuffer
from gradshard.pipeline.training.trainer import Trainer
from gradshard.pipeline.types import SELF, MethodName
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.formats.prior_store import PriorStore
from gradshard.storage.streaming.reader import open_reader, plan_reading

Buffer = TypeVar("Buffer", SignBuffer, FloatBuffer)

BATCH = 64
STEPS = 4
_CPU = torch.device("cpu")
_TITLES: dict[MethodName, str] = {"fgsm_ep": "FGSM-EP", "fgsm_pgi": "FGSM-PGI"}


def measure(*, quick: bool = False) -> list[Claim]:
    """Time rounds of a few steps each, then count bytes and pixels."""
    arithmetic = choose_precision("auto", _CPU)
    with tempfile.TemporaryDirectory() as folder:
        digits = dataset_of_digits(Path(folder) / "digits.zarr", rows=512 if quick else 4000)
        photographs = _photographs(Path(folder) / "photographs.zarr")
        epochs = 1 if quick else 10
        return [
            *_bytes(digits, Path(folder)),
            *_steps(digits, arithmetic, repeats=1 if quick else 25),
            _differing("digits at 0.3", digits, "small_cnn", 0.3, epochs),
            _differing("photographs at 8/255", photographs, "small_cnn", 8 / 255, epochs),
        ]


def _bytes(split: Split, folder: Path) -> list[Claim]:
    """Compare bytes in memory and, of random signs, which nothing compresses well, on the disk."""
    signs, floats = _filled(SignBuffer, split), _filled(FloatBuffer, split)
    rows = np.arange(len(split))
    PriorStore(folder / "priors", rows=len(split), pixels=signs.pixels).save(1, signs.held, rows)
    stored = sum(path.stat().st_size for path in (folder / "priors").rglob("*") if path.is_file())
    return [
        claim("bytes in memory, signs over floats", [signs.planes.nbytes / floats.values.nbytes], target=1 / 16),
        claim("bytes on the disk over floats in memory", [stored / floats.values.nbytes], target=1 / 16),
    ]


def _steps(split: Split, arithmetic: Arithmetic, *, repeats: int) -> list[Claim]:
    steps = {}
    for name in _TITLES:
        steps[f"{name} signs"] = _trained(split, name, SignBuffer, arithmetic)
        steps[f"{name} floats"] = _trained(split, name, FloatBuffer, arithmetic)
    times = seconds(steps, repeats=repeats)
    return [
        claim(
            f"a step of {title} ({arithmetic}), signs over floats",
            ratios(times, f"{name} signs", f"{name} floats"),
            target=1.1,
        )
        for name, title in _TITLES.items()
    ]


def _trained(split: Split, name: MethodName, kind: type[Buffer], arithmetic: Arithmetic) -> Step:
    """Some steps of a run that is in its second epoch, where the priors are read."""
    trainer = make_trainer(split, name, "A", epsilon=0.3, arithmetic=arithmetic)
    trainer.method.prior = _filled(kind, split)
    trainer.step = trainer.run.steps_per_epoch
    steps = trainer.steps(open_reader(split, {}, trainer.run.reading))
    return lambda: [next(steps) for _ in range(STEPS)]


def _differing(what: str, split: Split, architecture: str, epsilon: float, epochs: int) -> Claim:
    """Train with a float buffer, and count the pixels whose perturbation the nearest sign does not give."""
    trainer = make_trainer(split, "fgsm_ep", architecture, epsilon=epsilon, epochs=epochs)
    floats = FloatBuffer(len(split), split.sample_shape, device=_CPU)
    trainer.method.prior = floats
    for _ in trainer.steps(open_reader(split, {}, trainer.run.reading)):
        pass
    images = to_unit_range(torch.from_numpy(split.load()[0]))
    perturbed = images + epsilon * floats.values
    stored = perturb(images, nearest_signs(images, perturbed, epsilon), epsilon)
    share = ((stored - perturbed).abs() > 1e-5).float().mean().item()
    return claim(f"share of pixels whose sign is not the float, {what}, {epochs} epochs of FGSM-EP", [share])


def _filled(kind: type[Buffer], split: Split) -> Buffer:
    """Return a buffer of random signs, a tenth of them 0."""
    buffer = kind(len(split), split.sample_shape, device=_CPU)
    draws = np.random.default_rng(0)
    shape = (len(split), *split.sample_shape)
    signs = draws.choice(np.array([-1, 0, 1], dtype=np.float32), shape, p=[0.45, 0.1, 0.45])
    buffer.write(Kept(np.arange(len(split)), torch.from_numpy(signs)), len(split), Rank())
    return buffer


def make_trainer(
    split: Split,
    name: MethodName,
    architecture: str,
    *,
    epsilon: float,
    epochs: int = 10_000,
    seed: int = 0,
    prior_weight: float | None = None,
    arithmetic: Arithmetic = "fp32",
) -> Trainer:
    """Make the trainer of a robust model by one method; its prior, if it has one, never starts at random again."""
    settings = {"reset_epochs": 10_000} if METHODS[name].prior else {}
    weight = {} if prior_weight is None else {"prior_weight": prior_weight}
    adversary = Adversary(
        attack="fgsm",
        epsilon=epsilon,
        alpha=0.0,
        clean_weight=0.0,
        sources=(SELF,),
        schedule="random",
        gradient="exact",
        policy="true",
        live_mode="train",
        directions={},
        method=name,
        settings={**settings, **weight},
    )
    run = TrainingRun(
        rows=len(split),
        batch=BATCH,
        epochs=epochs,
        seed=seed,
        optimization=Optimization("adam", 1e-3),
        reading=plan_reading(split, {}, memory=1 << 32),
        adversary=adversary,
        sample_shape=split.sample_shape,
    )
    model = models.create_model(architecture, split.sample_shape, split.classes, seed=seed)
    return Trainer(model, run, device=_CPU, arithmetic=arithmetic)


def _photographs(path: Path) -> Split:
    """Pieces of 32 by 32 pixels of two photographs; the label says which one it is of."""
    from sklearn.datasets import load_sample_images

    pieces, labels = [], []
    for label, photograph in enumerate(load_sample_images().images):
        height, width = (32 * (size // 32) for size in photograph.shape[:2])
        cut = photograph[:height, :width].reshape(height // 32, 32, width // 32, 32, 3)
        pieces.append(cut.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
        labels += [label] * len(pieces[-1])
    data = np.concatenate(pieces), np.array(labels)
    for _ in write_dataset(path, name="photographs", classes=2, splits={"train": data, "test": data}):
        pass
    return open_dataset(path).train


if __name__ == "__main__":
    for found in measure():
        print(found.line())
