"""The curves of a training run: losses, and errors on held-back rows."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from gradshard.pipeline.training.held_back import HeldBackErrors
from gradshard.pipeline.training.trainer import TrainMetrics


@dataclass
class Curves:
    """Records of a run so far."""

    records: list[TrainMetrics] = field(default_factory=list)
    held_back: list[HeldBackErrors] = field(default_factory=list)

    def table(self) -> str:
        """Return tab-separated columns, one line per record, without columns that the training run does not have.

        Errors on held-back rows are nan in records of steps after which they were not measured.
        """
        columns = [name for name, value in asdict(self.records[0]).items() if value is not None]
        if self.records[0].adversarial_loss is None:
            columns.remove("live_share")
        rows = [[f"{asdict(record)[column]:.6g}" for column in columns] for record in self.records]
        if self.held_back:
            named = self.held_back[0].rates
            columns += [f"held_back_{name}" for name in named]
            measured = {float(errors.epoch): errors.rates for errors in self.held_back}
            for row, record in zip(rows, self.records, strict=True):
                row += [f"{measured.get(record.epoch, {}).get(name, math.nan):.6g}" for name in named]
        return "\n".join("\t".join(line) for line in [columns, *rows]) + "\n"

    @property
    def last_losses(self) -> str:
        """The last losses, as text."""
        last = self.records[-1]
        named = {"clean loss": last.clean_loss, "adversarial loss": last.adversarial_loss}
        return ", ".join(f"{name} {loss:.4f}" for name, loss in named.items() if loss is not None)

    def shows_learning(self, classes: int, *, classifiers: float = 1.0) -> bool:
        """Tell whether the last loss is below that of equal probabilities for all classes, ln(classes).

        It is the clean loss or, without one, the adversarial loss; up to half a percent below counts as chance.

        Args:
            classes: the number of classes.
            classifiers: the sum of the weights of the classifiers whose losses were added: 1 for the model alone.
        """
        last = self.records[-1]
        loss = last.adversarial_loss if last.clean_loss is None else last.clean_loss
        return loss is None or loss < 0.995 * classifiers * math.log(classes)

    def as_json(self) -> dict[str, object]:
        """Return the record that a checkpoint keeps."""
        held_back = {"held_back": [asdict(errors) for errors in self.held_back]} if self.held_back else {}
        return {"curves": [asdict(record) for record in self.records], **held_back}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Restore curves from the record that a checkpoint keeps."""
        held_back = [HeldBackErrors(**entry) for entry in record.get("held_back", [])]
        return cls([TrainMetrics(**entry) for entry in record["curves"]], held_back)
