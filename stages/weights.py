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
    """Convert TF-slim's Inception weights for timm.

    Reads FILE, the weights of Inception v3 or Inception-ResNet v2, and writes the safetensors file OUT with timm's
    names. FILE is the index of a TensorFlow checkpoint (NAME.index, beside its data), or a port of it to PyTorch by
    MMdnn: the .npy file of its arrays, or the state_dict of its model. No code in FILE runs, and TensorFlow is not
    needed. The background class and the auxiliary classifier are left out. To use the result, name OUT in
    static.NAME.weights, with the architecture that the command prints.
    """
    # Imported here: torch takes seconds.
    from gradshard.stages.jobs.converted_weights import convert_file

    convert_file(file, out)
