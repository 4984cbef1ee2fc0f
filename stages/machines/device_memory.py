"""Choice of the device and of the memory that passes may take on it, and the message about both."""

from collections.abc import Mapping

import torch
from torch import nn

from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.gradients.device_memory import limit_memory
from gradshard.pipeline.gradients.microbatches import fit
from gradshard.pipeline.models.precision import choose_device
from gradshard.stages.console.progress import echo


def device_of(params: Params) -> torch.device:
    """Choose the device that the parameters name, and let passes on it take the memory that they allow.

    Raises:
        GradshardError: this machine has no such device.
    """
    limit_memory(params.memory)
    return choose_device(params.device)


def tell_microbatches(models: Mapping[str, nn.Module], sample_shape: tuple[int, ...], device: torch.device) -> None:
    """Print how many images pass through some models at once, and which model limits the number."""
    found = {name: fit(model, sample_shape, device) for name, model in models.items()}
    name = min(found, key=lambda name: found[name].rows)
    its = found[name]
    echo(
        f"{its.rows} image{'s' * (its.rows > 1)} at once: a pass of {name} takes {its.image / 2**20:.3g} MiB for each, "
        f"of {its.room / 2**20:.0f} MiB"
    )
