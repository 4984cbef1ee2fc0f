"""Error rates and other numbers of training procedures, over seeds, as tables show them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from gradshard.pipeline.evaluation.paired_defences import ONE_SEED
from gradshard.pipeline.evaluation.seed_variance import training_error_rate
from gradshard.pipeline.evaluation.statistics import MeanAndStd, mean_and_std
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.table import UNMEASURED, beside_paper, paper_field


@dataclass(frozen=True)
class TrainingCell:
    """The error rate of a model that was trained with several seeds, in percent, beside the paper's if there is one.

    ``expected`` is how many seeds there should be, ``varying`` what varies besides the test images.
    """

    errors: SeedErrors
    expected: int = 0
    varying: str = "training"
    paper: float | None = None
    bold: bool = False
    marked: bool = False

    @property
    def text(self) -> str:
        """Mean and standard deviation (n - 1) over the seeds, or a dash where nothing was measured."""
        if not self.errors.rates:
            return UNMEASURED
        found = self._percent
        return f"{found.mean:.1f}" if found.deviation is None else f"{found.mean:.1f} ± {found.deviation:.1f}"

    @property
    def beside(self) -> str:
        """The paper's figure and how far the mean is above it, in points; and how many seeds, if some are missing."""
        if self.heat is None:
            return ""
        seeds = len(self.errors.rates)
        few = f"{seeds} of {self.expected} seeds" if seeds < self.expected else ""
        return "; ".join(part for part in (beside_paper(100 * self.heat, self.paper), few) if part)

    @property
    def note(self) -> str:
        """The interval for seeds and images, or why there is none, and every seed's error rate."""
        if not self.errors.rates:
            return "not measured"
        each = ", ".join(f"{seed}: {100 * rate.rate:.2f}" for seed, rate in self.errors.rates.items())
        return f"{self._claim}; by seed: {each}; n = {self._images}"

    @property
    def heat(self) -> float | None:
        """The mean error rate."""
        return self.errors.mean if self.errors.rates else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval for seeds and images; none for one seed, or where the images are not known."""
        return None if self.errors.images is None else training_error_rate(self.errors.images.wrong).interval

    @property
    def lacks_images(self) -> bool:
        """Tell whether there is no interval only because the images are not known."""
        return len(self.errors.rates) > 1 and self.errors.images is None

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """Mean, interval and standard deviation, in percent; how many seeds and images, and what varies with a seed."""
        if not self.errors.rates:
            return {}
        found = self._percent
        values: dict[str, float | int | str] = {
            "value": round(found.mean, 4),
            "n": self._images,
            "runs": found.runs,
            "bold": int(self.bold),
            "varying": self.varying,
        }
        if found.deviation is not None:
            values["deviation"] = round(found.deviation, 4)
        if self.interval is not None:
            values |= {name: round(100 * end, 4) for name, end in zip(("low", "high"), self.interval, strict=True)}
        return values | paper_field(self.paper)

    @property
    def _percent(self) -> MeanAndStd:
        return mean_and_std([100 * rate.rate for rate in self.errors.rates.values()])

    @property
    def _images(self) -> int:
        return min(rate.n for rate in self.errors.rates.values())

    @property
    def _claim(self) -> str:
        if self.interval is not None:
            low, high = self.interval
            return f"95 % interval for {self.varying} {100 * low:.1f} to {100 * high:.1f}"
        return "no interval, for it is not known which images were wrong" if self.lacks_images else ONE_SEED


@dataclass(frozen=True)
class TrainingNumberCell:
    """A number that is no error rate, of a model trained with several seeds, beside the paper's if there is one.

    ``expected`` is how many seeds there should be, ``varying`` what varies with them.
    """

    numbers: Mapping[int, float]
    expected: int
    varying: str = "training"
    paper: float | None = None
    bold: bool = False
    marked: bool = False
    heat: float | None = None

    @property
    def text(self) -> str:
        """Mean, to three figures, and standard deviation (n - 1), to two, over the seeds."""
        found = self._found
        return f"{found.mean:.3g}" if found.deviation is None else f"{found.mean:.3g} ± {found.deviation:.2g}"

    @property
    def beside(self) -> str:
        """The paper's figure; and how many seeds, if some are missing."""
        paper = "" if self.paper is None else f"paper {self.paper:g}"
        few = f"{len(self.numbers)} of {self.expected} seeds" if len(self.numbers) < self.expected else ""
        return "; ".join(part for part in (paper, few) if part)

    @property
    def note(self) -> str:
        """Every seed's number."""
        return "by seed: " + ", ".join(f"{seed}: {number:.3g}" for seed, number in self.numbers.items())

    @property
    def fields(self) -> Mapping[str, float | int | str]:
        """Mean and standard deviation, how many seeds, and what varies with one."""
        found = self._found
        values: dict[str, float | int | str] = {"value": found.mean, "runs": found.runs, "varying": self.varying}
        if found.deviation is not None:
            values["deviation"] = found.deviation
        return values | paper_field(self.paper)

    @property
    def _found(self) -> MeanAndStd:
        return mean_and_std(list(self.numbers.values()))
