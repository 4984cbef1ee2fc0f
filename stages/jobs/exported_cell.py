"""A cell of the error matrix whose examples are crafted anew, block by block, as ``evaluate`` crafted them."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distributed import Client
from torch import Tensor

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.evaluation.budget import furthest, hold_budget
from gradshard.pipeline.evaluation.error_matrix import Case, evaluate_block
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.types import Gradient
from gradshard.stages.console.progress import progress
from gradshard.stages.jobs.attack_blocks import (
    EvaluationContext,
    EvaluationSubset,
    all_attacks,
    case_key,
    load_context,
    planned_cases,
    portions,
    read_block,
)
from gradshard.stages.machines.dask_cluster import map_tasks
from gradshard.stages.project import paths
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results
from gradshard.storage.formats.atomic import atomic_path

# Target, source and attack.
CellName = tuple[str, str, str]


@dataclass(frozen=True)
class ExportedCell:
    """A cell: what it measures, on which test images, and its row in the matrix file ``matrix``."""

    case: Case
    portion: EvaluationSubset
    row: Mapping[str, Any]
    matrix: Path


@dataclass(frozen=True)
class CraftedBlock:
    """One block of a cell: its examples, float32 (n, C, H, W), and what was measured on them.

    ``errors`` counts the target's errors on the examples; ``measured`` counts those on the attack's own output, before
    the last bits of some pixels were moved into the budget; ``furthest`` is the largest change of a pixel.
    """

    examples: Tensor
    errors: int
    measured: int
    furthest: float


def find_cell(params: Params, cell: CellName, gradient: Gradient, *, seed: int, n: int) -> ExportedCell:
    """Find a cell, by target, source and attack, in the plan for ``n`` test images and in the matrix of a seed.

    Raises:
        GradshardError: the parameters ask for no such cell, or it was not measured with them.
    """
    attacks, top = all_attacks(params), params.evaluation.top[0]
    case, portion = _planned(params, cell, gradient, n=n)
    matrix = paths.evaluation(seed) / "matrix.parquet"
    wanted = {**case_key(case, attacks), "top": top}
    row = next((row for row in results.read_matrix(matrix, seed=seed) if wanted.items() <= row.items()), None)
    if row is None:
        raise GradshardError(
            f"{matrix} has no cell {'/'.join(cell)} of these parameters: run `gradshard evaluate --seed {seed}` first"
        )
    return ExportedCell(case, portion, row, matrix)


def craft(bench: EvaluationContext, cell: ExportedCell, client: Client) -> list[Path]:
    """Craft all blocks that have no file yet, and return the files of all blocks, for ``read_crafted``."""
    blocks = cell.portion.blocks
    files = [_block_file(bench, block) for block in range(len(blocks))]
    missing = [block for block, file in enumerate(files) if not file.exists()]
    done = len(cell.portion.rows) - sum(len(blocks[block]) for block in missing)
    with progress("craft", len(cell.portion.rows), "images", done=done) as advance:
        for block, _ in map_tasks(client, functools.partial(_craft_block, bench, cell), missing, what="block"):
            advance(len(blocks[block]))
    return files


def read_crafted(files: Sequence[Path]) -> Iterator[CraftedBlock]:
    """Yield crafted blocks in the order of the test set."""
    for file in files:
        with np.load(file, allow_pickle=False) as found:
            yield CraftedBlock(
                torch.from_numpy(found["examples"]),
                int(found["errors"]),
                int(found["measured"]),
                float(found["furthest"]),
            )


def _planned(
    params: Params, cell: tuple[str, str, str], gradient: Gradient, *, n: int
) -> tuple[Case, EvaluationSubset]:
    target, source, attack = cell
    planned = planned_cases(params)
    for portion in portions(params, n, planned):
        for case in portion.shown:
            crafting = case.crafting
            if crafting and (case.target, crafting.source, crafting.attack) == cell and crafting.gradient == gradient:
                return case, portion
    raise GradshardError(
        f"the parameters ask for no cell {'/'.join(cell)} with gradient {gradient}: name {target} in "
        f"evaluation.targets, and {source} in evaluation.attacks.{attack}, then run `gradshard evaluate`"
    )


def _craft_block(bench: EvaluationContext, cell: ExportedCell, block: int) -> None:
    file = _block_file(bench, block)
    if file.exists():  # when a worker dies, Dask repeats the tasks whose results it held
        return
    _, models = load_context(bench)
    params = bench.params
    images, labels, draws = read_block(bench, cell.portion.blocks[block], block=block, restarts=params.attack.restarts)
    given: list[Tensor] = []
    clean = Case(cell.case.target, None)
    with precision_context("fp32", images.device):
        measured = evaluate_block(
            models,
            [cell.case],
            images,
            labels,
            draws=draws,
            attacks=all_attacks(params),
            crafted=lambda crafting, part, made: given.append(made),
        )
        examples = hold_budget(torch.cat(given), images, params.attack.epsilon)
        ranks = evaluate_block(models, [clean], examples, labels, draws=draws)
    top = params.evaluation.top[0]
    with atomic_path(file) as temporary, temporary.open("wb") as opened_file:
        np.savez(
            opened_file,
            allow_pickle=False,
            examples=examples.cpu().numpy(),
            errors=int((ranks >= top).sum()),
            measured=int((measured >= top).sum()),
            furthest=furthest(examples, images),
        )


def _block_file(bench: EvaluationContext, block: int) -> Path:
    return bench.folder / f"{block:06d}.npz"
