"""Files that a report is made from: those of the project's stages, or those of a folder of kept results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradshard.stages.project import paths
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.json_results import read_results

MATRIX = "matrix.parquet"
EXAMPLES = "examples.parquet"
COSTS = "costs.json"


@dataclass(frozen=True)
class ReportFiles:
    """Places of everything that a report shows.

    ``evaluations`` are the folders of the results of ``evaluate``, by seed; ``gradients`` and ``blackbox`` are files of
    ``analyze`` and ``blackbox``, by seed, which may exist for the first seed alone. If ``complete``, every file must
    exist; otherwise parts whose files are missing are left out. If ``merged``, the results of all seeds are merged into
    files beside the page.
    """

    evaluations: Mapping[int, Path]
    blackbox: Mapping[int, Path]
    gradients: Mapping[int, Path]
    planes: Path
    training: Path
    complete: bool
    merged: bool

    @property
    def first(self) -> Path:
        """The folder of the first seed."""
        return next(iter(self.evaluations.values()))

    def has(self, path: Path) -> bool:
        """Tell whether a file exists.

        Raises:
            GradshardError: it is missing, and nothing may be left out.
        """
        if path.exists():
            return True
        if self.complete:
            raise GradshardError(f"no {path}: {_again(path)}, or `dvc repro`")
        return False

    def json(self, path: Path) -> Any:
        """Read a JSON file; return none if it is missing and may be left out.

        Raises:
            GradshardError: it is damaged, or is missing and nothing may be left out.
        """
        return read_results(path, remedy=_again(path)) if self.has(path) else None

    def each(self, name: str) -> dict[int, Any]:
        """Read a JSON file of every seed, by seed; seeds without it are left out where that is allowed.

        Raises:
            GradshardError: a file is missing, and nothing may be left out.
        """
        return self.jsons({seed: folder / name for seed, folder in self.evaluations.items()})

    def jsons(self, files: Mapping[int, Path]) -> dict[int, Any]:
        """Read JSON files by seed; missing ones are left out where that is allowed.

        Raises:
            GradshardError: a file is missing, and nothing may be left out.
        """
        found = {seed: self.json(path) for seed, path in files.items()}
        return {seed: content for seed, content in found.items() if content is not None}

    @property
    def left_out(self) -> list[str]:
        """Name the parts of the page whose files are missing."""
        folders = list(self.evaluations.values())
        parts = {
            "intervals for training and paired tests" if len(folders) > 1 else "paired tests": [
                folder / EXAMPLES for folder in folders
            ],
            "digests and versions": [folder / "provenance.json" for folder in folders],
            "flags of masked gradients": [folder / "diagnostics.json" for folder in folders],
            "gradient norms and wrong signs": list(self.gradients.values()),
            "loss planes": [self.planes],
            "images": [self.first / "images.npz"],
            "adversaries who may ask": list(self.blackbox.values()),
            "training curves": [self.training],
        }
        return [part for part, places in parts.items() if not all(path.exists() for path in places)]


def _again(path: Path) -> str:
    """Return the remedy for a missing or damaged file: the stage that writes it."""
    if path.parent.name == paths.TRAINING.name:
        return f"train {path.stem} again"
    stages = {
        "gradients.json": "analyze",
        "planes.npz": "analyze",
        "results.json": "blackbox",
        "blackbox.json": "blackbox",
    }
    return f"run `gradshard {stages.get(path.name, 'evaluate')}` again"


def of_project(seeds: Sequence[int]) -> ReportFiles:
    """Return the files that the stages of the project in the working directory wrote.

    Raises:
        GradshardError: stages did not run yet; the message names their commands.
    """
    found = ReportFiles(
        evaluations={seed: paths.evaluation(seed) for seed in seeds},
        blackbox={seed: paths.blackbox(seed) / "results.json" for seed in seeds},
        gradients={seed: paths.analysis(seed) / "gradients.json" for seed in seeds},
        planes=paths.analysis(seeds[0]) / "planes.npz",
        training=paths.TRAINING,
        complete=True,
        merged=True,
    )
    _check_stages(found)
    return found


def _check_stages(found: ReportFiles) -> None:
    matrices = {seed: folder / MATRIX for seed, folder in found.evaluations.items()}
    written = {"evaluate": matrices, "analyze": found.gradients, "blackbox": found.blackbox}
    missing = {
        f"`gradshard {stage} --seed {seed}`": path
        for stage, files in written.items()
        for seed, path in files.items()
        if not path.exists()
    }
    if missing:
        raise GradshardError(
            f"no results at {', '.join(map(str, missing.values()))}: run {', '.join(missing)} (or `dvc repro`) first"
        )


def of_results(folder: Path, seeds: Sequence[int]) -> ReportFiles:
    """Return the files of a folder of kept results, such as results/mnist.

    It holds the files of one seed, or a folder for each of several seeds, named by the seed. The files of ``analyze``
    and ``blackbox`` may be kept for the first seed alone, in the folder itself.

    Raises:
        GradshardError: the folder has no error matrix.
    """
    check_results(folder)
    several = {seed: folder / str(seed) for seed in seeds if (folder / str(seed) / MATRIX).exists()}
    return ReportFiles(
        evaluations=several or {seeds[0]: folder},
        blackbox=_kept(folder, "blackbox.json", seeds),
        gradients=_kept(folder, "gradients.json", seeds),
        planes=next(iter(_kept(folder, "planes.npz", seeds).values())),
        training=folder / "training",
        complete=False,
        merged=bool(several),
    )


def _kept(folder: Path, name: str, seeds: Sequence[int]) -> dict[int, Path]:
    """Return a file of each seed that has it; if none has, that of the first seed, in the folder itself."""
    found = {seed: path for seed in seeds if (path := folder / str(seed) / name).exists()}
    return found or {seeds[0]: folder / name}


def check_results(folder: Path) -> None:
    """Check that a folder holds published results.

    Raises:
        GradshardError: it has no error matrix.
    """
    if not (folder / MATRIX).exists() and not list(folder.glob(f"[0-9]*/{MATRIX}")):
        raise GradshardError(f"{folder} holds no {MATRIX}: name a folder of kept results")
