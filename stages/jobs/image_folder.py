"""Conversion of a folder of images to a dataset, whose shards Dask workers decode."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from distributed import Client

from gradshard import storage
from gradshard.pipeline.config.dataset import DatasetParams
from gradshard.stages.console.options import ClusterConfig
from gradshard.stages.console.progress import echo, echo_waiting, progress
from gradshard.stages.machines.dask_cluster import dask_client, map_tasks
from gradshard.stages.project.raw_data import image_folder
from gradshard.storage.errors import GradshardError
from gradshard.storage.ingest.class_order import misnumbered
from gradshard.storage.ingest.folder_builder import SPLITS, FolderBuilder, is_published
from gradshard.storage.ingest.folder_shards import Broken, SplitTask, make_shard
from gradshard.storage.ingest.image_folder import ImageFolder
from gradshard.storage.workspace import root_for, workspace

# The libraries that the bytes of a dataset depend on.
_LIBRARIES = ("numcodecs", "numpy", "pillow", "pyarrow", "zarr")
_TOLD = 3


def prepare_folder(params: DatasetParams, root: Path, target: Path, place: ClusterConfig) -> None:
    """Decode the images of a folder into the dataset ``target``; a killed run goes on with the missing shards.

    Raises:
        GradshardError: the folder has another layout, or an image is broken and ``dataset.broken`` is ``fail``.
    """
    source = image_folder(params, root)
    wait, root = echo_waiting(target), root_for(target)
    with workspace(f"prepare-{params.name}", _recipe(source), on_wait=wait, root=root) as work:
        builder = FolderBuilder(work.folder, source, name=params.name, skip=params.broken == "skip")
        builder.scan()
        _echo_missing(builder.without_images(), len(source.class_names))
        _echo_passed_over(builder.passed_over)
        if params.class_names is None:
            _echo_order(source.class_names)
        if work.waited and is_published(target, builder.attributes()):
            echo(f"{target}: made by the other process")
            return
        with dask_client(place, "cpu") as client:
            for split in SPLITS:
                while broken := _make_missing(client, builder, split, stop=params.broken == "fail"):
                    if params.broken == "fail":
                        raise GradshardError(_sentence(source.root, broken))
                    builder.leave_out(split, broken)
        for split in SPLITS:
            _echo_skipped(split, builder.left_out(split))
        builder.publish(target)


def _make_missing(client: Client, builder: FolderBuilder, split: str, *, stop: bool) -> list[Broken]:
    """Make the missing shards of a split, return the broken images; with ``stop``, end at the first shard with any."""
    task, again = builder.lay_out(split), len(builder.left_out(split))
    missing = builder.missing(split)
    rows = {shard: _rows(task, shard) for shard in missing}
    if again:
        echo(f"{split}: {len(missing)} of {task.cut.shards} shards are to be made without {again} broken images")
    elif len(missing) < task.cut.shards:
        echo(f"{split}: going on: {task.cut.shards - len(missing)} of {task.cut.shards} shards are there")
    broken: list[Broken] = []
    done = task.cut.rows - sum(rows.values())
    with progress(f"prepare {split}", task.cut.rows, "images", done=done) as advance:
        for _, outcome in map_tasks(client, functools.partial(make_shard, task), missing, what="shard"):
            advance(outcome.rows)
            broken += outcome.broken
            if broken and stop:
                break
    return broken


def _rows(task: SplitTask, shard: int) -> int:
    rows = task.cut.shard_rows(shard)
    return int(rows.stop - rows.start)


def _recipe(source: ImageFolder) -> dict[str, object]:
    """Return what the shards depend on besides the images, which each shard's receipt records."""
    versions = {"gradshard": storage.__version__, **{name: version(name) for name in _LIBRARIES}}
    return {"source": asdict(source) | {"root": str(source.root)}, "versions": versions}


def _sentence(root: Path, broken: Sequence[Broken]) -> str:
    first, more = broken[0], len(broken) - 1
    others = f", and so are {more} more of the same shard" if more else ""
    return (
        f"{root / first.entry.file} is broken ({first.reason}){others}: repair or remove it, or set dataset.broken to "
        "skip"
    )


def _echo_missing(classes: Sequence[str], count: int) -> None:
    if classes:
        more = f" and {len(classes) - _TOLD} more" if len(classes) > _TOLD else ""
        echo(f"note: of {count} classes, these have no training images: {', '.join(classes[:_TOLD])}{more}")


def _echo_passed_over(counts: Mapping[str, Counter[str]]) -> None:
    for split, found in counts.items():
        if found:
            named = ", ".join(f"{count} {why}" for why, count in sorted(found.items()))
            echo(f"note: {split}: {found.total()} images are passed over ({named}): see docs/datasets.md")


def _echo_order(names: Sequence[str]) -> None:
    if (name := misnumbered(names)) is not None:
        echo(
            f"note: the folders are numbers, but labels follow their order as text: {name} is label "
            f"{names.index(name)}; name the classes in another order in dataset.class_names"
        )


def _echo_skipped(split: str, broken: Sequence[Broken]) -> None:
    if broken:
        named = ", ".join(f"{each.entry.file} ({each.reason})" for each in broken[:_TOLD])
        more = f" and {len(broken) - _TOLD} more" if len(broken) > _TOLD else ""
        echo(f"{split}: {len(broken)} broken images are skipped: {named}{more}")
