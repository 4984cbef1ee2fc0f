"""``store info``: the description of a store, from its manifest alone."""

import click

from gradshard.stages.console.output import bytes_text, json_option, table, tell
from gradshard.stages.console.places import PLACE
from gradshard.storage.formats.manifest import AttackRecord, Manifest
from gradshard.storage.formats.store_card import MASKED
from gradshard.storage.maintenance.signatures import claimed_signer, signature_text
from gradshard.storage.remote.location import manifest_at, shown
from gradshard.storage.remote.signature import signature_at

# In steps of 1/255: a multiple of a step, rounded to double precision, is nearer to it than this.
_TOLERANCE = 1e-9


@click.command()
@click.argument("store", type=PLACE)
@json_option
def command(store: str, as_json: bool) -> None:
    """Show what the store at a path or URL is.

    No shard is read, so a remote store is not downloaded.
    """
    manifest, signature = manifest_at(store), signature_at(store)
    result = manifest.model_dump(mode="json", exclude={"files"}) | {
        "size": manifest.size,
        "shards": manifest.cut.shards,
        "bits_per_pixel": manifest.bits_per_pixel,
        "zero_fraction": manifest.zero_fraction,
        "signer": claimed_signer(signature),
    }
    entries = _entries(store, manifest) | {"signature": signature_text(signature)}
    tell(result, table(entries), as_json=as_json)


def _entries(store: str, manifest: Manifest) -> dict[str, object]:
    dataset, model, direction, cut = manifest.dataset, manifest.model, manifest.direction, manifest.cut
    sign = "+" if direction.step > 0 else "-"
    attack = direction.attack
    arithmetic = f"{direction.dtype}{direction.agreement_text}"
    return {
        "store": shown(store),
        "digest": manifest.digest,
        "model": f"{model.name}, architecture {model.architecture}",
        "gradient": f"{direction.gradient}, label {direction.label}, {direction.mode} mode, {arithmetic}",
        **({} if attack is None else _attack(attack, direction.label)),
        "to use": f"clip(x {sign} epsilon * sign, 0, 1)",
        "dataset": f"{dataset.name}, split {dataset.split}, {dataset.classes} classes",
        "rows": f"{dataset.rows:,} of shape {dataset.sample_shape}",
        "size": f"{bytes_text(manifest.size)}, {manifest.bits_per_pixel:.3f} bits per pixel",
        "shards": f"{cut.shards} of {cut.shard} rows, chunks of {cut.chunk}",
        "zeros": f"{manifest.zero_fraction:.3%} of the signs{MASKED if manifest.zero_fraction == 1 else ''}",
        "licence": manifest.licence or "not stated",
        "content digest": manifest.content,
        "dataset digest": dataset.digest,
        "model digest": model.digest,
        "weights file": "not told" if model.weights_sha256 == model.digest else model.weights_sha256,
        "made with": ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())),
        "format": f"{manifest.format} {manifest.version}",
    }


def _attack(attack: AttackRecord, label: str) -> dict[str, str]:
    strength = {
        "epsilon": None if attack.epsilon is None else _pixels(attack.epsilon),
        "alpha": None if attack.alpha is None else _pixels(attack.alpha),
        **attack.arguments,
    }
    told = [f"{name} {value}" for name, value in strength.items() if value is not None]
    steps = [] if attack.steps is None else [f"{attack.steps} step{'s' if attack.steps > 1 else ''}"]
    return {
        "attack": ", ".join([attack.name, *told, *steps, f"label {label}"]),
        "end directions": f"{_zeros(attack)}{_copies(attack)}",
    }


def _pixels(distance: float) -> str:
    """Return a distance in pixel units as papers write it: 8/255, or 0.3."""
    short, steps = f"{distance:g}", distance * 255
    if float(short) == distance or abs(steps - round(steps)) > _TOLERANCE:
        return short
    return f"{round(steps)}/255"


def _zeros(attack: AttackRecord) -> str:
    if attack.threshold is None:
        return "signs of the gradient that it follows"
    return f"0 below {attack.threshold:g} of the way a pixel could go"


def _copies(attack: AttackRecord) -> str:
    return f"; {attack.copies} copies, seed {attack.seed}" if attack.copies > 1 else f"; seed {attack.seed}"
