"""The command ``fingerprint``: a check for changes of the raw data since it was prepared, without preparing it."""

from collections.abc import Mapping
from pathlib import Path

import click

from gradshard.pipeline import plugins
from gradshard.pipeline.config.dataset import DatasetParams
from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.options import params_option
from gradshard.stages.console.progress import echo
from gradshard.stages.project import paths
from gradshard.stages.project.raw_data import image_folder, raw_folder
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.formats.digests import canonical_json
from gradshard.storage.ingest import sources
from gradshard.storage.ingest.fingerprint import file_fingerprint, files_fingerprint, folder_fingerprint

# Their content is checked against a digest, or comes with a package.
_FIXED = ("mnist5k", "mnist")


@click.command()
@params_option
def command(params: Params) -> None:
    """Write a fingerprint of the raw data, data/raw.json, which changes when the data does.

    It is made from the content of files of up to 1 GiB, from the size and date of larger files, and from the names,
    classes, sizes and dates of the images of a folder. If the raw data is not on this machine, an existing fingerprint
    is kept.
    """
    target = paths.FINGERPRINT
    try:
        found = _fingerprint(params.dataset)
    except GradshardError:
        if target.exists() and _is_away(params.dataset):
            echo(f"{target}: stays, for the raw data is not here")
            return
        raise
    text = canonical_json({"dataset": params.dataset.name, **found}) + "\n"
    changed = not target.exists() or target.read_text(encoding="utf-8") != text
    if changed:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
    echo(f"{target}: {'written' if changed else 'the raw data is as it was'}")


def _fingerprint(params: DatasetParams) -> Mapping[str, object]:
    if params.name in _FIXED:
        return {}
    if params.hub is not None:
        return {"hub": params.hub}
    if params.call is not None:
        code = plugins.source_digest(params.call, what=f"dataset {params.name}")
        return {"call": params.call, "arguments": params.arguments, "code": code}
    path = raw_folder(params)
    if params.name == "imagefolder":
        return folder_fingerprint(image_folder(params, path))
    if params.name in ("huggingface", "torchvision"):
        return files_fingerprint(path)
    files = sources.idx_files(path) if params.name == "idx" else {path.name: path}
    return {"files": {name: file_fingerprint(file) for name, file in files.items()}}


def _is_away(params: DatasetParams) -> bool:
    path: Path | None = sources.raw_folder(params.path, params.name)
    return path is None or not path.exists()
