"""The attacks of the stage ``evaluate``, block by block of test images, and the matrix rows that follow from them.

A block is one task, on this machine or on a cluster. Its results go into a file of its own, so that a killed run goes
on with the blocks that have no file.
"""

import functools
import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from distributed import Client
from torch import Tensor, nn

from gradshard.pipeline.attacks.crafting import AttackNoise
from gradshard.pipeline.attacks.registry import ATTACKS, Attack, AttackConfig, custom_attack
from gradshard.pipeline.config.battery import UNSEEN_BY_ALL, battery_source, split_battery, unseen_by_all
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.evaluation.error_matrix import (
    BLOCK,
    Case,
    block_draws,
    evaluate_block,
    members_of,
    plan_cases,
    plan_craftings,
    worst_cases,
)
from gradshard.pipeline.evaluation.statistics import ErrorRate
from gradshard.pipeline.gradients.device_memory import limit_memory
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.gradients.watching import Watched
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.types import ANY_SOURCE, CLEAN, WORST_CASE
from gradshard.stages.console.progress import progress
from gradshard.stages.jobs.models import ModelFile, load_model
from gradshard.stages.machines.dask_cluster import map_tasks
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import atomic_path, write_text
from gradshard.storage.formats.dataset import Split, open_dataset
from gradshard.storage.formats.results import Rows

Key = dict[str, Any]
_SAMPLE = 7


@dataclass(frozen=True)
class EvaluationSubset:
    """Some test images and the cases measured on them.

    ``shown`` are the cases that the matrix takes from these images; with ``worst`` it takes worst cases from them too.
    """

    name: str
    rows: Rows
    planned: Sequence[Case]
    shown: Sequence[Case]
    worst: bool

    @property
    def blocks(self) -> list[Rows]:
        """The rows, block by block."""
        return [self.rows[start : start + BLOCK] for start in range(0, len(self.rows), BLOCK)]


def all_attacks(params: Params) -> dict[str, Attack]:
    """Return the table of attacks, with those that the parameters add."""
    custom = params.attack.custom
    return {**ATTACKS, **{name: custom_attack(name, its.call, its.arguments) for name, its in custom.items()}}


def attack_config(params: Params) -> AttackConfig:
    """Return the strength of every attack."""
    attack = params.attack
    return AttackConfig(attack.epsilon, attack.alpha, attack.steps, attack.pgd_steps, attack.restarts)


def planned_cases(params: Params) -> list[Case]:
    """Return every error rate that the parameters ask for, in the order of the matrix."""
    evaluation = params.evaluation
    craftings = plan_craftings(
        evaluation.crafters,
        evaluation.gradients,
        attack_config(params),
        label=evaluation.label,
        attacks=all_attacks(params),
    )
    return plan_cases(craftings, evaluation.targets)


def sampled_rows(params: Params, n: int) -> Rows:
    """Return the rows of the attacked test images: all, or the random sample that is asked for; int64, sorted."""
    evaluation = params.evaluation
    if evaluation.sample is None or evaluation.sample >= n:
        return np.arange(n)
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((evaluation.seed, _SAMPLE))))
    return np.sort(draws.permutation(n)[: evaluation.sample])


def portions(params: Params, n: int, planned: Sequence[Case]) -> list[EvaluationSubset]:
    """Return the portions of ``n`` test images, each with the cases measured on it; none if no case is planned."""
    rows = sampled_rows(params, n)
    if not planned:
        return []
    if len(rows) == n:
        return [EvaluationSubset("all", rows, planned, planned, worst=True)]
    own = [cell for cell in planned if cell.own]
    others = [cell for cell in planned if not cell.own]
    # The sample meets every case, as its worst cases need; cases measured on all images are shown from there.
    return [
        EvaluationSubset("all", np.arange(n), own, own, worst=False),
        EvaluationSubset("sample", rows, planned, others, worst=True),
    ]


@dataclass(frozen=True)
class EvaluationContext:
    """Inputs that a worker needs to attack: the parameters, and where test images, models and results are."""

    params: Params
    dataset: Path
    digest: str
    models: tuple[ModelFile, ...]
    device: str
    folder: Path


_opening = threading.Lock()


