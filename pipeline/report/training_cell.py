"""Error rates of training procedures, over seeds, as tables show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradshard.pipeline.evaluation.paired_defences import ONE_SEED
from gradshard.pipeline.evaluation.seed_variance import TrainingErrorRate
from gradshard.pipeline.report.table import UNMEASURED, beside_paper, paper_field


def mean_and_deviation(mean: float, deviation: float | None, seeds: int) -> str:
    """Write ``12.3 ± 0.4 (5 seeds)`` of numbers in the table's unit; without a deviation ``12.3 (1 seed)``."""
    number = f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"
    return f"{number} ({seeds} seed{'' if seeds == 1 else 's'})"


def seeds_note(interval: tuple[float, float] | None, seeds: Sequence[float], images: int) -> str:
    """Write the 95 % interval for training, if there is one, and every seed's own number, in the table's unit."""
    claim = ONE_SEED if interval is None else f"95 % interval for training {interval[0]:.1f} to {interval[1]:.1f}"
    return f"{claim}; seeds: {', '.join(f'{seed:.2f}' for seed in seeds)}; n = {images}"


@dataclass(frozen=True)
class TrainingCell:
    """The error rate of a training procedure over its seeds, in percent, beside the paper's where there is one."""

    rate: TrainingErrorRate | None
    paper: float | None = None
    bold: bool = False
    marked: bool = False

    @property
    def text(self) -> str:
        """Mean, standard deviation and how many seeds, or a dash where nothing was measured."""
        if self.rate is None:
            return UNMEASURED
        deviation = None if self.rate.deviation is None else 100 * self.rate.deviation
        return mean_and_deviation(100 * self.rate.mean, deviation, self.rate.seeds)

    @property
    def beside(self) -> str:
        """The paper's figure and how far the mean is above it, in points; empty if either is missing."""
        return "" if self.rate is None else beside_paper(100 * self.rate.mean, self.paper)

    @property
    def note(self) -> str:
        """The interval for seeds and images, and every seed's error rate."""
        if self.rate is None:
            return "not measured"
        return seeds_note(_percent(self.rate.interval), [100 * rate for rate in self.rate.rates], self.rate.images)

    @property
    def heat(self) -> float | None:
        """The mean error rate."""
        return None if self.rate is None else self.rate.mean

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """Mean, interval and standard deviation, in percent; how many seeds and images. One seed has the mean alone."""
        if self.rate is None:
            return {}
        found: dict[str, float | int | str] = {
            "value": round(100 * self.rate.mean, 4),
            "n": self.rate.images,
            "runs": self.rate.seeds,
            "bold": int(self.bold),
        }
        interval = _percent(self.rate.interval)
        if interval is not None and self.rate.deviation is not None:
            low, high = interval
            found |= {"low": round(low, 4), "high": round(high, 4), "deviation": round(100 * self.rate.deviation, 4)}
        return found | paper_field(self.paper)


def _percent(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])
