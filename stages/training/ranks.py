"""Training on all devices of this machine: the stage starts itself once for each."""

import os

import torch

from gradshard.stages.machines.devices import device_count


def train_on_all_devices(device: torch.device) -> bool:
    """Run this command in a process for each device if there are several; return whether there are.

    Raises:
        GradshardError: a process failed.
    """
    devices = 1 if "RANK" in os.environ else device_count(device)
    if devices == 1:
        return False
    # Imported here: it takes a second, and most training runs use one device.
    from gradshard.stages.training.launcher import launch

    launch(devices, device)
    return True
