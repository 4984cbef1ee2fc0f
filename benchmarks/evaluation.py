"""Evaluating two models, A and B, on real digits, beside the passes that it takes.

Timed is everything that `evaluate` does between the start of its Dask cluster and its diagnostics: reading images, the
attacks, all targets, a file for each block, the matrix and the per-example results as Parquet. The passes alone are the
same attacks and forward passes, on images that are in memory, in as many threads; nothing is kept of them.

What it does not show: the diagnostics, which are more attacks; the start of the process and of the cluster; a GPU.
"""

import functools
import io
import itertools
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path

import torch
from distributed import Client
from torch import Tensor, nn

from benchmarks.digits import dataset_of_digits
from benchmarks.ratios import Claim, Step, compare
from gradshard.pipeline import models
from gradshard.pipeline.attacks.crafting import AttackNoise, craft_by_name
from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.config.schema import Params, read_params
from gradshard.pipeline.evaluation.error_matrix import BLOCK, AdversarialSet, block_draws, plan_cases, plan_craftings
from gradshard.pipeline.gradients.microbatches import microbatches
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import precision_context
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.jobs.attack_blocks import (
    EvaluationContext,
    EvaluationSubset,
    attack,
    iter_correct,
    matrix_rows,
    portions,
)
from gradshard.stages.jobs.models import ModelFile
from gradshard.stages.machines.dask_cluster import dask_client
from gradshard.storage.formats import checkpoints, results
from gradshard.storage.formats.dataset import Dataset, open_dataset

TARGET = 1.15
MODELS = ("A", "B")
STRENGTH = AttackConfig(epsilon=0.3, alpha=0.05, steps=10)

_PARAMS = Path(__file__).parents[1] / "pipeline/config/profiles/mnist5k.yaml"
_CPU = torch.device("cpu")


def measure(*, quick: bool = False) -> list[Claim]:
    """Compare evaluating with its passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset_of_digits(folder / "digits.zarr", rows=64)
        data = open_dataset(folder / "digits.zarr")
        built = {name: models.create_model(name, data.sample_shape, data.classes, seed=0).eval() for name in MODELS}
        for module in built.values():
            module.requires_grad_(False)
        rows = 40 if quick else len(data.test)
        craftings = plan_craftings({"fgsm": MODELS, "rand_fgsm": MODELS, "ifgsm": ("B",)}, ["exact"], STRENGTH)
        params = read_params(_PARAMS)
        with dask_client(ClusterConfig(), "cpu") as client:
            (portion,) = portions(params, rows, plan_cases(craftings, MODELS))
            evaluated = _evaluated(folder, params, data, built, portion, client)
            alone = _passes_alone(params, data, built, craftings, rows)
            title = "evaluating over its crafting and forward passes alone"
            return [compare(title, evaluated, alone, target=TARGET, repeats=1 if quick else 7)]


def _evaluated(
    folder: Path,
    params: Params,
    data: Dataset,
    built: dict[str, nn.Module],
    portion: EvaluationSubset,
    client: Client,
) -> Step:
    for name, module in built.items():
        checkpoints.save(folder / f"{name}.safetensors", module.state_dict(), {"architecture": name})
    files = tuple(
        ModelFile(name, folder / f"{name}.safetensors", name, checkpoints.tensors_digest(module.state_dict(), name))
        for name, module in built.items()
    )
    number = itertools.count()

    def step() -> None:
        place = folder / f"evaluation-{next(number)}"
        place.mkdir()
        bench = EvaluationContext(params, folder / "digits.zarr", data.test.digest, files, "cpu", place)
        with redirect_stderr(io.StringIO()):
            found = attack(bench, portion, client)
        right = functools.partial(iter_correct, params, data.name, portion, found, seed=params.seeds[0])
        results.write_examples(place / "examples.parquet", right())
        results.write_matrix(place / "matrix.parquet", matrix_rows(right()))

    return step


def _passes_alone(
    params: Params, data: Dataset, built: dict[str, nn.Module], craftings: Sequence[AdversarialSet], count: int
) -> Step:
    pixels, targets = data.test.load()
    images, labels = to_unit_range(torch.from_numpy(pixels[:count])), torch.from_numpy(targets[:count])

    def on_batch(images: Tensor, labels: Tensor, draws: AttackNoise) -> None:
        for crafting in (None, *craftings):
            examples = images if crafting is None else _crafted(crafting, built, images, labels, draws)
            with torch.no_grad():
                for module in built.values():
                    module(examples)

    def on_block(block: int) -> None:
        rows = slice(block * BLOCK, min((block + 1) * BLOCK, len(images)))
        draws = block_draws(images[rows].shape, 1, seed=params.evaluation.seed, block=block, device=_CPU)
        with precision_context("fp32", _CPU):
            for batch in microbatches(images[rows], *built.values()):
                on_batch(images[rows][batch], labels[rows][batch], draws[batch])

    def step() -> None:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(on_block, range(-(-len(images) // BLOCK))))

    return step


def _crafted(
    crafting: AdversarialSet, built: dict[str, nn.Module], images: Tensor, labels: Tensor, draws: AttackNoise
) -> Tensor:
    module, strength = built[crafting.source], crafting.strength
    return craft_by_name(
        crafting.attack, module, images, labels, strength=strength, draws=draws, gradient=crafting.gradient
    )


if __name__ == "__main__":
    for found in measure():
        print(found.line())
