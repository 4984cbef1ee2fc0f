"""The stage ``analyze``: how large the models' gradients are, how often rounding turns a sign, and the loss around."""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from gradshard import storage
from gradshard.pipeline.analysis.gradient_accuracy import gradient_norms, sign_errors
from gradshard.pipeline.analysis.loss_surface import curvature, fooling_directions, loss_plane
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import choose_device, precision_context
from gradshard.stages.support import paths
from gradshard.stages.support.models import LoadedModel, check_defined, load_model, weights_of
from gradshard.stages.support.options import params_option
from gradshard.stages.support.progress import echo, progress
from gradshard.storage.formats.atomic import atomic_path, write_text
from gradshard.storage.formats.dataset import Split, open_dataset

_BLOCK = 500
_GRID = 41
_ZOOM = 10


@click.command()
@params_option
def command(params: Params) -> None:
    """Measure the input gradients of the models of the first seed, and the loss around some images.

    Reads the prepared test images and the weights that `analysis` names; writes analysis/gradients.json (norms, as in
    the paper's table 7, the share of signs that fp32 gets wrong, and how many images are as those of figure 2) and
    analysis/planes.npz (figures 2 and 3).
    """
    data = open_dataset(paths.dataset(params))
    device = choose_device(params.device)
    analysis = params.analysis
    seed = params.seeds[0]
    models = {name: load_model(*weights_of(params, name, seed), data, device) for name in analysis.named}
    check_defined(models, key="analysis")
    with precision_context("fp32", device):
        gradients = _gradients(params, data.test, {name: models[name] for name in analysis.models}, device)
        for name in gradients:
            gradients[name]["directions"] = _directions(params, data.test, models, name, device)
        planes = _planes(params, data.test, models, device)
    record = {
        "seed": seed,
        "models": gradients,
        "digests": {name: model.digest for name, model in models.items()},
        "test": data.test.digest,
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
    }
    write_text(paths.ANALYSIS / "gradients.json", json.dumps(record, indent=1) + "\n")
    with atomic_path(paths.ANALYSIS / "planes.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **planes)
    echo(f"{paths.ANALYSIS}: gradients of {len(gradients)} models, loss around {len(planes['rows'])} images")


def _gradients(
    params: Params, split: Split, models: Mapping[str, LoadedModel], device: torch.device
) -> dict[str, dict[str, Any]]:
    found = {}
    with progress("analyze", len(models) * len(split), "images") as advance:
        for name, model in models.items():
            exact, rounded, wrong = [], [], []
            reference = copy.deepcopy(model.module).double()
            for start, images, labels in _blocks(split, device):
                norms = gradient_norms(model.module, images, labels)
                exact.append(norms.exact)
                rounded.append(norms.cross_entropy)
                compared = max(0, min(params.analysis.examples - start, len(images)))
                if compared:
                    wrong.append(sign_errors(model.module, reference, images[:compared], labels[:compared]))
                advance(len(images))
            found[name] = {
                "n": len(split),
                "norm": _summary(torch.cat(exact)),
                "norm_cross_entropy": _summary(torch.cat(rounded)),
                "wrong_signs": _summary(torch.cat([w.exact for w in wrong])),
                "wrong_signs_cross_entropy": _summary(torch.cat([w.cross_entropy for w in wrong])),
                "zero_rows_cross_entropy": int(torch.cat([w.zero_rows for w in wrong]).sum()),
            }
    return found


def _blocks(split: Split, device: torch.device) -> Iterator[tuple[int, Tensor, Tensor]]:
    for start in range(0, len(split), _BLOCK):
        stop = min(start + _BLOCK, len(split))
        images = to_unit_range(torch.from_numpy(split.read_images(start, stop)).to(device))
        yield start, images, torch.from_numpy(split.read_labels(start, stop)).to(device)


def _summary(values: Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "deviation": float(values.std()), "examples": len(values)}


def _directions(
    params: Params, split: Split, models: Mapping[str, LoadedModel], name: str, device: torch.device
) -> dict[str, int | str]:
    """Count the test images that the source of figure 2 fools a model on and its own gradient does not, and the like.

    Images that the source alone fools it on are also looked at more closely: is the loss curved as in the figure?
    """
    epsilon, other = params.attack.epsilon, params.analysis.plane.source
    model, source = models[name].module, models[other].module
    counts = {"right": 0, "own": 0, "other": 0, "other_alone": 0, "own_alone": 0, "near_own": 0, "falls_again": 0}
    for _, images, labels in _blocks(split, device):
        found = fooling_directions(model, source, images, labels, epsilon=epsilon)
        chosen = found.other_alone
        for key in ("right", "own", "other", "other_alone", "own_alone"):
            counts[key] += int(getattr(found, key).sum())
        if chosen.any():
            curved = curvature(model, source, images[chosen], labels[chosen], epsilon=epsilon)
            counts["near_own"] += curved.near_own
            counts["falls_again"] += curved.falls_again
    return {"source": other, "n": len(split), **counts}


def _planes(
    params: Params, split: Split, models: Mapping[str, LoadedModel], device: torch.device
) -> dict[str, np.ndarray[Any, Any]]:
    """The loss over the plane, full range and zoomed in, for the first images that the source alone fools it on."""
    plane, epsilon = params.analysis.plane, params.attack.epsilon
    model, source = models[plane.model].module, models[plane.source].module
    ranges = {name: torch.linspace(0, reach, _GRID) for name, reach in (("full", epsilon), ("zoom", epsilon / _ZOOM))}
    rows: list[int] = []
    planes: dict[str, list[Tensor]] = {name: [] for name in ranges}
    for start, images, labels in _blocks(split, device):
        found = fooling_directions(model, source, images, labels, epsilon=epsilon).other_alone
        for at in found.nonzero().flatten().tolist():
            if len(rows) < plane.points:
                rows.append(start + at)
                for name, steps in ranges.items():
                    around = (images[at : at + 1], labels[at : at + 1], steps.to(device))
                    planes[name].append(loss_plane(model, source, *around))
        if len(rows) == plane.points:
            break
    empty = torch.empty(0, _GRID, _GRID)
    return {
        "rows": np.array(rows, dtype=np.int64),
        **{f"{name} steps": steps.numpy() for name, steps in ranges.items()},
        **{name: (torch.stack(found) if found else empty).numpy() for name, found in planes.items()},
    }
