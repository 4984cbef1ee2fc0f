"""Place of a dataset's raw data, as the parameters give it."""

from pathlib import Path

from gradshard.pipeline.config.dataset import DatasetParams
from gradshard.storage.errors import GradshardError
from gradshard.storage.home import path_of
from gradshard.storage.ingest import sources
from gradshard.storage.ingest.decode import Transform
from gradshard.storage.ingest.image_folder import ImageFolder, open_folder


def raw_folder(params: DatasetParams) -> Path:
    """Find the folder (npz: the file) of the raw data.

    Raises:
        GradshardError: neither the parameters nor the environment name it.
    """
    folder = sources.raw_folder(params.path, params.name)
    if folder is None:
        raise GradshardError(
            f"dataset {params.name} needs its raw data: set dataset.path in the parameters, or "
            f"{sources.FOLDER_VARIABLE}"
        )
    return folder


def transform(params: DatasetParams) -> Transform:
    """Return how images are resized, as the parameters say."""
    assert params.size is not None
    return Transform(params.size, params.crop, params.interpolation)


def image_folder(params: DatasetParams, root: Path) -> ImageFolder:
    """Find the splits and classes of a folder of images.

    Raises:
        GradshardError: the folder has another layout.
    """
    return open_folder(
        root,
        train=params.train,
        test=params.test,
        transform=transform(params),
        seed=params.seed,
        class_names=path_of(params.class_names) if params.class_names else None,
    )
