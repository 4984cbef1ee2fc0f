"""Two finished runs side by side: what they must share for targets of both to be compared."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gradshard.pipeline.config.schema import Params
from gradshard.storage.errors import GradshardError


@dataclass(frozen=True)
class RunRecord:
    """A finished run's parameters, its provenance.json, and the file that errors name it by."""

    params: Params
    provenance: Mapping[str, Any]
    name: str

    @property
    def test_images(self) -> str | None:
        """The digest of the test images."""
        found: str | None = self.provenance.get("dataset", {}).get("test")
        return found

    @property
    def attack(self) -> Mapping[str, Any]:
        """The strength of the attacks."""
        found: Mapping[str, Any] = self.provenance.get("params", {}).get("attack", {})
        return found

    def digest(self, model: str, seed: int) -> str | None:
        """Return the digest of a model in the run of a seed; none if the run has no such model."""
        found: str | None = self.provenance.get("models", {}).get(self.params.in_run(model, seed))
        return found


def check_comparable(first: RunRecord, second: RunRecord, *, sources: Iterable[str], seeds: Iterable[int]) -> None:
    """Check that two runs attacked the same test images by the same sources and with the same strength.

    ``sources`` are those that craft for both targets, whose weights must be the same in the run of every seed.

    Raises:
        GradshardError: something differs; the sentence says what.
    """
    between = f"{first.name} and {second.name} cannot be compared:"
    if first.test_images is None or first.test_images != second.test_images:
        raise GradshardError(f"{between} they are of different test images")
    unlike = [key for key in {**first.attack, **second.attack} if first.attack.get(key) != second.attack.get(key)]
    if unlike:
        raise GradshardError(f"{between} their parameters differ in attack: {', '.join(unlike)}")
    seeds = list(seeds)
    for source in sources:
        for seed in seeds:
            if first.digest(source, seed) is None or first.digest(source, seed) != second.digest(source, seed):
                raise GradshardError(
                    f"{between} their {source} is not the same model in the run of seed {seed} (by the digests of "
                    "provenance.json): choose adversaries of shared weights by --on, such as clean and own:fgsm"
                )
