"""Models with random weights, where torch's hub and transformers look for pretrained ones."""

import hashlib
from pathlib import Path

import pytest
import torch
import torchvision


def torch_hub_file(patch: pytest.MonkeyPatch, home: Path, name: str, *, seed: int = 0, url: str = "https://nowhere"):
    """Put weights of a torchvision model into torch's cache; return the file and the state_dict.

    File names there end in the first digits of the file's hash, so torchvision's URL gets the name of this file.
    """
    patch.setenv("TORCH_HOME", str(home))
    torch.manual_seed(seed)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    state = torchvision.models.get_model(name).state_dict()
    folder = home / "hub/checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "weights.pth")
    digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    file = (folder / "weights.pth").rename(folder / f"{name}-{digest[:8]}.pth")
    patch.setattr(weights.value, "url", f"{url}/{file.name}")
    return file, state


def transformers_folder(folder: Path, kind: str, *, classes: int = 10, channels: int = 1, size: int = 28, **processor):
    """Save a small ResNet or ViT as transformers does, and return the model."""
    import transformers

    torch.manual_seed(5)
    if kind == "resnet":
        config = transformers.ResNetConfig(
            num_channels=channels,
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            layer_type="basic",
            num_labels=classes,
        )
        model = transformers.ResNetForImageClassification(config)
    else:
        config = transformers.ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=size,
            patch_size=7,
            num_channels=channels,
            num_labels=classes,
        )
        model = transformers.ViTForImageClassification(config)
    model.eval().save_pretrained(folder)
    usual = {"image_mean": [0.2] * channels, "image_std": [0.4] * channels, "size": {"height": size, "width": size}}
    transformers.ViTImageProcessor(**{**usual, **processor}).save_pretrained(folder)
    return model