def load_context(bench: EvaluationContext) -> tuple[Split, dict[str, nn.Module]]:
    """Return the test images and all models, opened once per process.

    Raises:
        GradshardError: a file changed since the run began.
    """
    with _opening:
        limit_memory(bench.params.memory)
        return _open_once(bench.dataset, bench.digest, bench.models, bench.device)


@functools.lru_cache(maxsize=1)
def _open_once(
    dataset: Path, digest: str, files: tuple[ModelFile, ...], device: str
) -> tuple[Split, dict[str, nn.Module]]:
    if device == "cpu":
        # Blocks are what runs in parallel: with one thread each, no result depends on the number of threads.
        torch.set_num_threads(1)
    data = open_dataset(dataset)
    found = {file.name: load_model(file.path, file.architecture, data, torch.device(device)) for file in files}
    changed = [file.path for file in files if found[file.name].digest != file.digest]
    if data.test.digest != digest or changed:
        raise GradshardError(f"{(changed or [dataset])[0]} changed while models were evaluated: start again")
    return data.test, {name: model.module for name, model in found.items()}


def read_block(
    bench: EvaluationContext, rows: Rows, *, block: int, restarts: int
) -> tuple[Tensor, Tensor, AttackNoise]:
    """Return one block of test images: the images, float32 in [0, 1], the labels, and the attacks' random part."""
    split, _ = load_context(bench)
    device, seed = torch.device(bench.device), bench.params.evaluation.seed
    images = to_unit_range(torch.from_numpy(split.take_images(rows)).to(device))
    labels = torch.from_numpy(split.read_labels()[rows]).to(device)
    return images, labels, block_draws(images.shape, restarts, seed=seed, block=block, device=device)


def attack(bench: EvaluationContext, portion: EvaluationSubset, client: Client) -> list[Path]:
    """Evaluate all blocks that have no file yet, and return the files of all blocks."""
    files = [_block_file(bench, portion, block) for block in range(len(portion.blocks))]
    missing = [block for block, file in enumerate(files) if not file.exists()]
    rows_left = sum(len(portion.blocks[block]) for block in missing)
    label, done = f"evaluate {portion.name}", len(portion.rows) - rows_left
    with progress(label, len(portion.rows), "images", done=done) as advance:
        for block, _ in map_tasks(client, functools.partial(_attack_block, bench, portion), missing, what="block"):
            advance(len(portion.blocks[block]))
    return files


def _attack_block(bench: EvaluationContext, portion: EvaluationSubset, block: int) -> None:
    file = _block_file(bench, portion, block)
    if file.exists():  # when a worker dies, Dask repeats the tasks whose results it held
        return
    _, models = load_context(bench)
    attacks = all_attacks(bench.params)
    restarts = bench.params.attack.restarts if _draws_starts(portion.planned, attacks) else 0
    images, labels, draws = read_block(bench, portion.blocks[block], block=block, restarts=restarts)
    watched = {name: Watched(model) for name, model in models.items()}
    with precision_context("fp32", images.device):
        ranks = evaluate_block(watched, portion.planned, images, labels, draws=draws, attacks=attacks)
    # Written before the ranks, whose file marks the block as done.
    found = {name: [model.undefined, model.rows] for name, model in watched.items() if model.undefined}
    if found:
        write_text(_undefined_file(file), json.dumps(found))
    with atomic_path(file) as temporary, temporary.open("wb") as opened_file:
        np.save(opened_file, ranks.numpy())


def _draws_starts(planned: Sequence[Case], attacks: Mapping[str, Attack]) -> bool:
    """Tell whether an attack takes random starts, or the seed, which is drawn after them.

    If none does, no starts are drawn: those of 500 photographs take half a gigabyte.
    """
    takes = {what for case in planned if case.crafting for what in attacks[case.crafting.attack].takes.values()}
    return bool(takes & {"starts", "seed"})


def _block_file(bench: EvaluationContext, portion: EvaluationSubset, block: int) -> Path:
    return bench.folder / f"{portion.name}-{block:06d}.npy"


def _undefined_file(block: Path) -> Path:
    return block.with_suffix(".undefined.json")


def undefined_gradients(files: Iterable[Path]) -> dict[str, dict[str, int]]:
    """Count, for each model with NaN or infinite gradients, the rows that had them, and all rows in the same blocks."""
    found: dict[str, dict[str, int]] = {}
    for file in map(_undefined_file, files):
        if file.exists():
            for name, (undefined, rows) in json.loads(file.read_text(encoding="utf-8")).items():
                counts = found.setdefault(name, {"undefined": 0, "rows": 0})
                counts["undefined"] += undefined
                counts["rows"] += rows
    return found


