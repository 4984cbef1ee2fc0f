"""``store audit``: whether a store is honest."""

import secrets
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from gradshard.pipeline.audit.recompute import (
    RowAudit,
    Thresholds,
    audit_rows,
    detection_probability,
    labels_match,
    limits,
)
from gradshard.pipeline.models.precision import precision_context
from gradshard.pipeline.types import DeviceName
from gradshard.stages.store.open import cache_options, open_place
from gradshard.stages.store.origin import Origin, open_origin, origin_options
from gradshard.stages.store.output import found_something, json_option, table, tell
from gradshard.stages.support.progress import Advance, progress
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.sign_reader import SignStore

Rows = npt.NDArray[np.int64]

# For each row whose signs are compared, so many more have their label checked: that takes a forward pass only, and
# finds true labels where predicted ones are promised, which differ for few rows.
_LABELS_PER_ROW = 50
_SHARES = (0.01, 0.05)


@dataclass(frozen=True)
class Result:
    """What an audit found.

    ``sample`` are the random rows. ``critical`` are rows among those with a checked label whose stored label is not the
    true one: signs made for true labels differ there and nowhere else.
    """

    sample: RowAudit
    critical: RowAudit
    labels_checked: int
    labels_wrong: Rows
    limits: Thresholds

    @property
    def bad(self) -> Rows:
        """The rows whose signs no honest computation gives."""
        return np.union1d(self.sample.bad(self.limits), self.critical.bad(self.limits))

    @property
    def honest(self) -> bool:
        """Whether nothing was found."""
        mean = float(self.sample.gain.mean())
        return not len(self.bad) and not len(self.labels_wrong) and mean >= self.limits.mean_gain


@click.command()
@click.argument("store")
@origin_options
@click.option("--rows", "count", default=200, show_default=True, type=click.IntRange(min=1), help="Random rows.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the choice of rows; by default nobody can foresee it.")
@cache_options
@json_option
def command(
    store: str,
    weights: Path,
    dataset: Path,
    architecture: str | None,
    device: DeviceName,
    count: int,
    seed: int | None,
    cache: Path,
    cache_size: int,
    as_json: bool,
) -> None:
    """Compute random rows of STORE, a path or URL, again and compare.

    It finds stores whose digests are all right but whose signs are another model's, belong to other rows, were turned
    round or were made for other labels than promised. Exit code 1 if the store is not what it says.
    """
    opened = open_place(store, cache, cache_size)
    origin = open_origin(opened.manifest, weights, dataset, architecture, device, where=store)
    chosen = secrets.randbits(32) if seed is None else seed
    result = run(opened, origin, count=min(count, len(opened)), seed=chosen)
    tell(_record(store, opened, result, chosen), _lines(store, opened, result, chosen), as_json=as_json)
    if not result.honest:
        raise found_something()


def run(store: SignStore, origin: Origin, *, count: int, seed: int) -> Result:
    """Audit a store on ``count`` random rows; the same seed chooses the same rows."""
    order = np.random.default_rng(seed).permutation(len(store))
    sample, labelled = np.sort(order[:count]), np.sort(order[: count * _LABELS_PER_ROW])
    stored = store.load_labels()
    true = origin.split.read_labels()
    critical = labelled[stored[labelled] != true[labelled]][:count]
    least = limits(store.manifest.direction.gradient, store.manifest.direction.dtype)
    with (
        progress(f"audit {store.where}", len(labelled) + len(sample) + len(critical), "rows") as advance,
        precision_context("fp32", origin.device),
    ):
        right = _check_labels(origin, labelled, true, stored, advance)
        return Result(
            sample=_compare(store, origin, sample, stored, advance),
            critical=_compare(store, origin, critical, stored, advance),
            labels_checked=len(labelled),
            labels_wrong=labelled[~right],
            limits=least,
        )


