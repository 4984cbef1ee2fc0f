"""The stage ``analyze`` for one seed: measurements of gradients and of the loss around images."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradshard import storage
from gradshard.pipeline.analysis.gradient_accuracy import gradient_norms, sign_errors
from gradshard.pipeline.analysis.loss_surface import curvature, fooling_directions, loss_plane
from gradshard.pipeline.config.evaluation import AnalysisParams, PlaneParams
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import precision_context
from gradshard.stages.console.progress import echo, echo_waiting, progress
from gradshard.stages.jobs.models import LoadedModel, check_defined, load_model, weights_of
from gradshard.stages.machines.device_memory import device_of, tell_microbatches
from gradshard.stages.project import paths
from gradshard.storage.formats.atomic import atomic_path, write_text
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.workspace import workspace

# Images per file of measurements: the most that a killed run loses.
_BLOCK = 128
_GRID = 41
_ZOOM = 10

Arrays = Mapping[str, npt.NDArray[Any]]


def analyze(params: Params, seed: int) -> None:
    """Measure the gradients of the models that are new in the run of a seed, map the loss, and publish both.

    Raises:
        GradshardError: there is no dataset, or a model is missing, damaged or has gradients that cannot be measured.
    """
    wanted, folder = params.analysis_of(seed), paths.analysis(seed)
    data = open_dataset(paths.dataset(params))
    device = device_of(params)
    models = {name: load_model(*weights_of(params, name, seed), data, device) for name in wanted.named}
    check_defined(models, key="analysis")
    origin = {
        "digests": {name: model.digest for name, model in models.items()},
        "test": data.test.digest,
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
    }
    recipe = origin | {"analysis": wanted.model_dump(exclude={"tables"}), "eps": params.attack.epsilon}
    if models:
        tell_microbatches({name: model.module for name, model in models.items()}, data.sample_shape, device)
    else:
        changing = f" that changes with seed {seed}" if params.analysis.named else ""
        echo(f"analysis names no model{changing} and no plane: nothing to measure")
    with (
        workspace(f"analyze-{seed}", recipe, on_wait=echo_waiting(folder)) as work,
        precision_context("fp32", device),
    ):
        analysis = _Analysis(wanted, params.attack.epsilon, data.test, models, device, work.folder)
        gradients, planes = analysis.gradients(), analysis.planes()
        write_text(
            folder / "gradients.json",
            json.dumps({"seed": seed, "models": gradients, **origin}, indent=1) + "\n",
        )
        _save(folder / "planes.npz", planes)
    echo(f"{folder}: gradients of {len(gradients)} models, loss around {len(planes['rows'])} images")


@dataclass(frozen=True)
class _Analysis:
    """Measurements of some models on test images; those of each block of images are kept in ``folder``."""

    wanted: AnalysisParams
    epsilon: float
    split: Split
    models: Mapping[str, LoadedModel]
    device: torch.device
    folder: Path

    def gradients(self) -> dict[str, dict[str, Any]]:
        """Measure the gradients of every wanted model and, if a plane is wanted, count the images that fool it."""
        names, plane = self.wanted.models, self.wanted.plane
        found = {}
        passes = 1 if plane is None else 2
        with progress("analyze", passes * len(names) * len(self.split), "images") as advance:
            for name in names:
                found[name] = self._norms(name, advance)
                if plane is not None:
                    found[name]["directions"] = self._directions(name, plane, advance)
        return found

    def planes(self) -> Arrays:
        """Map the loss over the plane, full range and zoomed in, at the first images on which only the source fools."""
        plane, epsilon = self.wanted.plane, self.epsilon
        ranges = {
            name: torch.linspace(0, reach, _GRID) for name, reach in (("full", epsilon), ("zoom", epsilon / _ZOOM))
        }
        rows = [] if plane is None else self._fooled_by_the_source(plane)
        found = [self._plane(plane, row, ranges) for row in rows] if plane is not None else []
        empty = np.empty((0, _GRID, _GRID), dtype=np.float32)
        return {
            "rows": np.array(rows, dtype=np.int64),
            **{f"{name} steps": steps.numpy() for name, steps in ranges.items()},
            **{name: np.stack([each[name] for each in found]) if found else empty for name in ranges},
        }

    def _norms(self, name: str, advance: Callable[[int], None]) -> dict[str, Any]:
        module = self.models[name].module
        reference = copy.deepcopy(module).double()
        blocks = []
        for start in self._starts():
            blocks.append(self._kept(f"norms-{name}", start, lambda at: self._norms_of(module, reference, at)))
            advance(self._size(start))
        joined = {key: torch.from_numpy(np.concatenate([block[key] for block in blocks])) for key in blocks[0]}
        return {
            "n": len(self.split),
            **{key: _summary(joined[key]) for key in _SUMMARISED},
            "zero_rows_cross_entropy": int(joined["zero_rows"].sum()),
        }

    def _norms_of(self, module: nn.Module, reference: nn.Module, start: int) -> Arrays:
        images, labels = self._read(start)
        compared = images[: max(0, self.wanted.examples - start)]
        norms = in_microbatches(lambda at: gradient_norms(module, images[at], labels[at]), images, module)
        wrong = in_microbatches(
            lambda at: sign_errors(module, reference, compared[at], labels[at]), compared, module, reference
        )
        none = np.empty(0)
        return {
            "norm": np.concatenate([part.exact for part in norms]),
            "norm_cross_entropy": np.concatenate([part.cross_entropy for part in norms]),
            "wrong_signs": np.concatenate([none, *(part.exact for part in wrong)]),
            "wrong_signs_cross_entropy": np.concatenate([none, *(part.cross_entropy for part in wrong)]),
            "zero_rows": np.concatenate([none, *(part.zero_rows for part in wrong)]).astype(np.bool_),
        }

    def _directions(self, name: str, plane: PlaneParams, advance: Callable[[int], None]) -> dict[str, int | str]:
        """Count the test images on which a model is fooled by figure 2's source, its own gradient, or only one of them.

        Of the images on which only the source fools it, also count those whose loss is curved as in the figure.
        """
        counts: dict[str, int] = {}
        for start in self._starts():
            for key, found in self._fooled(name, plane.source, start).items():
                counts[key] = counts.get(key, 0) + int(found.sum())
            advance(self._size(start))
        return {"source": plane.source, "n": len(self.split), **counts}

    def _fooled(self, name: str, other: str, start: int) -> Arrays:
        return self._kept(f"directions-{name}", start, lambda at: self._fooled_on(name, other, at))

    def _fooled_on(self, name: str, other: str, start: int) -> Arrays:
        """Return which images of a block each gradient fools, bool (n,), and how many have a curved loss, (1,)."""
        (images, labels), epsilon = self._read(start), self.epsilon
        model, source = self.models[name].module, self.models[other].module
        parts = in_microbatches(
            lambda at: fooling_directions(model, source, images[at], labels[at], epsilon=epsilon), images, model, source
        )
        found = {
            key: torch.cat([getattr(part, key) for part in parts]).cpu().numpy()
            for key in ("right", "own", "other", "other_alone", "own_alone")
        }
        chosen = torch.from_numpy(found["other_alone"]).to(self.device)
        around, of = images[chosen], labels[chosen]
        curved = in_microbatches(
            lambda at: curvature(model, source, around[at], of[at], epsilon=epsilon), around, model, source
        )
        return found | {
            key: np.array([sum(getattr(part, key) for part in curved)]) for key in ("near_own", "falls_again")
        }

    def _fooled_by_the_source(self, plane: PlaneParams) -> list[int]:
        """Find the first images that figure 2 can be drawn around."""
        rows: list[int] = []
        for start in self._starts():
            if len(rows) < plane.points:
                found = self._fooled(plane.model, plane.source, start)["other_alone"]
                rows += [start + int(at) for at in np.flatnonzero(found)]
        return rows[: plane.points]

    def _plane(self, plane: PlaneParams, row: int, ranges: Mapping[str, Tensor]) -> Arrays:
        model, source = self.models[plane.model].module, self.models[plane.source].module

        def around(at: int) -> Arrays:
            images, labels = self._read(at, count=1)
            return {
                name: loss_plane(model, source, images, labels, steps.to(self.device)).numpy()
                for name, steps in ranges.items()
            }

        return self._kept("plane", row, around)

    def _kept(self, name: str, start: int, measure: Callable[[int], Arrays]) -> Arrays:
        """Measure the images from ``start`` on, or read the measurements that a killed run kept."""
        file = self.folder / f"{name}-{start:09d}.npz"
        if not file.exists():
            _save(file, measure(start))
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)

    def _starts(self) -> range:
        return range(0, len(self.split), _BLOCK)

    def _size(self, start: int) -> int:
        return min(_BLOCK, len(self.split) - start)

    def _read(self, start: int, *, count: int = _BLOCK) -> tuple[Tensor, Tensor]:
        stop = min(start + count, len(self.split))
        images = to_unit_range(torch.from_numpy(self.split.read_images(start, stop)).to(self.device))
        return images, torch.from_numpy(self.split.read_labels(start, stop)).to(self.device)


_SUMMARISED = ("norm", "norm_cross_entropy", "wrong_signs", "wrong_signs_cross_entropy")


def _summary(values: Tensor) -> dict[str, float]:
    deviation = float(values.std()) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "deviation": deviation, "examples": len(values)}


def _save(path: Path, arrays: Arrays) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
