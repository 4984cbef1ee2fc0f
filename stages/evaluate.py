"""The stage ``evaluate``: the error of every target under every attack from every source."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch

import storage
from pipeline.attacks import fgsm, input_gradient
from pipeline.autoattack import STEPS as AUTOATTACK_STEPS
from pipeline.catalogue import Strength, check_attacks
from pipeline.crafting import to_pixels
from pipeline.evaluation import BLOCK, Cell, Crafting, block_draws, cells, evaluate_block, plan_craftings, worst_cases
from pipeline.params import Params
from pipeline.precision import arithmetic_context, choose_device
from pipeline.statistics import ErrorRate
from pipeline.vocabulary import ANY_SOURCE, CLEAN, WORST_CASE
from stages import paths
from stages.console import progress, say, say_waiting
from stages.diagnose import diagnose
from stages.loading import LoadedModel, load_model, weights_of
from stages.options import params_option
from storage import results
from storage.datasets.dataset import Dataset, open_dataset
from storage.errors import GradshardError
from storage.files import replacing, write_text
from storage.partial import partial
from storage.signs.store import open_store

_ILLUSTRATED_EXAMPLES = 8

Models = Mapping[str, LoadedModel]


@click.command()
@params_option
def command(params: Params) -> None:
    """Attack every target model from every source model.

    Reads the prepared test images and all weights that the parameters name; writes evaluation/matrix.parquet (an error
    rate with its 95 % interval per target, source and attack), evaluation/examples.parquet (which examples each of
    them got right), evaluation/diagnostics.json (flags that a model hides its gradient), metrics, and what the report
    shows. Killed and started again, it goes on with the next block of
    test images.
    """
    data = open_dataset(paths.dataset(params))
    check_attacks(params.evaluation.attacks.keys(), classes=data.test.classes)
    device = choose_device(params.device)
    models = _load_models(params, data, device)
    planned = _planned(params)
    provenance = _provenance(params, data, models)
    with partial("evaluate", provenance, on_wait=say_waiting(paths.EVALUATION)) as work:
        blocks = _evaluate_blocks(params, data, models, planned, device, work.folder)
        rows = _write_results(params, data, planned, blocks)
        diagnostics = diagnose(
            params, data.test, models, rows, strength=_strength(params), device=device, folder=work.folder
        )
        write_text(paths.EVALUATION / "diagnostics.json", json.dumps(diagnostics, indent=1) + "\n")
        write_text(paths.EVALUATION / "provenance.json", json.dumps(provenance, indent=1) + "\n")
        _write_images(params, data, models, device)
    say(f"{paths.EVALUATION}: {len(planned)} error rates")


def _planned(params: Params) -> list[Cell]:
    evaluation = params.evaluation
    craftings = plan_craftings(evaluation.attacks, evaluation.gradients, _strength(params))
    return cells(craftings, evaluation.targets, repeats=params.repeats, holdout=evaluation.holdout)


def _strength(params: Params) -> Strength:
    attack = params.attack
    return Strength(attack.epsilon, attack.alpha, attack.steps, attack.pgd_steps, attack.restarts)


def _load_models(params: Params, data: Dataset, device: torch.device) -> dict[str, LoadedModel]:
    evaluation = params.evaluation
    sources = [source for attackers in evaluation.attacks.values() for source in attackers]
    names = dict.fromkeys(
        [*evaluation.targets, *sources, *evaluation.illustrated, *evaluation.diagnosed, evaluation.holdout]
    )
    return {name: load_model(*weights_of(params, name), data, device) for name in names}


def _evaluate_blocks(
    params: Params,
    data: Dataset,
    models: Models,
    planned: Sequence[Cell],
    device: torch.device,
    folder: Path,
) -> list[Path]:
    """Evaluate block by block, each into a file of its own, so that a killed run goes on with the next."""
    split, modules = data.test, {name: model.module for name, model in models.items()}
    files = []
    with progress("evaluate", len(split), "images") as advance:
        for block, start in enumerate(range(0, len(split), BLOCK)):
            stop = min(start + BLOCK, len(split))
            files.append(folder / f"{block:06d}.npy")
            if not files[-1].exists():
                images = to_pixels(torch.from_numpy(split.read_images(start, stop)).to(device))
                labels = torch.from_numpy(split.read_labels(start, stop)).to(device)
                restarts, seed = params.attack.restarts, params.evaluation.seed
                draws = block_draws(images.shape, restarts, seed=seed, block=block, device=device)
                with arithmetic_context("fp32", device):
                    correct = evaluate_block(modules, planned, images, labels, draws=draws)
                with replacing(files[-1]) as temporary, temporary.open("wb") as file:
                    np.save(file, correct.numpy())
            advance(stop - start)
    return files


def _write_results(
    params: Params, data: Dataset, planned: Sequence[Cell], blocks: Sequence[Path]
) -> list[dict[str, Any]]:
    keys = [_key(data.name, cell) for cell in planned]
    keys += [_worst_key(params, data.name, target, gradient) for target, gradient, _ in worst_cases(planned)]
    errors = np.zeros(len(keys), dtype=np.int64)
    for _, correct in _correct(planned, blocks):
        errors += (~correct).sum(axis=1)
    rows = [{**key, **_rate(int(count), len(data.test))} for key, count in zip(keys, errors, strict=True)]
    results.write_examples(paths.EVALUATION / "examples.parquet", keys, _correct(planned, blocks))
    write_text(paths.EVALUATION / "errors.csv", _errors_csv(rows))
    write_text(paths.EVALUATION / "metrics.json", json.dumps(_metrics(params, rows), indent=1) + "\n")
    results.write_matrix(paths.EVALUATION / "matrix.parquet", rows)
    return rows


def _correct(planned: Sequence[Cell], blocks: Sequence[Path]) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Block by block, which examples each cell, then each worst case, has right."""
    worst = worst_cases(planned)
    for number, path in enumerate(blocks):
        correct: npt.NDArray[np.bool_] = np.load(path, allow_pickle=False)
        yield number * BLOCK, np.vstack([correct, *(correct[members].all(axis=0) for _, _, members in worst)])