def iter_correct(
    params: Params,
    dataset: str,
    portion: EvaluationSubset,
    files: Sequence[Path],
    *,
    seed: int,
    withheld: Collection[str] = (),
) -> Iterator[tuple[list[Key], Rows, npt.NDArray[np.bool_]]]:
    """Yield, block by block: the keys of the matrix's rows, the test images, and which images each row has right.

    For every top k the cells come first, then the worst cases. ``seed`` is that of the robust models. Cells crafted by
    models of ``withheld``, and worst cases over such cells, are left out: where a gradient is undefined, the attack
    leaves the image as it is.
    """
    sound = [cell.crafting is None or cell.crafting.source not in withheld for cell in portion.planned]
    worst = [case for case in _worst(params, portion) if all(sound[at] for at in case[1])]
    shown = [at for at in map(portion.planned.index, portion.shown) if sound[at]]
    attacks = all_attacks(params)
    run = {"dataset": dataset, "seed": seed}
    keys = [run | case_key(portion.planned[at], attacks) for at in shown]
    keys += [run | key for key, _ in worst]
    tops = params.evaluation.top
    for rows, path in zip(portion.blocks, files, strict=True):
        ranks: npt.NDArray[np.int32] = np.load(path, allow_pickle=False)
        found: list[npt.ArrayLike] = []
        for top in tops:
            right = np.asarray(ranks < top)
            found += [right[shown], *(right[members].all(axis=0) for _, members in worst)]
        yield [key | {"top": top} for top in tops for key in keys], rows, np.vstack(found)


def matrix_rows(blocks: Iterator[tuple[list[Key], Rows, npt.NDArray[np.bool_]]]) -> list[dict[str, Any]]:
    """Return the rows of the error matrix, counted from what ``iter_correct`` yields."""
    found: dict[int, tuple[Key, int, int]] = {}
    for keys, _, right in blocks:
        for number, (key, examples) in enumerate(zip(keys, right, strict=True)):
            _, errors, n = found.get(number, (key, 0, 0))
            found[number] = (key, errors + int((~examples).sum()), n + len(examples))
    return [{**key, **_rate(errors, n)} for key, errors, n in found.values()]


def case_key(cell: Case, attacks: Mapping[str, Attack]) -> Key:
    """Return the key of an error rate in the matrix, without dataset, seed and top k."""
    key = {"target": cell.target}
    crafting = cell.crafting
    if crafting is None:
        clean = {"source": "", "attack": CLEAN, "gradient": "", "eps": 0.0, "alpha": 0.0, "steps": 0, "label": ""}
        return key | clean
    strength, attack = crafting.strength, attacks[crafting.attack]
    return key | {
        "source": crafting.source,
        "attack": crafting.attack,
        "gradient": crafting.gradient,
        "eps": strength.epsilon,
        "alpha": attack.alpha_of(strength),
        "steps": attack.steps_of(strength),
        "label": crafting.label,
    }


def _worst(params: Params, portion: EvaluationSubset) -> list[tuple[Key, list[int]]]:
    """Return the keys of a portion's worst cases, each with the indices of the cells that it is taken over."""
    if not portion.worst:
        return []
    planned, battery = portion.planned, params.evaluation.battery
    over_all = worst_cases(planned)
    found = [(_worst_key(params, target, gradient, ANY_SOURCE), members) for target, gradient, members in over_all]
    if battery is None:
        return found
    common = {UNSEEN_BY_ALL: sources} if (sources := unseen_by_all(params)) else {}
    for target, gradient, _ in over_all:
        for half, sources in (*split_battery(params, target).items(), *common.items()):
            members = members_of(planned, target, gradient, sources=sources, attacks=battery.attacks)
            found.append((_worst_key(params, target, gradient, battery_source(half)), members))
    return found


def _worst_key(params: Params, target: str, gradient: str, source: str) -> Key:
    return {
        "target": target,
        "source": source,
        "attack": WORST_CASE,
        "gradient": gradient,
        "eps": params.attack.epsilon,
        "alpha": 0.0,
        "steps": 0,
        "label": "",
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
