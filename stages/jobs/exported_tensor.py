"""The adversarial images of one cell as one tensor, for the command ``export-examples``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gradshard import storage
from gradshard.pipeline.attacks.crafting import check_attacks
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.types import Gradient
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.console.progress import echo, echo_waiting
from gradshard.stages.jobs.attack_blocks import EvaluationContext, all_attacks, load_context
from gradshard.stages.jobs.exported_cell import CellName, ExportedCell, craft, find_cell, read_crafted
from gradshard.stages.jobs.models import ModelFile, model_file
from gradshard.stages.machines.dask_cluster import dask_client
from gradshard.stages.machines.device_memory import device_of
from gradshard.stages.project import paths
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import atomic_path, write_text
from gradshard.storage.formats.dataset import Dataset, open_dataset
from gradshard.storage.formats.digests import file_sha256
from gradshard.storage.workspace import workspace


def export(params: Params, seed: int, cell: CellName, file: Path, gradient: Gradient, cluster: ClusterConfig) -> None:
    """Craft the examples of a cell anew, and write them into one file; a killed run is resumed.

    Raises:
        GradshardError: the cell was not measured, its examples do not fool the target as often as was measured, or
            somebody else's file would be overwritten.
    """
    described = file.with_suffix(".json")
    if described.exists() and not file.exists():
        raise GradshardError(
            f"{described} is there without {file}, and would be overwritten: move it away, or choose another name"
        )
    data = open_dataset(paths.dataset(params))
    found = find_cell(params, cell, gradient, seed=seed, n=len(data.test))
    check_attacks([cell[2]], classes=data.test.classes, attacks=all_attacks(params))
    device = device_of(params)
    models = tuple(model_file(params, name, seed) for name in dict.fromkeys(cell[:2]))
    about = _about(params, found, models, data, seed=seed)
    with (
        workspace(f"export-{seed}", about, on_wait=echo_waiting(file)) as work,
        dask_client(cluster, device.type) as client,
    ):
        where = paths.dataset(params).resolve()
        bench = EvaluationContext(params, where, data.test.digest, models, device.type, work.folder.resolve())
        load_context(bench)  # both models are checked before anything is crafted
        errors, furthest = _write(file, craft(bench, found, client), found, data)
    counted = {"errors": errors, "error_rate": errors / found.row["n"], "furthest": furthest}
    digest = {"sha256": file_sha256(file)}
    write_text(described, json.dumps(about | counted | digest, indent=1) + "\n")
    n, epsilon, percent = about["shape"][0], about["eps"], 100 * counted["error_rate"]
    echo(f"{file}: {n} examples within {epsilon:g}, on which {cell[0]} errs in {percent:.2f} %")


def _write(file: Path, blocks: Sequence[Path], cell: ExportedCell, data: Dataset) -> tuple[int, float]:
    """Write the tensor; return the target's errors on it, and the largest change of a pixel.

    Raises:
        GradshardError: the examples do not fool the target as often as the matrix says.
    """
    examples = torch.empty((len(cell.portion.rows), *data.sample_shape))
    errors, measured, furthest, first = 0, 0, 0.0, 0
    for block in read_crafted(blocks):
        examples[first : first + len(block.examples)] = block.examples
        first += len(block.examples)
        errors, measured = errors + block.errors, measured + block.measured
        furthest = max(furthest, block.furthest)
    if measured != cell.row["errors"]:
        raise GradshardError(
            f"crafted anew, {measured} of {len(examples)} examples fool {cell.case.target}, but in {cell.matrix} "
            f"{cell.row['errors']} do: other models or another machine made it, so run `gradshard evaluate` here first"
        )
    # Into an open file: given a path, torch writes its name into the file.
    with atomic_path(file) as temporary, temporary.open("wb") as opened_file:
        torch.save(examples, opened_file)
    return errors, furthest


def _about(
    params: Params, cell: ExportedCell, models: Sequence[ModelFile], data: Dataset, *, seed: int
) -> dict[str, Any]:
    """Return everything that the examples depend on."""
    rows, row = cell.portion.rows, cell.row
    key = {
        name: row[name]
        for name in ("target", "source", "attack", "gradient", "eps", "alpha", "steps", "label", "top", "seed")
    }
    sampled: Mapping[str, Any] = {} if len(rows) == len(data.test) else {"rows": rows.tolist()}
    custom = params.attack.custom.get(row["attack"])
    return {
        "dataset": data.name,
        **key,
        "restarts": params.attack.restarts,
        "shape": [len(rows), *data.sample_shape],
        **sampled,
        **({"custom": custom.model_dump()} if custom else {}),
        "digests": {
            "test": data.test.digest,
            "models": {params.in_run(file.name, seed): file.digest for file in models},
        },
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
    }
