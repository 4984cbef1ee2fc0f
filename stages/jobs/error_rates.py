"""The stage ``evaluate`` for one seed: the error of every target under every attack from every source."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gradshard import storage
from gradshard.pipeline.attacks import custom
from gradshard.pipeline.attacks.crafting import check_attacks
from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.types import CLEAN
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.console.progress import echo, echo_waiting
from gradshard.stages.jobs.attack_blocks import (
    EvaluationContext,
    EvaluationSubset,
    all_attacks,
    attack,
    attack_config,
    iter_correct,
    load_context,
    matrix_rows,
    planned_cases,
    portions,
    undefined_gradients,
)
from gradshard.stages.jobs.costs import costs
from gradshard.stages.jobs.gradient_masking import diagnose
from gradshard.stages.jobs.models import ModelFile, model_file
from gradshard.stages.machines.dask_cluster import dask_client
from gradshard.stages.machines.device_memory import device_of, tell_microbatches
from gradshard.stages.machines.devices import on_all_devices
from gradshard.stages.project import paths
from gradshard.storage.formats import results
from gradshard.storage.formats.atomic import atomic_path, write_text
from gradshard.storage.formats.dataset import Dataset, open_dataset
from gradshard.storage.workspace import workspace

_ILLUSTRATED_EXAMPLES = 8
_Right = Callable[
    [EvaluationSubset, Sequence[Path]], Iterator[tuple[list[dict[str, Any]], results.Rows, npt.NDArray[np.bool_]]]
]


def evaluate(params: Params, seed: int, cluster: ClusterConfig) -> None:
    """Attack every target from every source, and write the results into evaluation/SEED/; a killed run is resumed."""
    folder = paths.evaluation(seed)
    data = open_dataset(paths.dataset(params))
    check_attacks(params.evaluation.crafters, classes=data.test.classes, attacks=all_attacks(params))
    device = device_of(params)
    cluster = on_all_devices(cluster, device)
    files = tuple(model_file(params, name, seed) for name in params.evaluation.named)
    provenance = _provenance(params, seed, data, files)
    measured = portions(params, len(data.test), planned_cases(params))
    if not measured:
        echo("evaluation.targets is empty: no error to measure")
    with (
        workspace(f"evaluate-{seed}", provenance, on_wait=echo_waiting(folder)) as work,
        dask_client(cluster, device.type) as client,
    ):
        where = paths.dataset(params).resolve()
        bench = EvaluationContext(params, where, data.test.digest, files, device.type, work.folder.resolve())
        _, models = load_context(bench)  # every model is checked before the first is attacked
        tell_microbatches(models, data.sample_shape, device)
        attacked = [(part, attack(bench, part, client)) for part in measured]
        undefined = undefined_gradients(file for _, files in attacked for file in files)
        right = functools.partial(iter_correct, params, data.name, seed=seed, withheld=undefined.keys())
        rows = _write_results(params, folder, right, attacked)
        diagnostics = diagnose(bench, rows, client, strength=attack_config(params))
        if undefined:
            diagnostics["undefined_gradients"] = undefined
        write_text(folder / "diagnostics.json", json.dumps(diagnostics, indent=1) + "\n")
        write_text(folder / "costs.json", json.dumps(_costs(params, seed, data, files), indent=1) + "\n")
        write_text(folder / "provenance.json", json.dumps(provenance, indent=1) + "\n")
        _write_images(bench, data, folder)
    for name, counts in undefined.items():
        echo(
            f"{name}: its gradient was NaN or infinite for {counts['undefined']} of {counts['rows']} rows, so no error "
            "under what it crafted is shown (docs/diagnostics.md#undefined-gradients)"
        )
    echo(f"{folder}: {len(rows)} error rates")


def _write_results(
    params: Params, folder: Path, right: _Right, measured: Sequence[tuple[EvaluationSubset, Sequence[Path]]]
) -> list[dict[str, Any]]:
    rows = [row for part, files in measured for row in matrix_rows(right(part, files))]
    examples = (block for part, files in measured for block in right(part, files))
    results.write_examples(folder / "examples.parquet", examples)
    write_text(folder / "metrics.json", json.dumps(_metrics(params, rows), indent=1) + "\n")
    results.write_matrix(folder / "matrix.parquet", rows)
    return rows


def _metrics(params: Params, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the columns of the paper's table 4, for every robust model among the targets."""
    holdout, gradient = params.evaluation.holdout, params.evaluation.gradients[0]
    metrics: dict[str, dict[str, float]] = {}
    for row in rows:
        target, source = row["target"], row["source"]
        if target in params.static or row["gradient"] not in ("", gradient) or row["top"] != params.evaluation.top[0]:
            continue
        columns = {"": CLEAN, target: row["attack"], holdout: f"{row['attack']}_{holdout}"}
        if source in columns:
            metrics.setdefault(target, {})[columns[source]] = row["error_rate"]
    return metrics


def _costs(params: Params, seed: int, data: Dataset, files: Sequence[ModelFile]) -> dict[str, dict[str, Any]]:
    """Return the costs of the targets under their seed, as the report merges those of all seeds."""
    return {str(seed): costs(params, seed, len(data.train), {file.name: dict(file.stores) for file in files})}


def _write_images(bench: EvaluationContext, data: Dataset, folder: Path) -> None:
    """Write a few test images, and the illustrated models' gradient signs and FGSM examples for them (figure 1)."""
    params, device, (_, models) = bench.params, torch.device(bench.device), load_context(bench)
    rows = _illustrated_rows(data)
    images = to_unit_range(torch.from_numpy(np.concatenate([data.test.read_images(r, r + 1) for r in rows])).to(device))
    labels = torch.from_numpy(np.concatenate([data.test.read_labels(r, r + 1) for r in rows])).to(device)
    arrays = {"images": images.cpu().numpy(), "rows": np.array(rows)}
    for name in params.evaluation.illustrated:
        module = models[name]
        grad, _ = input_gradient(module, images, labels)
        arrays[f"signs {name}"] = grad.sign().to(torch.int8).cpu().numpy()
        arrays[f"perturbed {name}"] = fgsm(module, images, labels, epsilon=params.attack.epsilon).cpu().numpy()
    with atomic_path(folder / "images.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _illustrated_rows(data: Dataset) -> list[int]:
    """Return the rows of the first test image of each class, for the first eight classes."""
    labels = data.test.read_labels()
    classes, first = np.unique(labels, return_index=True)
    del classes
    return [int(row) for row in first[:_ILLUSTRATED_EXAMPLES]]


def _provenance(params: Params, seed: int, data: Dataset, files: Sequence[ModelFile]) -> dict[str, Any]:
    """Return what the results depend on: parameters, digests, versions, and the stores that the models name."""
    foreign = {name: its.call for name, its in params.attack.custom.items() if name in params.evaluation.crafters}
    code = {
        "attacks": {name: custom.provenance(name=f"attack.custom.{name}", call=call) for name, call in foreign.items()}
    }
    return {
        "seed": seed,
        "params": params.model_dump(by_alias=True, include={"attack", "evaluation"}),
        "dataset": {"train": data.train.digest, "test": data.test.digest},
        "models": {params.in_run(file.name, seed): file.digest for file in files},
        "stores": {params.in_run(name, seed): content for file in files for name, content in file.stores},
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
        **(code if foreign else {}),
    }
