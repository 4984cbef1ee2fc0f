"""Ties for best among some models' errors in one column of a table."""

from collections.abc import Sequence

from gradshard.pipeline.evaluation import statistics
from gradshard.pipeline.report.over_seeds import seed_errors
from gradshard.pipeline.report.over_seeds.seed_errors import SeedErrors
from gradshard.pipeline.report.over_seeds.seeds import Seeds

# Models that take part in an error rate, by name, and the errors.
Entry = tuple[Sequence[str], SeedErrors]


def tied_for_best(seeds: Seeds, entries: Sequence[Entry]) -> list[bool]:
    """Tell which of some errors are tied for best; a single measured one is not, nor is one that was not measured.

    Over several seeds, paired differences decide; for models that no seed changes, their intervals over the test
    images.
    """
    known = [at for at, (_, errors) in enumerate(entries) if errors.rates]
    if len(known) < 2:
        return [False] * len(entries)
    if seeds.several and not all(seeds.same(*entries[at][0]) for at in known):
        ties = seed_errors.tied_for_best([entries[at][1] for at in known])
    else:
        ties = statistics.tied_for_best([next(iter(entries[at][1].rates.values())) for at in known])
    tied = {at for at, best in zip(known, ties, strict=True) if best}
    return [at in tied for at in range(len(entries))]
