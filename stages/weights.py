"""The commands for weights that somebody else trained."""

from pathlib import Path

import click


@click.group()
def group() -> None:
    """Convert weights that somebody else trained."""


@group.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def convert(file: Path, out: Path) -> None:
    """Convert FILE, TF-slim's Inception v3 or Inception-ResNet v2, to the safetensors file OUT with timm's names.

    FILE is the index of a checkpoint of TensorFlow (NAME.index, beside its data), or a port of it to PyTorch by MMdnn:
    the .npy file of its arrays, or the state_dict of its model. No code in it runs, and TensorFlow is not needed. The
    class of the background and the auxiliary classifier are left out. Name OUT in static.NAME.weights, with the
    architecture that is told.
    """
    # Imported here: torch takes seconds.
    from gradshard.stages.support.converted_weights import convert_file

    convert_file(file, out)
