"""``store verify``: a check that a store is intact."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from gradshard.stages.console.output import (
    digest_option,
    found_something,
    json_option,
    passed_over,
    signer_option,
    some,
    tell,
)
from gradshard.stages.console.places import PLACE
from gradshard.stages.console.progress import progress
from gradshard.storage.formats.manifest import SIZE_LIMIT, Manifest
from gradshard.storage.formats.store_files import Folder, ReadableFiles
from gradshard.storage.formats.store_paths import MANIFEST
from gradshard.storage.maintenance.signatures import claimed_signer, signature_text, vouched_by
from gradshard.storage.maintenance.strangers import strangers
from gradshard.storage.maintenance.verify import Fault, all_faults
from gradshard.storage.remote.location import files_at, is_url, shown
from gradshard.storage.remote.signature import vouched_signature
from gradshard.storage.remote.transfer import check_digest


@click.command()
@click.argument("store", type=PLACE)
@digest_option
@signer_option
@json_option
def command(store: str, digest: str | None, signer: Path | None, as_json: bool) -> None:
    """Check every byte of the store at a path or URL.

    Checks every file's SHA-256, every chunk's checksum, every code, the padding and the counts, and names the shards
    and rows that fail. With `--signer`, who signed the store is checked first. The exit code is 1 if anything is wrong.
    A remote store is read completely, one shard at a time, and not kept.
    """
    with vouched_by(signer):
        files, manifest = files_at(store)
        where = shown(store)
        content = files.read(MANIFEST, SIZE_LIMIT)
        check_digest(manifest, digest, where=where)
        signature = vouched_signature(files, manifest, content, signer, where=where)
    faults = check(where, files, manifest)
    foreign = [fault.file for fault in faults if fault.file not in manifest.files and fault.file != MANIFEST]
    litter = strangers(files.path, manifest)[0] if isinstance(files, Folder) else []
    result = {
        "store": where,
        "digest": manifest.digest,
        "intact": len(foreign) == len(faults),
        "shards": manifest.cut.shards,
        "bad_shards": sorted({fault.shard for fault in faults if fault.shard is not None}),
        "faults": [asdict(fault) for fault in faults],
        "foreign": foreign,
        "litter": litter,
        "signer": claimed_signer(signature),
        "signer_checked": signer is not None,
    }
    verdict = _verdict(where, manifest, [fault for fault in faults if fault.file not in foreign], foreign)
    signed = f"signed by {claimed_signer(signature)}" if signer else f"signature: {signature_text(signature)}"
    tell(result, [*fault_lines(faults), *passed_over(litter, []), signed, verdict], as_json=as_json)
    if faults:
        raise found_something()


def check(store: str, files: ReadableFiles, manifest: Manifest) -> list[Fault]:
    """Return all faults of a store, and show progress meanwhile."""
    with progress(f"verify {store}", manifest.cut.shards, "shards") as advance:
        return all_faults(files, manifest, advance=advance)


def fault_lines(faults: Iterable[Fault]) -> list[str]:
    """Return faults as text for a person, one line for each."""
    return [_line(fault) for fault in faults]


def _line(fault: Fault) -> str:
    if fault.shard is None:
        return f"{fault.file}: {fault.what}"
    rows = "" if fault.first is None else f", rows {fault.first} to {fault.last}"
    return f"shard {fault.shard}{rows}, {fault.file}: {fault.what}"


def _verdict(store: str, manifest: Manifest, damage: list[Fault], foreign: list[str]) -> str:
    whole = f"{manifest.cut.shards} shards, {manifest.dataset.rows} rows, {manifest.digest[:12]}"
    if not damage:
        but = f", but {some(foreign)} beside its files, and not its own: to be removed" if foreign else ""
        return f"{store} is intact: {whole}{but}"
    shards = {fault.shard for fault in damage if fault.shard is not None}
    others = sorted({fault.file for fault in damage if fault.shard is None})
    if not shards:
        remedy = f"`gradshard store repair {store}` makes such files again from the manifest, without a model"
        return (
            f"{store} differs in {some(others)} alone, its {manifest.cut.shards} shards are whole: "
            f"{'tell its owner' if is_url(store) else remedy}"
        )
    remedy = "`gradshard store repair` computes them again, `gradshard store pull` fetches the store again"
    more = f" and {some(others)}" if others else ""
    count = f"{len(shards)} of {manifest.cut.shards} shards{more}"
    return f"{store} is damaged: {count}; {'tell its owner' if is_url(store) else remedy}"
