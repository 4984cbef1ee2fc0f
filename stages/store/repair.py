"""``store repair``: recomputation of damaged shards."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import click
import torch

from gradshard.pipeline.types import DeviceName
from gradshard.stages.console.output import found_something, json_option, tell
from gradshard.stages.console.places import PathType
from gradshard.stages.console.progress import progress
from gradshard.stages.jobs.compute_rows import compute_rows
from gradshard.stages.store.origin import Origin, open_origin, optional_origin_options
from gradshard.stages.store.verify import check, fault_lines
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.bitplanes import Labels, Planes
from gradshard.storage.formats.manifest import Manifest, read_manifest
from gradshard.storage.formats.store_files import Folder
from gradshard.storage.maintenance.repair import repair, shards_of
from gradshard.storage.maintenance.verify import Fault


@click.command()
@click.argument("store", type=PathType(path_type=Path))
@optional_origin_options
@json_option
def command(
    store: Path,
    weights: Path | None,
    dataset: Path | None,
    architecture: str | None,
    attack: str | None,
    device: DeviceName,
    as_json: bool,
) -> None:
    """Verify STORE and make its damaged files again.

    Shards are made from the model and the dataset, all other files from the manifest: `--model` and `--dataset` are
    needed only if shards are damaged, not for the card or another small file. A file is replaced only if the new one is
    byte for byte the one that was published. The exit code is 1 if something could not be repaired.
    """
    manifest = read_manifest(store)
    faults = check(str(store), Folder(store), manifest)
    left: list[Fault] = []
    if faults:
        origin = None
        if shards_of(faults):
            if weights is None or dataset is None:
                raise GradshardError(
                    f"{store}: {len(shards_of(faults))} of {manifest.cut.shards} shards must be computed again: give "
                    "--model and --dataset, or fetch the store again by `gradshard store pull`"
                )
            origin = open_origin(manifest, weights, dataset, architecture, device, where=str(store), attack=attack)
        left = _mend(store, manifest, faults, origin)
    result = {
        "store": str(store),
        "digest": manifest.digest,
        "computed_shards": shards_of(faults),
        "mended": not left,
        "left": [asdict(fault) for fault in left],
    }
    files = len({fault.file for fault in faults} - {fault.file for fault in left})
    what = f"{files} files mended, {len(shards_of(faults))} shards computed" if faults else "nothing to mend"
    tell(result, [*fault_lines(left), f"{store}: {what}"], as_json=as_json)
    if left:
        raise found_something()


def _mend(store: Path, manifest: Manifest, faults: list[Fault], origin: Origin | None) -> list[Fault]:
    """Mend a store and return the faults that are left; without a faulty shard no origin is needed."""
    shards = shards_of(faults)
    if origin is not None and origin.device.type == "cpu":
        torch.set_num_threads(1)  # as in precompute

    def compute(shard: int) -> tuple[Planes, Labels]:
        assert origin is not None
        rows = manifest.cut.shard_rows(shard)
        return compute_rows(origin.model, origin.split, rows, origin.direction, origin.device)

    with (
        tempfile.TemporaryDirectory(prefix="gradshard-repair-") as scratch,
        progress(f"repair {store}", len(shards), "shards") as advance,
    ):
        return repair(store, manifest, faults, scratch=Path(scratch), compute=compute, advance=advance)
