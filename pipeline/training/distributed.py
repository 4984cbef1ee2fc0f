"""Several processes that train one model: who takes which rows of a batch, and what is added up over them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from gradshard.storage.errors import GradshardError

_PATIENCE = timedelta(days=7)


class LostRankError(GradshardError):
    """Another process that trains the same model is gone."""


@dataclass(frozen=True)
class Rank:
    """One of ``size`` processes, each of which takes its part of every batch."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Tell whether this process is the one that writes."""
        return self.rank == 0

    def part(self, rows: int) -> slice:
        """Return this process's rows of a batch: consecutive ones, as many as the others' to within one."""
        return slice(self.rank * rows // self.size, (self.rank + 1) * rows // self.size)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes.

        Raises:
            LostRankError: another process is gone.
        """
        if self.size == 1:
            return values
        summed = values.clone()
        with lost_ranks_told(self):
            torch.distributed.all_reduce(summed)
        return summed

    def gathered(self, values: Tensor, rows: int) -> Tensor:
        """Return what all processes have for a batch of ``rows`` rows, of which ``values`` are this one's part.

        Raises:
            GradshardError: another process is gone.
        """
        if self.size == 1:
            return values
        whole = values.new_zeros((rows, *values.shape[1:]))
        whole[self.part(rows)] = values
        return self.total(whole)

    def shared(self, values: Tensor) -> Tensor:
        """Broadcast the values of the first process to all of them; on the others ``values`` is overwritten.

        Raises:
            LostRankError: another process is gone.
        """
        if self.size > 1:
            with lost_ranks_told(self):
                torch.distributed.broadcast(values, src=0)
        return values

    def check(self, rows: int, batch: int) -> None:
        """Check that every process has rows in every batch of an epoch.

        Raises:
            GradshardError: some batch has fewer rows than there are processes.
        """
        smallest = min(batch, rows % batch or batch)
        if smallest < self.size:
            raise GradshardError(
                f"{self.size} ranks cannot share a batch of {smallest} rows ({rows} rows, training.batch {batch}): "
                "start fewer, or choose another training.batch"
            )


@contextmanager
def lost_ranks_told(ranks: Rank) -> Iterator[None]:
    """Turn torch's errors about a broken connection into one sentence."""
    try:
        yield
    except (torch.distributed.DistError, RuntimeError) as error:
        if ranks.size == 1 or isinstance(error, torch.OutOfMemoryError):
            raise
        raise LostRankError(
            f"rank {ranks.rank} of {ranks.size} lost another one ({str(error).splitlines()[0]}): look at the other "
            "ranks' messages, then run the same command again to go on from the last checkpoint"
        ) from error


@contextmanager
def init_distributed(device: torch.device) -> Iterator[tuple[Rank, torch.device]]:
    """Join the processes that `torchrun` started, if it did; yield this one's place and its device.

    NCCL connects GPUs, gloo everything else.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield Rank(), device
        return
    ranks = Rank(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # The first rank may wait for another process that makes the same output, and the others for it.
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield ranks, device
    finally:
        torch.distributed.destroy_process_group()
