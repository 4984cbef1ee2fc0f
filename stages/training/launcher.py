"""Processes of one training run, started and watched by the library behind `torchrun`."""

import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from click import echo
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from gradshard.stages.training import rank_process
from gradshard.storage.errors import GradshardError


def launch(ranks: int, device: torch.device) -> None:
    """Run this command in ``ranks`` processes, and show the output of the first. If one fails, all are ended.

    Raises:
        GradshardError: a process failed.
    """
    if device.type == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // ranks)))
    # A failed rank is reported below, in one sentence.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="gradshard-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id=Path(folder).name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(folder, redirects=dict.fromkeys(range(1, ranks), Std.ALL)),
        )
        try:
            elastic_launch(config, sys.executable)("-m", rank_process.__name__, os.getpid(), *sys.argv[1:])
        except ChildFailedError as error:
            raise GradshardError(_cause(error.failures, ranks, Path(folder))) from error
        except SignalException as stop:
            raise KeyboardInterrupt from stop


def _cause(failures: Mapping[int, ProcessFailure], ranks: int, logs: Path) -> str:
    """Return why a training run failed.

    If a rank is killed, the others only report that it is gone; if one fails, the others may be ended by a signal
    before they report that.
    """
    told = [failure for failure in failures.values() if rank_process.was_told(failure)]
    for failure in told:
        if not rank_process.is_consequence(failure):
            return str(failure.message)
    for rank, failure in failures.items():
        if failure.exitcode < 0:
            return (
                f"rank {rank} of {ranks} was killed ({failure.signal_name()}; if that was not you, memory was short): "
                "run the same command again to go on from the last checkpoint"
            )
    if told:
        return str(told[0].message)
    rank, failure = next(iter(failures.items()))
    for log in sorted(logs.rglob(f"{rank}/stderr.log")):
        echo(log.read_text(), err=True, nl=False)
    return f"rank {rank} of {ranks} ended with exit code {failure.exitcode}: see above what it said"
