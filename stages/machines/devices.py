"""Devices of this machine that a stage uses, and rows that they train on at once: settings in the environment."""

import os
from dataclasses import replace

import torch

from gradshard.stages.console.options import ClusterConfig
from gradshard.storage.errors import GradshardError

VARIABLE, ROWS_VARIABLE = "GRADSHARD_DEVICES", "GRADSHARD_ROWS_AT_ONCE"


def device_count(device: torch.device) -> int:
    """Return how many devices of a kind stages use: the value of GRADSHARD_DEVICES, by default one.

    ``auto`` means every GPU if there are any; on a CPU a device is a process with its share of the cores.

    Raises:
        GradshardError: the value is no such number, or more than there are GPUs.
    """
    text = os.environ.get(VARIABLE, "1")
    present = torch.cuda.device_count() if device.type == "cuda" else None
    if text == "auto":
        return present or 1
    if not text.isdecimal() or int(text) < 1:
        raise GradshardError(f"{VARIABLE} is {text}: set it to a number of devices, such as 8, or to auto")
    if present is not None and int(text) > present:
        raise GradshardError(f"{VARIABLE} is {text}, but there are {present} GPUs here: set it to auto or to fewer")
    return int(text)


def rows_at_once() -> int | None:
    """Return how many rows of a batch a device trains on at once: the value of GRADSHARD_ROWS_AT_ONCE; none: all.

    Raises:
        GradshardError: the value is no such number.
    """
    text = os.environ.get(ROWS_VARIABLE)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise GradshardError(f"{ROWS_VARIABLE} is {text}: set it to a number of rows, such as 32, or leave it out")
    return int(text)


def on_all_devices(cluster: ClusterConfig, device: torch.device) -> ClusterConfig:
    """Return the cluster with a worker for each of several devices, unless its options already say where to compute."""
    if cluster.scheduler is not None or cluster.workers:
        return cluster
    devices = device_count(device)
    return cluster if devices == 1 else replace(cluster, workers=devices)
