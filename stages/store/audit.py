"""``store audit``: a check that a store is honest, by computing random rows again."""

import secrets

import click
import numpy as np
import numpy.typing as npt

from gradshard.pipeline.audit.recompute import detection_probability
from gradshard.pipeline.audit.store import StoreAudit, audit_store, plan_audit
from gradshard.stages.console.output import found_something, json_option, table, tell
from gradshard.stages.console.progress import progress
from gradshard.stages.store.origin import Origin, store_with_origin
from gradshard.storage.formats.sign_reader import SignStore

Rows = npt.NDArray[np.int64]

_SHARES = (0.01, 0.05)
_NO_CHANCE = "single rows: none (rounding decides them)"


@click.command()
@store_with_origin
@click.option(
    "--rows", "count", default=200, show_default=True, type=click.IntRange(min=1), help="The number of random rows."
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="The seed that rows are drawn by; default: one that nobody can foresee."
)
@json_option
def command(store: SignStore, origin: Origin, count: int, seed: int | None, as_json: bool) -> None:
    """Compute random rows of STORE again, and compare.

    STORE is a path or URL. The audit finds stores whose digests are all correct, but whose signs come from another
    model, belong to other rows, were flipped, or were made for other labels than promised. The exit code is 1 if the
    store is not what it claims to be.
    """
    chosen = secrets.randbits(32) if seed is None else seed
    plan = plan_audit(store, origin.split, count=count, seed=chosen)
    with progress(f"audit {store.where}", plan.rows, "rows") as advance:
        result = audit_store(plan, store, origin.split, origin.model.module, advance=advance)
    tell(_record(store, result, chosen), _lines(store, result, chosen), as_json=as_json)
    if not result.honest:
        raise found_something()


def _record(store: SignStore, result: StoreAudit, seed: int) -> dict[str, object]:
    sample, critical = result.sample, result.critical
    rows, sampled = len(store), len(sample.rows)
    return {
        "store": store.where,
        "digest": store.manifest.digest,
        "honest": result.honest,
        "seed": seed,
        "rows": sampled,
        "mean_gain": float(sample.gain.mean()),
        "mean_agreement": float(sample.agreement.mean()),
        "least_gain": float(sample.gain.min()),
        "least_agreement": float(sample.agreement.min()),
        "limits": {
            "gain": _finite(result.limits.gain),
            "agreement": result.limits.agreement,
            "mean_gain": result.limits.mean_gain,
            "mean_agreement": result.limits.mean_agreement,
            "mean_surplus": _finite(result.limits.mean_surplus),
        },
        "critical_rows": len(critical.rows),
        "zero_rows": sample.zero_rows,
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


def _lines(store: SignStore, result: StoreAudit, seed: int) -> list[str]:
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
        "signs that agree": f"{sample.agreement.mean():.4%}{_least(result.limits.mean_agreement)}",
        "mean gain": f"{sample.gain.mean():.6f} (an honest store: at least {_least_gain(result)})",
        "worst rows": worst,
        "rows without gradient": f"{sample.zero_rows}{' (0 in every pixel: masked)' if sample.zero_rows else ''}",
        "bad rows": f"{len(result.bad)}{_some(result.bad)}",
        "labels checked": f"{result.labels_checked}, wrong: {len(result.labels_wrong)}{_some(result.labels_wrong)}",
        "chance to notice": chances if _finite(result.limits.gain) is not None else _NO_CHANCE,
    }
    return [*table(entries), result.verdict]


def _some(rows: Rows) -> str:
    return f" (first: {', '.join(map(str, rows[:5]))})" if len(rows) else ""


def _least_gain(result: StoreAudit) -> str:
    least = result.limits.mean_surplus
    return f"{result.limits.mean_gain}{f', and signs that agree {least:+}' if np.isfinite(least) else ''}"


def _least(agreement: float) -> str:
    return f" (an honest store: at least {agreement:.0%})" if agreement else ""
