"""Steps on a device that computes while the process goes on."""

import torch

from benchmarks.ratios import Step


def awaited(step: Step, device: torch.device) -> Step:
    """Return a step that ends when the device has done what it was given."""
    if device.type == "cpu":
        return step

    def whole() -> None:
        step()
        torch.accelerator.synchronize()

    return whole
