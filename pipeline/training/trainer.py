"""The training loop: a model, its optimiser, and the step it is at."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from gradshard.pipeline.malloc import keep_freed_memory
from gradshard.pipeline.models.auxiliary import AuxiliaryHead
from gradshard.pipeline.models.precision import Arithmetic
from gradshard.pipeline.training.config import TrainingRun
from gradshard.pipeline.training.data import Batch, RankSlice, StoredBatch, cut, make_batch, rank_slice, read
from gradshard.pipeline.training.distributed import lost_ranks_told
from gradshard.pipeline.training.loss import BatchLoss
from gradshard.pipeline.training.methods.making import make_method
from gradshard.pipeline.training.methods.method import Losses, added
from gradshard.pipeline.training.optimizers import adjust_gradients, load_state, make_optimizer, trained
from gradshard.pipeline.training.passes import PassCounts
from gradshard.pipeline.training.priors import SignBuffer
from gradshard.pipeline.training.weight_average import WeightAverage
from gradshard.storage.errors import GradshardError
from gradshard.storage.streaming.reader import Reader

RECORD_STEPS = 25


@dataclass(frozen=True)
class TrainMetrics:
    """The means since the previous record: losses per batch, and the share of batches with a live gradient.

    A loss that the method does not have is none.
    """

    step: int
    epoch: float
    clean_loss: float | None
    adversarial_loss: float | None
    live_share: float


@dataclass(frozen=True)
class Step:
    """A finished step; every ``RECORD_STEPS`` steps, and at the end of an epoch, it carries a record."""

    number: int
    live: bool
    record: TrainMetrics | None


class Trainer:
    """A model, its optimiser, and the step it is at."""

    def __init__(
        self,
        model: nn.Module,
        run: TrainingRun,
        *,
        device: torch.device,
        arithmetic: Arithmetic,
        compiled: bool = False,
        rows_at_once: int | None = None,
        auxiliary: AuxiliaryHead | None = None,
    ) -> None:
        """Prepare a model to be trained.

        Args:
            model: the model to train.
            run: the steps to take.
            device: where to train.
            arithmetic: that of the passes.
            compiled: whether torch compiles the model.
            rows_at_once: how many rows of a batch pass together at most; the gradients of several passes are added.
            auxiliary: a second classifier that is trained with the model.

        Raises:
            GradshardError: a batch passes in pieces, but the method, or the model's batch normalisation, needs it
                whole.
        """
        keep_freed_memory()
        self.model = model.to(device).train()
        self.run = run
        self.step = 0
        self.live_steps = 0
        self.passes = PassCounts()
        self.device = device
        self._average = None if run.average is None else WeightAverage(self.model, run.average)
        self.method = make_method(
            run.adversary, shape=(run.batch, *run.sample_shape), device=device, rows=run.stored_rows
        )
        self._rows_at_once = rows_at_once
        self._check_pieces()
        self._objective = BatchLoss(
            self.model,
            self.method,
            arithmetic=arithmetic,
            batch_norm=run.batch_norm,
            ranks=run.ranks.size,
            compiled=_compiled(self.model) if compiled else None,
            smoothing=run.smoothing,
            auxiliary=auxiliary,
        ).to(device)
        self._optimizer = make_optimizer(run.optimization, self._objective)
        self._losses: Callable[[Batch], Losses] = self._objective
        if run.ranks.size > 1:
            self._losses = _parallel(self._objective)

    @property
    def result(self) -> nn.Module:
        """The model that is published and measured: with the average of the weights, if one is kept."""
        return self.model if self._average is None else self._average.module

    @property
    def classifiers(self) -> float:
        """The sum of the weights of the classifiers whose losses are added: 1 for the model alone."""
        return 1.0 if self._objective.auxiliary is None else 1.0 + self._objective.auxiliary.weight

    def steps(self, reader: Reader) -> Iterator[Step]:
        """Train from the current step to the end, yielding each step taken.

        Raises:
            GradshardError: the loss is not a number.
        """
        found: list[Losses] = []
        live = 0
        for raw in self._replayed(read(reader, self.run.requests(self.step), self.device)):
            is_live = self.run.live(self.step)
            with lost_ranks_told(self.run.ranks):
                found.append(self._train_on(raw))
            self.step += 1
            self.live_steps += is_live
            live += is_live
            record = None
            if self.step % RECORD_STEPS == 0 or self.step % self.run.steps_per_epoch == 0:
                record = self._record(found, live / len(found))
                found, live = [], 0
            yield Step(number=self.step, live=is_live, record=record)

    def state(self) -> dict[str, Tensor]:
        """Return everything that a run resumes from, as named tensors; to be called at a step that carries a record."""
        optimizer = {f"optimizer.{name}": tensor for name, tensor in self._optimizer.state().items()}
        average = {} if self._average is None else self._average.state_dict(prefix="average.")
        method = {f"method.{name}": tensor for name, tensor in self.method.state().items()}
        progress = torch.tensor([self.step, self.live_steps, *self.passes])
        return {**self._objective.state_dict(), **optimizer, **average, **method, "progress": progress}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state`` gave."""
        self._objective.load_state_dict({name: state[name] for name in self._objective.state_dict()})
        load_state(self._optimizer, _below("optimizer.", state))
        if self._average is not None:
            self._average.load_state_dict(_below("average.", state))
        load_state(self.method, _below("method.", state))
        self.step, self.live_steps, *passes = (int(value) for value in state["progress"])
        self.passes = PassCounts(*passes)

    @property
    def prior(self) -> SignBuffer | None:
        """The signs that the method keeps of every image, which are not in ``state``; none if it keeps none."""
        return self.method.prior if isinstance(self.method.prior, SignBuffer) else None

    def share_state(self) -> None:
        """Give every rank the state of the first.

        Raises:
            GradshardError: another rank is gone.
        """
        state = {name: self.run.ranks.shared(tensor.to(self.device)) for name, tensor in self.state().items()}
        self.load_state(state)
        if self.prior is not None:
            self.prior.share(self.run.ranks)

    def _replayed(self, batches: Iterator[StoredBatch]) -> Iterator[StoredBatch]:
        """Repeat each batch for as many steps as it is trained on, the first one for those that are left."""
        left = self.run.replays - self.step % self.run.replays
        for raw in batches:
            yield from itertools.repeat(raw, left)
            left = self.run.replays

    def _train_on(self, raw: StoredBatch) -> Losses:
        found, pieces = [], list(cut(raw, rank_slice(self.run, self.step), self._rows_at_once))
        for number, (rows, part) in enumerate(pieces, start=1):
            # Ranks add up their gradients only in the last backward pass.
            with nullcontext() if number == len(pieces) else self._apart():
                batch, losses = self._backward(rows, part)
            found.append(losses)
        losses = added(found)
        self.method.remember(batch, losses, self.run.ranks)
        adjust_gradients(trained(self._objective), self.run.optimization)
        self._optimizer.step(self.run.rate(self.step))
        if self._average is not None:
            self._average.update_parameters(self.model)
        return Losses(losses.total, losses.clean, losses.adversarial)

    def _backward(self, rows: StoredBatch, part: RankSlice) -> tuple[Batch, Losses]:
        """Add the gradients of some rows of this step's batch to those that the parameters have already."""
        # Every piece draws for the whole batch, so each begins with the same seed.
        torch.manual_seed(step_seed(self.run.seed, self.step))
        batch = make_batch(rows, self.run, self.step, part)
        try:
            losses = self._losses(batch)
            wanted = trained(self._objective) if losses.inputs is None else [*trained(self._objective), losses.inputs]
            torch.autograd.backward(losses.total, inputs=wanted)
        except torch.OutOfMemoryError as error:
            raise GradshardError(
                f"not enough memory to train on {len(rows.images)} rows at once: set GRADSHARD_ROWS_AT_ONCE to fewer, "
                "and run the same command again to go on from the last checkpoint"
            ) from error
        return batch, replace(losses, total=losses.total.detach())

    def _apart(self) -> AbstractContextManager[None]:
        objective = self._losses
        return objective.no_sync() if isinstance(objective, nn.parallel.DistributedDataParallel) else nullcontext()

    def _check_pieces(self) -> None:
        most = self._rows_at_once
        if most is None or most * self.run.ranks.size >= self.run.batch:
            return
        if not self.method.in_pieces:
            raise GradshardError(
                f"the method {self.run.adversary.method if self.run.adversary else 'clean'} needs all rows of a batch "
                f"at once, not {most} (GRADSHARD_ROWS_AT_ONCE): take more ranks, or a smaller training.batch"
            )
        if self.run.batch_norm == "synchronised" and any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()
        ):
            raise GradshardError(
                f"batch_norm: synchronised needs all rows of a batch at once, not {most} (GRADSHARD_ROWS_AT_ONCE): "
                "take more ranks, or training.batch_norm: per_rank"
            )

    def _record(self, found: list[Losses], live_share: float) -> TrainMetrics:
        clean = self._mean([losses.clean for losses in found if losses.clean is not None])
        adversarial = self._mean([losses.adversarial for losses in found if losses.adversarial is not None])
        for kind, loss in (("clean", clean), ("adversarial", adversarial)):
            if loss is not None and not math.isfinite(loss):
                raise GradshardError(
                    f"the {kind} loss is {loss} at step {self.step}: lower training.learning_rate, for a robust model "
                    "adversarial.learning_rate, and start again"
                )
        self._count_passes()
        return TrainMetrics(
            step=self.step,
            epoch=self.step / self.run.steps_per_epoch,
            clean_loss=clean,
            adversarial_loss=adversarial,
            live_share=live_share,
        )

    def _mean(self, parts: list[Tensor]) -> float | None:
        """Return the mean over steps of losses of which each rank has a part."""
        return float(self.run.ranks.total(torch.stack(parts).mean())) if parts else None

    def _count_passes(self) -> None:
        """Add the passes of all ranks since the previous record."""
        counted = self.run.ranks.total(torch.tensor(self._objective.passes.take_counts(), device=self.device))
        self.passes = PassCounts(*(torch.tensor(self.passes) + counted.cpu()).tolist())


def _parallel(objective: BatchLoss) -> nn.parallel.DistributedDataParallel:
    # Models have parameters that no loss reaches, as the mask token of DINOv2; torch warns where none is found.
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified", category=UserWarning)
    return nn.parallel.DistributedDataParallel(objective, find_unused_parameters=True)


def _compiled(model: nn.Module) -> nn.Module:
    from torch._functorch import config as functorch_config

    # A clean pass that serves gradient and loss has two backward passes; by default, a compiled one overwrites what it
    # saved during the first.
    functorch_config.donated_buffer = False
    return cast(nn.Module, torch.compile(model))


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def step_seed(seed: int, step: int) -> int:
    """Return the seed of one step's random draws, such as dropout masks."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
