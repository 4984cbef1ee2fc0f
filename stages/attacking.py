"""The part of ``evaluate`` that attacks: block by block of test images, and the rows of the matrix from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.autoattack import STEPS as AUTOATTACK_STEPS
from pipeline.catalogue import Draws
from pipeline.crafting import to_pixels
from pipeline.evaluation import BLOCK, Cell, Crafting, block_draws, evaluate_block, worst_cases
from pipeline.params import Params
from pipeline.precision import arithmetic_context
from pipeline.statistics import ErrorRate
from pipeline.vocabulary import ANY_SOURCE, CLEAN, WORST_CASE
from stages.console import progress
from stages.loading import LoadedModel
from storage.datasets.dataset import Split
from storage.files import replacing
from storage.results import Rows

Key = dict[str, Any]
_SAMPLE = 7


@dataclass(frozen=True)
class Portion:
    """Some test images and what is measured on them; ``shown`` are the cells that the matrix has from these images."""

    name: str
    rows: Rows
    planned: Sequence[Cell]
    shown: Sequence[Cell]
    worst: bool

    @property
    def blocks(self) -> list[Rows]:
        """The rows, block by block."""
        return [self.rows[start : start + BLOCK] for start in range(0, len(self.rows), BLOCK)]


def sampled_rows(params: Params, n: int) -> Rows:
    """The test images that are attacked: all, or the random ones that the parameters ask for; sorted, int64."""
    evaluation = params.evaluation
    if evaluation.sample is None or evaluation.sample >= n:
        return np.arange(n)
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((evaluation.seed, _SAMPLE))))
    return np.sort(draws.permutation(n)[: evaluation.sample])


def portions(params: Params, n: int, planned: Sequence[Cell]) -> list[Portion]:
    """What is measured on which of ``n`` test images."""
    rows = sampled_rows(params, n)
    if len(rows) == n:
        return [Portion("all", rows, planned, planned, worst=True)]
    own = [cell for cell in planned if cell.own]
    others = [cell for cell in planned if not cell.own]
    # The sample meets everything, for its worst cases; what was measured on all images is shown from these.
    return [Portion("all", np.arange(n), own, own, worst=False), Portion("sample", rows, planned, others, worst=True)]


def read_block(
    split: Split, rows: Rows, params: Params, *, block: int, restarts: int, device: torch.device
) -> tuple[Tensor, Tensor, Draws]:
    """The images, float32 in [0, 1], the labels and the attacks' random part of one block of test images."""
    images = to_pixels(torch.from_numpy(split.take_images(rows)).to(device))
    labels = torch.from_numpy(split.read_labels()[rows]).to(device)
    seed = params.evaluation.seed
    return images, labels, block_draws(images.shape, restarts, seed=seed, block=block, device=device)


def attack(
    params: Params,
    split: Split,
    portion: Portion,
    models: Mapping[str, LoadedModel],
    *,
    device: torch.device,
    folder: Path,
) -> list[Path]:
    """Evaluate block by block, each into a file of its own, so that a killed run goes on with the next."""
    modules = {name: model.module for name, model in models.items()}
    files = []
    with progress(f"evaluate {portion.name}", len(portion.rows), "images") as advance:
        for block, rows in enumerate(portion.blocks):
            files.append(folder / f"{portion.name}-{block:06d}.npy")
            if not files[-1].exists():
                restarts = params.attack.restarts
                images, labels, draws = read_block(split, rows, params, block=block, restarts=restarts, device=device)
                with arithmetic_context("fp32", device):
                    ranks = evaluate_block(modules, portion.planned, images, labels, draws=draws)
                with replacing(files[-1]) as temporary, temporary.open("wb") as file:
                    np.save(file, ranks.numpy())
            advance(len(rows))
    return files


def correct(
    params: Params, dataset: str, portion: Portion, files: Sequence[Path]
) -> Iterator[tuple[list[Key], Rows, npt.NDArray[np.bool_]]]:
    """Block by block: the keys of the matrix's rows, the examples, and which of them each row has right.

    For every top k the cells come first, then the worst cases.
    """
    worst = worst_cases(portion.planned) if portion.worst else []
    shown = [portion.planned.index(cell) for cell in portion.shown]
    keys = [_key(dataset, cell) for cell in portion.shown]
    keys += [_worst_key(params, dataset, target, gradient) for target, gradient, _ in worst]
    tops = params.evaluation.top
    for rows, path in zip(portion.blocks, files, strict=True):
        ranks: npt.NDArray[np.int32] = np.load(path, allow_pickle=False)
        found: list[npt.ArrayLike] = []
        for top in tops:
            right = np.asarray(ranks < top)
            found += [right[shown], *(right[members].all(axis=0) for _, _, members in worst)]
        yield [key | {"top": top} for top in tops for key in keys], rows, np.vstack(found)


def matrix_rows(blocks: Iterator[tuple[list[Key], Rows, npt.NDArray[np.bool_]]]) -> list[dict[str, Any]]:
    """The rows of the error matrix, from which examples each of them has right."""
    found: dict[int, tuple[Key, int, int]] = {}
    for keys, _, right in blocks:
        for number, (key, examples) in enumerate(zip(keys, right, strict=True)):
            _, errors, n = found.get(number, (key, 0, 0))
            found[number] = (key, errors + int((~examples).sum()), n + len(examples))
    return [{**key, **_rate(errors, n)} for key, errors, n in found.values()]


def _key(dataset: str, cell: Cell) -> Key:
    key = {"dataset": dataset, "target": cell.target}
    crafting = cell.crafting
    if crafting is None:
        clean = {"source": "", "attack": CLEAN, "gradient": "", "eps": 0.0, "alpha": 0.0, "steps": 0, "label": ""}
        return key | clean
    strength = crafting.strength
    return key | {
        "source": crafting.source,
        "attack": crafting.attack,
        "gradient": crafting.gradient,
        "eps": strength.epsilon,
        "alpha": strength.alpha if crafting.attack == "rand_fgsm" else 0.0,
        "steps": _steps(crafting),
        "label": crafting.label,
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


def _worst_key(params: Params, dataset: str, target: str, gradient: str) -> Key:
    return {
        "dataset": dataset,
        "target": target,
        "source": ANY_SOURCE,
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
