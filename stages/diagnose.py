"""The part of ``evaluate`` that asks whether each model's gradient can be trusted."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch

from pipeline.catalogue import Strength
from pipeline.diagnostics import flags
from pipeline.evaluation import BLOCK
from pipeline.params import Params
from pipeline.precision import arithmetic_context
from pipeline.probe import Probe
from pipeline.probing import probe
from pipeline.statistics import ErrorRate
from pipeline.vocabulary import Gradient
from stages.attacking import read_block, sampled_rows
from stages.console import progress
from stages.loading import LoadedModel
from storage.datasets.dataset import Split
from storage.files import write_text


def diagnose(
    params: Params,
    split: Split,
    models: Mapping[str, LoadedModel],
    rows: Sequence[Mapping[str, Any]],
    *,
    strength: Strength,
    device: torch.device,
    folder: Path,
) -> dict[str, Any]:
    """Probe every model of ``evaluation.diagnosed`` with every gradient, and raise flags.

    Args:
        params: the parameters.
        split: the test images.
        models: by name.
        rows: the error matrix, for the errors under transferred examples.
        strength: of the attacks.
        device: the models'.
        folder: keeps each model's probe, so that a killed run goes on.
    """
    diagnosed, gradients = params.evaluation.diagnosed, params.evaluation.gradients
    sample = sampled_rows(params, len(split))
    found: dict[str, dict[str, Any]] = {name: {} for name in diagnosed}
    with progress("diagnose", len(diagnosed) * len(gradients) * len(sample), "images") as advance:
        for name, gradient in itertools.product(diagnosed, gradients):
            file = folder / f"probe-{name}-{gradient}.json"
            if not file.exists():
                measured = _probe(params, split, models, name, strength=strength, gradient=gradient, device=device)
                write_text(file, json.dumps(measured.record()))
            advance(len(sample))
            measured = Probe.restore(json.loads(file.read_text(encoding="utf-8")))
            raised = flags(measured, _transferred(rows, name, gradient))
            found[name][gradient] = measured.record() | {"flags": [asdict(flag) for flag in raised]}
    return {"models": found}


def _probe(
    params: Params,
    split: Split,
    models: Mapping[str, LoadedModel],
    name: str,
    *,
    strength: Strength,
    gradient: Gradient,
    device: torch.device,
) -> Probe:
    evaluation, parts, rows = params.evaluation, [], sampled_rows(params, len(split))
    for block, start in enumerate(range(0, len(rows), BLOCK)):
        some = rows[start : start + BLOCK]
        images, labels, draws = read_block(split, some, params, block=block, restarts=1, device=device)
        with arithmetic_context("fp32", device):
            parts.append(
                probe(
                    models[name].module,
                    models[evaluation.holdout].module,
                    images,
                    labels,
                    strength=strength,
                    epsilons=evaluation.sweep,
                    noise=draws.signs,
                    gradient=gradient,
                    policy=evaluation.label,
                )
            )
    return reduce(add, parts)


def _transferred(rows: Sequence[Mapping[str, Any]], target: str, gradient: str) -> dict[str, ErrorRate]:
    return {
        row["source"]: ErrorRate(row["errors"], row["n"])
        for row in rows
        if (row["target"], row["attack"], row["gradient"], row["top"]) == (target, "fgsm", gradient, 1)
        and row["source"] != target
    }
