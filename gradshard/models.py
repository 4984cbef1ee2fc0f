"""Models, made by name or loaded from their weights."""

from pathlib import Path

import torch
from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.models import create_model as create_model
from gradshard.pipeline.types import Output
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import checkpoints
from gradshard.storage.formats.dataset import Dataset, Split


def load_model(path: str | Path, dataset: Dataset, *, device: str | torch.device = "cpu") -> nn.Module:
    """Load a model that gradshard trained, frozen and in eval mode; probabilities become logits by the logarithm.

    Args:
        path: the model's weights, such as models/static/A.safetensors.
        dataset: the dataset whose images and classes the model is for.
        device: the device to put the model on.

    Raises:
        GradshardError: the file is missing or damaged, or its model is for other images; or its architecture is user
            code, which is not run here: the message says how to build that model.
    """
    if not isinstance(dataset, Dataset | Split):
        raise GradshardError(f"dataset is a {type(dataset).__name__}: give what open_dataset returns")
    tensors, record = checkpoints.load(Path(path))
    architecture = str(record.get("architecture"))
    output: Output = "probabilities" if record.get("output") == "probabilities" else "logits"
    if models.runs_user_code(architecture):
        made = f"create_model({architecture!r}, {dataset.sample_shape}, {dataset.classes}, output={output!r})"
        raise GradshardError(
            f"{path} holds a model of {architecture}, whose code is not run here: write model = {made}, "
            f"model.load_state_dict(safetensors.torch.load_file({str(path)!r})) and model.eval()"
        )
    return models.load_frozen(
        architecture, dataset.sample_shape, dataset.classes, tensors, where=str(path), output=output
    ).to(device)
