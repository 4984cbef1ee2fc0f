"""Share of the input gradient's signs that are not those of float64, by arithmetic, of models trained on digits."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.commands import project, run
from benchmarks.gpu.part import Findings, findings, part_options
from gradshard.pipeline.analysis.gradient_accuracy import sign_errors
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import Arithmetic, precision_context
from gradshard.stages.jobs.models import load_model
from gradshard.storage.formats.dataset import open_dataset

MODELS = ("A", "D")


@click.command()
@part_options
def main(result: Path, device: str, small: bool) -> None:
    """Train models by the stages, and compare their signs on test images with float64."""

    models = MODELS[-1:] if small else MODELS

    def change(params: dict[str, Any]) -> None:
        params["device"] = device
        for name in models:
            params["static"][name]["epochs"] = 1 if small else 6

    with findings(result, device, small=small) as found, tempfile.TemporaryDirectory() as name:
        folder = project(Path(name), train=256 if small else 4000, test=50 if small else 1000, change=change)
        run(folder, "prepare")
        for model in models:
            run(folder, "train-static", model)
            _compare(found, folder, model)


def _compare(found: Findings, folder: Path, name: str) -> None:
    data = open_dataset(folder / "data/npz.zarr")
    images, labels = (torch.from_numpy(part).to(found.device) for part in data.test.load())
    pixels = to_unit_range(images)
    model = load_model(folder / f"models/static/{name}.safetensors", name, data, found.device).module
    reference = copy.deepcopy(model).double()
    arithmetics: tuple[Arithmetic, ...] = ("fp32", "tf32", "bf16") if found.device.type == "cuda" else ("fp32", "bf16")
    for arithmetic in arithmetics:
        with precision_context(arithmetic, found.device):
            errors = sign_errors(model, reference, pixels, labels)
        for gradient, shares in (("exact gradient", errors.exact), ("cross-entropy", errors.cross_entropy)):
            found.add(f"{name}, {arithmetic}: wrong signs of the {gradient}", float(shares.mean()), "of all pixels")
        rows = float(errors.zero_rows.double().mean())
        found.add(f"{name}, {arithmetic}: images whose cross-entropy's gradient is 0", rows, "of all images")


if __name__ == "__main__":
    main()
