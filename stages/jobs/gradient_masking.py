"""The part of ``evaluate`` that checks whether each model's gradient can be trusted."""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from distributed import Client

from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.evaluation.error_matrix import BLOCK
from gradshard.pipeline.evaluation.gradient_masking import masking_flags
from gradshard.pipeline.evaluation.gradient_probe import GradientProbe
from gradshard.pipeline.evaluation.probing import probe
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.types import Gradient
from gradshard.stages.console.progress import progress
from gradshard.stages.jobs.attack_blocks import EvaluationContext, load_context, read_block, sampled_rows
from gradshard.stages.machines.dask_cluster import map_tasks
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.formats.results import Rows


def diagnose(
    bench: EvaluationContext, rows: Sequence[Mapping[str, Any]], client: Client, *, strength: AttackConfig
) -> dict[str, Any]:
    """Probe every model of ``evaluation.diagnosed`` with every gradient, and raise flags.

    Args:
        bench: parameters, test images and models; its folder keeps each block's probe, so that a killed run is resumed.
        rows: the error matrix, for the errors under transferred examples.
        client: of the cluster that computes the blocks.
        strength: of the attacks.
    """
    evaluation = bench.params.evaluation
    sample = sampled_rows(bench.params, len(load_context(bench)[0]))
    blocks = [sample[start : start + BLOCK] for start in range(0, len(sample), BLOCK)]
    subjects = list(itertools.product(evaluation.diagnosed, evaluation.gradients))
    tasks = [_Task(name, gradient, block) for name, gradient in subjects for block in range(len(blocks))]
    missing = [number for number, task in enumerate(tasks) if not task.file(bench).exists()]
    done = sum(len(blocks[task.block]) for number, task in enumerate(tasks) if number not in set(missing))
    with progress("diagnose", len(subjects) * len(sample), "images", done=done) as advance:
        probing = functools.partial(_probe_block, bench, strength, tasks, blocks)
        for number, _ in map_tasks(client, probing, missing, what="probe"):
            advance(len(blocks[tasks[number].block]))
    found: dict[str, dict[str, Any]] = {name: {} for name in evaluation.diagnosed}
    for name, gradient in subjects:
        parts = [task.file(bench) for task in tasks if (task.name, task.gradient) == (name, gradient)]
        measured = reduce(add, (GradientProbe.restore(json.loads(part.read_text(encoding="utf-8"))) for part in parts))
        raised = masking_flags(measured, _transferred(rows, name, gradient))
        found[name][gradient] = measured.record() | {"flags": [asdict(flag) for flag in raised]}
    return {"models": found}


@dataclass(frozen=True)
class _Task:
    """One model's gradient, probed on one block of test images."""

    name: str
    gradient: Gradient
    block: int

    def file(self, bench: EvaluationContext) -> Path:
        return bench.folder / f"probe-{self.name}-{self.gradient}-{self.block:06d}.json"


def _probe_block(
    bench: EvaluationContext, strength: AttackConfig, tasks: Sequence[_Task], blocks: Sequence[Rows], number: int
) -> None:
    task, evaluation = tasks[number], bench.params.evaluation
    if task.file(bench).exists():
        return
    _, models = load_context(bench)
    images, labels, draws = read_block(bench, blocks[task.block], block=task.block, restarts=0)
    with precision_context("fp32", images.device):
        measured = probe(
            models[task.name],
            models[evaluation.holdout],
            images,
            labels,
            strength=strength,
            epsilons=evaluation.sweep,
            noise=draws.signs,
            gradient=task.gradient,
            policy=evaluation.label,
        )
    write_text(task.file(bench), json.dumps(measured.record()))


def _transferred(rows: Sequence[Mapping[str, Any]], target: str, gradient: str) -> dict[str, ErrorRate]:
    return {
        row["source"]: ErrorRate(row["errors"], row["n"])
        for row in rows
        if (row["target"], row["attack"], row["gradient"], row["top"]) == (target, "fgsm", gradient, 1)
        and row["source"] != target
    }