def _check_labels(origin: Origin, rows: Rows, true: Rows, stored: Rows, advance: Advance) -> npt.NDArray[np.bool_]:
    policy, right = origin.direction.policy, []
    step = 1000
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        images, truth, label = _images(origin, part), _labels(origin, true[part]), _labels(origin, stored[part])
        right.append(labels_match(origin.model.module, images, truth, label, policy).cpu().numpy())
        advance(len(part))
    return np.concatenate(right)


def _compare(store: SignStore, origin: Origin, rows: Rows, stored: Rows, advance: Advance) -> RowAudit:
    if not len(rows):
        return RowAudit(rows=rows, gain=np.zeros(0), agreement=np.zeros(0))
    planes = np.concatenate([store.read(int(row), int(row) + 1) for row in rows])
    signs = torch.from_numpy(bitplanes.unpack(planes, store.manifest.dataset.pixels)).to(origin.device)
    audit = audit_rows(
        origin.model.module,
        _images(origin, rows),
        _labels(origin, stored[rows]),
        signs,
        gradient=origin.direction.gradient,
        rows=rows,
    )
    advance(len(rows))
    return audit


def _images(origin: Origin, rows: Rows) -> torch.Tensor:
    return torch.from_numpy(origin.split.take_images(rows)).to(origin.device)


def _labels(origin: Origin, labels: Rows) -> torch.Tensor:
    return torch.from_numpy(labels).to(origin.device)


def _record(where: str, store: SignStore, result: Result, seed: int) -> dict[str, object]:
    sample, critical = result.sample, result.critical
    rows, sampled = len(store), len(sample.rows)
    return {
        "store": where,
        "digest": store.manifest.digest,
        "honest": result.honest,
        "seed": seed,
        "rows": sampled,
        "mean_gain": float(sample.gain.mean()),
        "mean_agreement": float(sample.agreement.mean()),
        "least_gain": float(sample.gain.min()),
        "least_agreement": float(sample.agreement.min()),
        "limits": {"gain": _finite(result.limits.gain), "mean_gain": result.limits.mean_gain},
        "critical_rows": len(critical.rows),
        "bad_rows": result.bad.tolist(),
        "labels_checked": result.labels_checked,
        "wrong_labels": result.labels_wrong.tolist(),
        "worst": [
            {"row": int(sample.rows[at]), "gain": float(sample.gain[at]), "agreement": float(sample.agreement[at])}
            for at in np.argsort(sample.gain, kind="stable")[:5]
        ],
        "detection": {str(share): detection_probability(rows, sampled, round(share * rows)) for share in _SHARES},
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _lines(where: str, store: SignStore, result: Result, seed: int) -> list[str]:
    sample, rows = result.sample, len(store)
    worst = ", ".join(
        f"{sample.rows[at]} (gain {sample.gain[at]:.4f}, {sample.agreement[at]:.2%} of the signs)"
        for at in np.argsort(sample.gain, kind="stable")[:3]
    )
    chances = ", ".join(
        f"{share:.0%} bad rows: {detection_probability(rows, len(sample.rows), round(share * rows)):.4%}"
        for share in _SHARES
    )
    entries = {
        "rows compared": f"{len(sample.rows)} at random (seed {seed}), {len(result.critical.rows)} critical ones",
        "signs that agree": f"{sample.agreement.mean():.4%}",
        "mean gain": f"{sample.gain.mean():.6f} (an honest store: at least {result.limits.mean_gain})",
        "worst rows": worst,
        "bad rows": f"{len(result.bad)}{_some(result.bad)}",
        "labels checked": f"{result.labels_checked}, wrong: {len(result.labels_wrong)}{_some(result.labels_wrong)}",
        "chance to notice": chances if _finite(result.limits.gain) is not None else "single rows: none (cross-entropy)",
    }
    verdict = (
        f"{where} is honest as far as these rows show"
        if result.honest
        else f"{where} is not what it says: its signs or labels are not those of this model"
    )
    return [*table(entries), verdict]


def _some(rows: Rows) -> str:
    return f" (first: {', '.join(map(str, rows[:5]))})" if len(rows) else ""
