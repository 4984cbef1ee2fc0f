"""The datasets by their names in the parameters, with the reader of each. A new dataset is one entry.

Readers are named, not imported, so that looking up a name loads nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_ROOM = "gradshard.storage.ingest"


@dataclass(frozen=True)
class Source:
    """Reader of the raw files of a dataset, and its arguments.

    Args:
        reader: a ``package.module:function`` that gives a ``RawDataset`` or, if ``by_shard``, an ``ImageFolder``.
        raw: whether its first argument is the path of the raw files: never, perhaps (or None), or always.
        takes: its keyword arguments: parameters of the dataset by their names, ``transform`` (made from the parameters
            of resizing), and ``show`` (see ``sources.Show``).
        by_shard: the images are files that are decoded shard by shard.
        may_be_sorted: the rows are shuffled if they are sorted by class.
    """

    reader: str
    raw: Literal["never", "perhaps", "always"] = "always"
    takes: tuple[str, ...] = ()
    by_shard: bool = False
    may_be_sorted: bool = False


DATASETS: Mapping[str, Source] = {
    "mnist5k": Source(f"{_ROOM}.sources:mnist5k", raw="never"),
    "mnist": Source(f"{_ROOM}.sources:mnist", raw="perhaps", takes=("show",)),
    "idx": Source(f"{_ROOM}.sources:idx", takes=("classes",), may_be_sorted=True),
    "npz": Source(f"{_ROOM}.sources:npz", takes=("classes", "layout", "scale"), may_be_sorted=True),
    "huggingface": Source(
        f"{_ROOM}.huggingface:huggingface",
        raw="perhaps",
        takes=("classes", "columns", "hub", "layout", "scale", "test", "train", "transform"),
        may_be_sorted=True,
    ),
    "torchvision": Source(
        f"{_ROOM}.torchvision_datasets:torchvision_dataset",
        takes=("arguments", "classes", "download", "kind", "test", "train", "transform"),
        may_be_sorted=True,
    ),
    "imagefolder": Source(f"{_ROOM}.image_folder:open_folder", by_shard=True),
}