def _key(dataset: str, cell: Cell) -> dict[str, Any]:
    key = {"dataset": dataset, "target": cell.target}
    crafting = cell.crafting
    if crafting is None:
        return key | {"source": "", "attack": CLEAN, "gradient": "", "eps": 0.0, "alpha": 0.0, "steps": 0}
    strength = crafting.strength
    return key | {
        "source": crafting.source,
        "attack": crafting.attack,
        "gradient": crafting.gradient,
        "eps": strength.epsilon,
        "alpha": strength.alpha if crafting.attack == "rand_fgsm" else 0.0,
        "steps": _steps(crafting),
    }


def _steps(crafting: Crafting) -> int:
    strength = crafting.strength
    return {
        "ifgsm": strength.steps,
        "mifgsm": strength.steps,
        "pgd": strength.pgd_steps,
        "cw": strength.pgd_steps,
        "autoattack": AUTOATTACK_STEPS,
    }.get(crafting.attack, 1)


def _worst_key(params: Params, dataset: str, target: str, gradient: str) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "target": target,
        "source": ANY_SOURCE,
        "attack": WORST_CASE,
        "gradient": gradient,
        "eps": params.attack.epsilon,
        "alpha": 0.0,
        "steps": 0,
    }


def _rate(errors: int, n: int) -> dict[str, Any]:
    rate = ErrorRate(errors, n)
    low, high = rate.interval
    wilson_low, wilson_high = rate.wilson
    return {
        "n": n,
        "errors": errors,
        "error_rate": rate.rate,
        "ci_low": low,
        "ci_high": high,
        "wilson_low": wilson_low,
        "wilson_high": wilson_high,
    }


def _errors_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The matrix for ``dvc plots show``, which reads no Parquet."""
    lines = ["cell,error_rate"]
    for row in rows:
        source = f" from {row['source']}" if row["source"] else ""
        lines.append(f"{row['attack']} {row['gradient']}{source} on {row['target']},{row['error_rate']:.4f}")
    return "\n".join(lines) + "\n"


def _metrics(params: Params, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The columns of the paper's table 4, for every robust model among the targets: what DVC shows as metrics."""
    holdout, gradient = params.evaluation.holdout, params.evaluation.gradients[0]
    metrics: dict[str, dict[str, float]] = {}
    for row in rows:
        target, source = row["target"], row["source"]
        if target in params.static or row["gradient"] not in ("", gradient):
            continue
        columns = {"": CLEAN, target: row["attack"], holdout: f"{row['attack']}_{holdout}"}
        if source in columns:
            metrics.setdefault(target, {})[columns[source]] = row["error_rate"]
    return metrics


def _write_images(params: Params, data: Dataset, models: Models, device: torch.device) -> None:
    """A few test images with the signed gradients of the illustrated models and what FGSM makes of them (figure 1)."""
    rows = _illustrated_rows(data)
    images = to_pixels(torch.from_numpy(np.concatenate([data.test.read_images(r, r + 1) for r in rows])).to(device))
    labels = torch.from_numpy(np.concatenate([data.test.read_labels(r, r + 1) for r in rows])).to(device)
    arrays = {"images": images.cpu().numpy(), "rows": np.array(rows)}
    for name in params.evaluation.illustrated:
        module = models[name].module
        slope, _ = input_gradient(module, images, labels)
        arrays[f"signs {name}"] = slope.sign().to(torch.int8).cpu().numpy()
        arrays[f"perturbed {name}"] = fgsm(module, images, labels, epsilon=params.attack.epsilon).cpu().numpy()
    with replacing(paths.EVALUATION / "images.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _illustrated_rows(data: Dataset) -> list[int]:
    """The first test image of each class."""
    labels = data.test.read_labels()
    classes, first = np.unique(labels, return_index=True)
    del classes
    return [int(row) for row in first[:_ILLUSTRATED_EXAMPLES]]


def _provenance(params: Params, data: Dataset, models: Models) -> dict[str, Any]:
    """Everything the results follow from: parameters, digests, versions."""
    return {
        "params": params.model_dump(by_alias=True, exclude={"device", "analysis", "blackbox"}),
        "dataset": {"train": data.train.digest, "test": data.test.digest},
        "models": {name: model.digest for name, model in models.items()},
        "stores": {name: _store_content(name) for name in params.signs},
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
    }


def _store_content(model: str) -> str | None:
    try:
        return open_store(paths.store(model)).manifest.content
    except GradshardError:
        return None
