"""Training: one loop for static and for robust models, whose whole state is one step number and the tensors.

Which rows a step sees, in which order, whose perturbation it takes and which units dropout drops are pure functions of
(seed, step), so a run that was killed and goes on from a checkpoint ends with the same bytes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline import schedule
from pipeline.attacks import gradient_through, input_gradient, perturb, step_direction
from pipeline.crafting import to_pixels
from pipeline.optimizers import Adam
from pipeline.precision import Arithmetic, arithmetic_context
from pipeline.unpacking import perturb_by_stored
from pipeline.vocabulary import SELF, Gradient, LabelPolicy, Mode, ScheduleKind, TrainingAttack
from storage.errors import GradshardError
from storage.stream import RawBatch, Reader, ReadingPlan
from storage.windows import Request

RECORD_STEPS = 25
_CLEAN_BATCH = ""


@dataclass(frozen=True)
class Adversary:
    """How a robust model's training perturbs: the sources, and what the model itself does when it is the source.

    ``attack`` is what the model itself crafts by: FGSM, or RAND+FGSM with ``alpha`` (section 4 reports that training
    on it did not help). ``directions`` gives, per store, which way to step along its signs.
    """

    attack: TrainingAttack
    epsilon: float
    alpha: float
    clean_weight: float
    sources: tuple[str, ...]
    schedule: ScheduleKind
    gradient: Gradient
    policy: LabelPolicy
    live_mode: Mode
    directions: Mapping[str, int]


@dataclass(frozen=True)
class Run:
    """What the steps of a training run are; ``adversary`` is none for a static model."""

    rows: int
    batch: int
    epochs: int
    seed: int
    learning_rate: float
    reading: ReadingPlan
    adversary: Adversary | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; the last one may be smaller."""
        return math.ceil(self.rows / self.batch)

    @property
    def steps(self) -> int:
        """Batches in all."""
        return self.epochs * self.steps_per_epoch

    def source(self, step: int) -> str:
        """Who crafts the perturbation of a step's batch; empty for clean training."""
        if self.adversary is None:
            return _CLEAN_BATCH
        epoch, batch = divmod(step, self.steps_per_epoch)
        return schedule.source(
            self.adversary.schedule,
            self.adversary.sources,
            seed=self.seed,
            epoch=epoch,
            batch=batch,
            batches=self.steps_per_epoch,
        )

    def requests(self, start: int) -> Iterator[Request]:
        """What to read for each step from ``start`` on."""
        for epoch in range(start // self.steps_per_epoch, self.epochs):
            order = self.reading.order(self.rows, seed=self.seed, epoch=epoch)
            first = max(start - epoch * self.steps_per_epoch, 0)
            for batch, rows in enumerate(order.batches(self.batch, first=first), start=first):
                source = self.source(epoch * self.steps_per_epoch + batch)
                yield Request(rows, None if source in (SELF, _CLEAN_BATCH) else source, epoch)


@dataclass(frozen=True)
class Record:
    """The means since the record before: losses per batch, and the share of batches with a live gradient."""

    step: int
    epoch: float
    clean_loss: float
    adversarial_loss: float | None
    live_share: float


@dataclass(frozen=True)
class Step:
    """A step that was taken; every ``RECORD_STEPS``, and at the end of an epoch, it carries a record."""

    number: int
    live: bool
    record: Record | None


class Trainer:
    """A model, its optimiser, and the step it is at."""

    def __init__(self, model: nn.Module, run: Run, *, device: torch.device, arithmetic: Arithmetic) -> None:
        self.model = model.to(device).train().requires_grad_(True)
        self.run = run
        self.step = 0
        self.live_steps = 0
        self._device = device
        self._arithmetic = arithmetic
        self._optimizer = Adam(self.model, run.learning_rate)

    def steps(self, reader: Reader) -> Iterator[Step]:
        """Train from the current step to the end, yielding each step taken.

        Raises:
            GradshardError: the loss is not a number.
        """
        clean, adversarial, live, count = [], [], 0, 0
        for raw in reader.read(self.run.requests(self.step)):
            is_live = self.run.source(self.step) == SELF
            clean_loss, adversarial_loss = self._train_on(raw, live=is_live)
            self.step += 1
            self.live_steps += is_live
            clean.append(clean_loss)
            adversarial.append(adversarial_loss)
            live, count = live + is_live, count + 1
            record = None
            if self.step % RECORD_STEPS == 0 or self.step % self.run.steps_per_epoch == 0:
                record = self._record(clean, adversarial, live / count)
                clean, adversarial, live, count = [], [], 0, 0
            yield Step(number=self.step, live=is_live, record=record)

    def state(self) -> dict[str, Tensor]:
        """Everything a run goes on from, as named tensors; to be taken at a step that carries a record."""
        model = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        optimizer = {f"optimizer.{name}": tensor for name, tensor in self._optimizer.state().items()}
        return {**model, **optimizer, "progress": torch.tensor([self.step, self.live_steps])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` gave."""
        self.model.load_state_dict(_below("model.", state))
        self._optimizer.load_state(_below("optimizer.", state))
        self.step, self.live_steps = (int(value) for value in state["progress"])

    def _train_on(self, raw: RawBatch, *, live: bool) -> tuple[Tensor, Tensor | None]:
        torch.manual_seed(_step_seed(self.run.seed, self.step))
        images = to_pixels(torch.from_numpy(raw.images).to(self._device))
        labels = torch.from_numpy(raw.labels).to(self._device)
        with arithmetic_context(self._arithmetic, self._device):
            clean, adversarial = self._forward(raw, images, labels, live=live)
        clean_loss = functional.cross_entropy(clean.float(), labels)
        loss, adversarial_loss = clean_loss, None
        if adversarial is not None and self.run.adversary is not None:
            adversarial_loss = functional.cross_entropy(adversarial.float(), labels)
            weight = self.run.adversary.clean_weight
            loss = weight * clean_loss + (1 - weight) * adversarial_loss
        torch.autograd.backward(loss, inputs=list(self.model.parameters()))
        self._optimizer.step()
        return clean_loss.detach(), None if adversarial_loss is None else adversarial_loss.detach()

    def _forward(self, raw: RawBatch, images: Tensor, labels: Tensor, *, live: bool) -> tuple[Tensor, Tensor | None]:
        """The logits of the clean images and, for a robust model, of the perturbed ones."""
        adversary = self.run.adversary
        if adversary is None:
            return self.model(images), None
        if live and adversary.attack == "fgsm" and adversary.live_mode == "train":
            return self._forward_live(images, labels, adversary)
        perturbed = self._craft(images, labels, adversary) if live else self._take_stored(raw, images, adversary)
        logits = self.model(torch.cat([images, perturbed]))
        return logits[: len(images)], logits[len(images) :]

    def _forward_live(self, images: Tensor, labels: Tensor, adversary: Adversary) -> tuple[Tensor, Tensor]:
        """The model perturbs for itself: one clean pass serves the gradient and the loss, as in the authors' code."""
        inputs = images.requires_grad_(True)
        clean = self.model(inputs)
        slope, _ = gradient_through(
            clean, inputs, labels, gradient=adversary.gradient, policy=adversary.policy, keep_graph=True
        )
        signs = step_direction(adversary.policy) * slope.sign()
        return clean, self.model(perturb(images.detach(), signs, adversary.epsilon))

    def _craft(self, images: Tensor, labels: Tensor, adversary: Adversary) -> Tensor:
        """The model perturbs for itself in a pass of its own."""
        start, epsilon = images, adversary.epsilon
        if adversary.attack == "rand_fgsm":
            start = perturb(images, torch.randn_like(images).sign(), adversary.alpha)
            epsilon -= adversary.alpha
        self.model.train(adversary.live_mode == "train")
        slope, _ = input_gradient(self.model, start, labels, gradient=adversary.gradient, policy=adversary.policy)
        self.model.train()
        return perturb(start, step_direction(adversary.policy) * slope.sign(), epsilon)

    def _take_stored(self, raw: RawBatch, images: Tensor, adversary: Adversary) -> Tensor:
        assert raw.planes is not None
        planes = torch.from_numpy(raw.planes).to(self._device)
        return perturb_by_stored(images, planes, adversary.directions[self.run.source(self.step)] * adversary.epsilon)

    def _record(self, clean: list[Tensor], adversarial: list[Tensor | None], live_share: float) -> Record:
        losses = [_mean(clean), _mean([loss for loss in adversarial if loss is not None])]
        for kind, loss in zip(("clean", "adversarial"), losses, strict=True):
            if loss is not None and not math.isfinite(loss):
                raise GradshardError(
                    f"the {kind} loss is {loss} at step {self.step}: lower training.learning_rate and start again"
                )
        assert losses[0] is not None
        return Record(
            step=self.step,
            epoch=self.step / self.run.steps_per_epoch,
            clean_loss=losses[0],
            adversarial_loss=losses[1],
            live_share=live_share,
        )


def _mean(losses: list[Tensor]) -> float | None:
    return float(torch.stack(losses).mean()) if losses else None


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _step_seed(seed: int, step: int) -> int:
    """The seed of one step's dropout masks."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
