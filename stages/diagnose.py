"""The part of ``evaluate`` that asks whether each model's gradient can be trusted."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch

from pipeline.catalogue import Strength
from pipeline.crafting import to_pixels
from pipeline.diagnostics import flags
from pipeline.evaluation import BLOCK, block_draws
from pipeline.params import Params
from pipeline.precision import arithmetic_context
from pipeline.probing import Probe, probe
from pipeline.statistics import ErrorRate
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
    """Probe every model of ``evaluation.diagnosed`` and raise flags.

    Args:
        params: the parameters.
        split: the test images.
        models: by name.
        rows: the error matrix, for the errors under transferred examples.
        strength: of the attacks.
        device: the models'.
        folder: keeps each model's probe, so that a killed run goes on.
    """
    gradient = params.evaluation.gradients[0]
    found: dict[str, Any] = {}
    with progress("diagnose", len(params.evaluation.diagnosed) * len(split), "images") as advance:
        for name in params.evaluation.diagnosed:
            measured = _probe(params, split, models[name], strength, device, folder / f"probe-{name}.json")
            advance(len(split))
            transferred = _transferred(rows, name, gradient)
            found[name] = _record(measured) | {"flags": [asdict(flag) for flag in flags(measured, transferred)]}
    return {"gradient": gradient, "models": found}


def _probe(
    params: Params, split: Split, model: LoadedModel, strength: Strength, device: torch.device, file: Path
) -> Probe:
    if not file.exists():
        parts = []
        for block, start in enumerate(range(0, len(split), BLOCK)):
            stop = min(start + BLOCK, len(split))
            images = to_pixels(torch.from_numpy(split.read_images(start, stop)).to(device))
            draws = block_draws(images.shape, 1, seed=params.evaluation.seed, block=block, device=device)
            with arithmetic_context("fp32", device):
                parts.append(
                    probe(
                        model.module,
                        images,
                        torch.from_numpy(split.read_labels(start, stop)).to(device),
                        strength=strength,
                        epsilons=params.evaluation.sweep,
                        noise=draws.signs,
                        gradient=params.evaluation.gradients[0],
                    )
                )
        write_text(file, json.dumps(_record(reduce(add, parts))))
    record = json.loads(file.read_text(encoding="utf-8"))
    return Probe(**(record | {"curve": dict(record["curve"])}))


def _record(measured: Probe) -> dict[str, Any]:
    """A probe as JSON has it: the curve as pairs, since keys of JSON are no numbers."""
    return asdict(measured) | {"curve": sorted(measured.curve.items())}


def _transferred(rows: Sequence[Mapping[str, Any]], target: str, gradient: str) -> dict[str, ErrorRate]:
    return {
        row["source"]: ErrorRate(row["errors"], row["n"])
        for row in rows
        if (row["target"], row["attack"], row["gradient"]) == (target, "fgsm", gradient) and row["source"] != target
    }
