"""The stage ``evaluate``: the error of every target under every attack from every source."""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from gradshard import storage
from gradshard.pipeline.attacks import custom
from gradshard.pipeline.attacks.fgsm import fgsm
from gradshard.pipeline.attacks.registry import AttackConfig
from gradshard.pipeline.attacks.run import check_attacks
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.evaluation.error_matrix import Case, plan_cases, plan_craftings
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import choose_device
from gradshard.pipeline.types import CLEAN
from gradshard.stages.support import paths
from gradshard.stages.support.attack_blocks import (
    EvaluationContext,
    EvaluationSubset,
    all_attacks,
    attack,
    iter_correct,
    load_context,
    matrix_rows,
    portions,
    undefined_gradients,
)
from gradshard.stages.support.dask_cluster import dask_client
from gradshard.stages.support.gradient_masking import diagnose
from gradshard.stages.support.models import ModelFile, model_file
from gradshard.stages.support.options import ClusterConfig, cluster_options, params_option
from gradshard.stages.support.progress import say, say_waiting
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import results
from gradshard.storage.formats.atomic import atomic_path, write_text
from gradshard.storage.formats.dataset import Dataset, open_dataset
from gradshard.storage.formats.sign_reader import open_store
from gradshard.storage.workspace import workspace

_ILLUSTRATED_EXAMPLES = 8


@click.command()
@cluster_options
@params_option
def command(params: Params, cluster: ClusterConfig) -> None:
    """Attack every target model from every source model.

    Reads the prepared test images and all weights that the parameters name; writes evaluation/matrix.parquet (an error
    rate with its 95 % interval per target, source and attack), evaluation/examples.parquet (which examples each of
    them got right), evaluation/diagnostics.json (flags that a model hides its gradient), metrics, and what the report
    shows. Each block of test images is one task; killed and started again, the stage goes on with the missing ones.
    Results do not depend on the number of workers.
    """
    data = open_dataset(paths.dataset(params))
    check_attacks(params.evaluation.attacks, classes=data.test.classes, attacks=all_attacks(params))
    device = choose_device(params.device)
    files = tuple(model_file(params, name) for name in _names(params))
    provenance = _provenance(params, data, files)
    measured = portions(params, len(data.test), _planned(params))
    with (
        workspace("evaluate", provenance, on_wait=say_waiting(paths.EVALUATION)) as work,
        dask_client(cluster, device.type) as client,
    ):
        where = paths.dataset(params).resolve()
        bench = EvaluationContext(params, where, data.test.digest, files, device.type, work.folder.resolve())
        load_context(bench)  # every model is checked before the first is attacked
        attacked = [(part, attack(bench, part, client)) for part in measured]
        undefined = undefined_gradients(file for _, files in attacked for file in files)
        rows = _write_results(params, data, attacked, withheld=undefined.keys())
        diagnostics = diagnose(bench, rows, client, strength=_strength(params))
        if undefined:
            diagnostics["undefined_gradients"] = undefined
        write_text(paths.EVALUATION / "diagnostics.json", json.dumps(diagnostics, indent=1) + "\n")
        write_text(paths.EVALUATION / "provenance.json", json.dumps(provenance, indent=1) + "\n")
        _write_images(bench, data)
    for name, counts in undefined.items():
        say(
            f"{name}: its gradient was NaN or infinite for {counts['undefined']} of {counts['rows']} rows, so no error "
            "under what it crafted is shown (docs/diagnostics.md: undefined gradients)"
        )
    say(f"{paths.EVALUATION}: {len(rows)} error rates")


def _planned(params: Params) -> list[Case]:
    evaluation = params.evaluation
    craftings = plan_craftings(
        evaluation.attacks,
        evaluation.gradients,
        _strength(params),
        label=evaluation.label,
        attacks=all_attacks(params),
    )
    return plan_cases(craftings, evaluation.targets, repeats=params.repeats, holdout=evaluation.holdout)


def _strength(params: Params) -> AttackConfig:
    attack = params.attack
    return AttackConfig(attack.epsilon, attack.alpha, attack.steps, attack.pgd_steps, attack.restarts)


def _names(params: Params) -> list[str]:
    """Every model that takes part."""
    evaluation = params.evaluation
    sources = [source for attackers in evaluation.attacks.values() for source in attackers]
    others = [*evaluation.illustrated, *evaluation.diagnosed, evaluation.holdout]
    return list(dict.fromkeys([*evaluation.targets, *sources, *others]))


def _write_results(
    params: Params,
    data: Dataset,
    measured: Sequence[tuple[EvaluationSubset, Sequence[Path]]],
    *,
    withheld: Collection[str],
) -> list[dict[str, Any]]:
    right = functools.partial(iter_correct, params, data.name, withheld=withheld)
    rows = [row for part, files in measured for row in matrix_rows(right(part, files))]
    examples = (block for part, files in measured for block in right(part, files))
    results.write_examples(paths.EVALUATION / "examples.parquet", examples)
    write_text(paths.EVALUATION / "errors.csv", _errors_csv(rows))
    write_text(paths.EVALUATION / "metrics.json", json.dumps(_metrics(params, rows), indent=1) + "\n")
    results.write_matrix(paths.EVALUATION / "matrix.parquet", rows)
    return rows


def _errors_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The matrix for ``dvc plots show``, which reads no Parquet."""
    lines = ["cell,error_rate"]
    for row in rows:
        source = f" from {row['source']}" if row["source"] else ""
        top = f" top {row['top']}" if row["top"] > 1 else ""
        lines.append(f"{row['attack']} {row['gradient']}{source} on {row['target']}{top},{row['error_rate']:.4f}")
    return "\n".join(lines) + "\n"


def _metrics(params: Params, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The columns of the paper's table 4, for every robust model among the targets: what DVC shows as metrics."""
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


def _write_images(bench: EvaluationContext, data: Dataset) -> None:
    """A few test images with the signed gradients of the illustrated models and what FGSM makes of them (figure 1)."""
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
    with atomic_path(paths.EVALUATION / "images.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _illustrated_rows(data: Dataset) -> list[int]:
    """The first test image of each class."""
    labels = data.test.read_labels()
    classes, first = np.unique(labels, return_index=True)
    del classes
    return [int(row) for row in first[:_ILLUSTRATED_EXAMPLES]]


def _provenance(params: Params, data: Dataset, files: Sequence[ModelFile]) -> dict[str, Any]:
    """Everything the results follow from: parameters, digests, versions."""
    foreign = {name: its.call for name, its in params.attack.custom.items() if name in params.evaluation.attacks}
    code = {"attacks": {name: custom.provenance(name=name, call=call) for name, call in foreign.items()}}
    return {
        "params": params.model_dump(by_alias=True, exclude={"device", "analysis", "blackbox"}),
        "dataset": {"train": data.train.digest, "test": data.test.digest},
        "models": {file.name: file.digest for file in files},
        "stores": {name: _store_content(name) for name in params.signs},
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
        **(code if foreign else {}),
    }


def _store_content(model: str) -> str | None:
    try:
        return open_store(paths.store(model)).manifest.content
    except GradshardError:
        return None
