"""A static model that is not trained: its weights are taken unchanged."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import precision_context
from gradshard.stages.console.progress import echo
from gradshard.stages.project import paths
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.formats.dataset import Dataset, Split

_EXAMPLES = 100


def publish(
    name: str, module: nn.Module, data: Dataset, target: Path, record: Mapping[str, object], device: torch.device
) -> None:
    """Write a model's weights and, as the curve of a training of no steps, its loss on the first images.

    The loss, on at most 100 training images (test images where there are none for training), shows weights whose
    classes are not the dataset's.

    Raises:
        GradshardError: the loss is not finite.
    """
    split = data.train if len(data.train) else data.test
    loss, errors, count = _try(module.to(device).eval(), split, device)
    if not math.isfinite(loss):
        raise GradshardError(
            f"{name} has a clean loss of {loss} on the first {count} {split.name} images: look at its weights"
        )
    write_text(paths.TRAINING / f"{name}.tsv", f"step\tepoch\tclean_loss\n0\t0\t{loss:.6g}\n")
    write_text(paths.TRAINING / f"{name}.json", json.dumps({"steps": 0, "loss": loss}, indent=1) + "\n")
    checkpoints.save(target, module.state_dict(), {**record, "epoch": 0})
    where = f"on the first {count} {split.name} images"
    echo(f"{target}: taken as it is, {errors} errors and clean loss {loss:.4f} {where}")


def _try(module: nn.Module, split: Split, device: torch.device) -> tuple[float, int, int]:
    """Return the mean loss, the errors and the number of the first images of a split."""
    count = min(_EXAMPLES, len(split))
    images = torch.from_numpy(split.read_images(0, count)).to(device)
    labels = torch.from_numpy(split.read_labels(0, count))
    with torch.no_grad(), precision_context("fp32", device):
        parts = in_microbatches(lambda rows: module(to_unit_range(images[rows])).float().cpu(), images, module)
    logits = torch.cat(parts)
    loss = float(functional.cross_entropy(logits, labels))
    return loss, int((logits.argmax(1) != labels).sum()), count
