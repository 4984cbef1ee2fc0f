"""Two models, or two ways of training, compared on any cells of the error matrix, over the same seeds and images."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from gradshard.pipeline.attacks.registry import attack_title
from gradshard.pipeline.config.errors import did_you_mean
from gradshard.pipeline.evaluation.paired_defences import PairedDifference, correct_for_number
from gradshard.pipeline.report.error_matrix import ErrorMatrix
from gradshard.pipeline.report.over_seeds import seed_errors
from gradshard.pipeline.report.over_seeds.difference_cell import DifferenceCell, said_of_differences
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.table import Table
from gradshard.pipeline.types import CLEAN, OWN
from gradshard.storage.errors import GradshardError

_UNTESTED = (
    "A difference without an interval is of one seed, or of models that no seed changes: it allows no claim about "
    "training."
)

# A target, a source and an attack.
Cell = tuple[str, str, str]


@dataclass(frozen=True)
class Adversary:
    """Attacks from sources, or by each model's own gradient (``own``), or none: clean images.

    Several are a worst case: an image counts as right only if it is right clean and under all of them.
    """

    sources: Sequence[str] = ()
    attacks: Sequence[str] = ()

    @classmethod
    def of(cls, text: str) -> "Adversary":
        """Read ``clean``, or sources and attacks as in ``own:pgd`` and ``B,VGG:fgsm,pgd``; repeated names count once.

        Raises:
            GradshardError: the text is neither.
        """
        if text == CLEAN:
            return cls()
        sources, colon, attacks = (part.strip() for part in text.partition(":"))
        found = cls(
            *(tuple(dict.fromkeys(filter(None, map(str.strip, part.split(","))))) for part in (sources, attacks))
        )
        if not (colon and found.sources and found.attacks):
            raise GradshardError(f"{text!r} is no adversary: write clean, own:ATTACK or SOURCE:ATTACK, such as B:fgsm")
        return found

    @property
    def title(self) -> str:
        """The adversary's name, as the head of a table's row."""
        if not self.attacks:
            return "Clean"
        titles = ", ".join(map(attack_title, self.attacks))
        if self.sources == (OWN,) and len(self.attacks) == 1:
            return f"own {titles}"
        worst = "worst case of " if self.several else ""
        return f"{worst}{titles} from {', '.join(self.sources)}"

    @property
    def several(self) -> bool:
        """Tell whether it is a worst case."""
        return len(self.sources) * len(self.attacks) > 1

    def crafters(self, target: str) -> list[str]:
        """Name the models that craft against a target, each once."""
        return list(dict.fromkeys(target if source == OWN else source for source in self.sources))

    def cells(self, first: str, second: str) -> list[tuple[Cell, Cell]]:
        """Name the pairs of cells that are compared for two targets; there are none for clean images."""
        crafters = [(first, second) if source == OWN else (source, source) for source in self.sources]
        return [((first, one, attack), (second, other, attack)) for one, other in crafters for attack in self.attacks]

    def errors(self, matrix: ErrorMatrix, target: str) -> SeedErrors:
        """Return the errors of a target under this adversary.

        Raises:
            GradshardError: it was not measured, or a worst case was not measured image by image.
        """
        pairs = list(product(self.crafters(target), self.attacks)) or [("", CLEAN)]
        cells = {pair: matrix.errors(target, *pair) for pair in pairs}
        for (source, attack), errors in cells.items():
            if not errors.rates:
                of = ", ".join(f"{source}:{attack}" for source, attack in matrix.attacks(target)) or "nothing"
                raise GradshardError(
                    f"{target} was not measured under {attack} from {source or 'nobody'}, but under {of}: "
                    "evaluate it, or choose another"
                )
        # Even if two sources are one model for this target: a worst case, with clean images, as for the other target.
        if not self.several:
            return next(iter(cells.values()))
        worst = matrix.worst_case(target, cells)
        if not worst.rates:
            raise GradshardError(
                f"{self.title} of {target} follows from single images: put the run's examples.parquet beside its "
                "matrix.parquet"
            )
        return worst


def shared_adversaries(
    matrix: ErrorMatrix, first: str, second: str, *, other: ErrorMatrix | None = None
) -> list[Adversary]:
    """Return clean images and every single attack that two targets were both measured under.

    ``other`` is the matrix of the second target, if it is of another run.
    """
    theirs = [_own(of.attacks(target), target) for of, target in ((matrix, first), (other or matrix, second))]
    shared = [pair for pair in theirs[0] if pair in theirs[1]]
    return [Adversary(), *(Adversary((source,), (attack,)) for source, attack in shared)]


def compared_table(
    matrix: ErrorMatrix,
    first: str,
    second: str,
    adversaries: Sequence[Adversary],
    *,
    other: ErrorMatrix | None = None,
) -> Table:
    """Make the table of two targets' errors, and the first's less the second's, in points, adversary by adversary.

    Intervals are of each comparison alone; p-values are corrected for all rows (Holm 1979). A row in which no seed
    changes a model has neither, for it shows nothing about training. ``other`` is the matrix of the second target, if
    it is of another run.

    Raises:
        GradshardError: a target is not in its matrix, both are the same, or they have no measured seed in common.
    """
    sides = ((matrix, first), (other or matrix, second))
    for of, target in sides:
        if target not in of.targets:
            where = "these results" if of is matrix else "the other run"
            raise GradshardError(f"{target} is no target of {where}{did_you_mean(target, of.targets)}")
    if first == second and other is None:
        raise GradshardError(f"{first} cannot be compared with itself: name two targets")
    errors = [[adversary.errors(of, target) for of, target in sides] for adversary in adversaries]
    for number, (adversary, both) in enumerate(zip(adversaries, errors, strict=True)):
        if not seed_errors.shared_seeds(both):
            raise GradshardError(f"{first} and {second} were measured with no seed in common ({adversary.title})")
        if all(of.seeds.same(target, *adversary.crafters(target)) for of, target in sides):
            errors[number] = seed_errors.of_one_seed(both)
    found = correct_for_number([seed_errors.difference(*both) for both in errors])
    rows = [
        (
            adversary.title,
            [
                *(
                    of.seeds.cell(its, target, *adversary.crafters(target))
                    for its, (of, target) in zip(both, sides, strict=True)
                ),
                DifferenceCell(difference, bold=difference.finding in ("lower", "higher")),
            ],
        )
        for adversary, both, difference in zip(adversaries, errors, found, strict=True)
    ]
    columns = [first, f"{second} of the other run" if first == second else second, "difference in points"]
    return Table("compared", f"Errors of {first} and {second}", "adversary", columns, rows, _caption(found))


def _caption(found: Sequence[PairedDifference]) -> str:
    untested = [_UNTESTED] if any(its.corrected_p is None for its in found) else []
    return " ".join(filter(None, [said_of_differences(found), *untested]))


def _own(attacks: Sequence[tuple[str, str]], target: str) -> list[tuple[str, str]]:
    return [(OWN if source == target else source, attack) for source, attack in attacks]
