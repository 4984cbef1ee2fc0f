"""Files that a report is made of: those of the project's stages, or those that a folder of published results keeps."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradshard.stages.support import paths
from gradshard.storage.errors import GradshardError


@dataclass(frozen=True)
class ReportFiles:
    """Paths of everything that a report shows.

    ``complete`` says that all of it must be there; without, a part whose file is missing is left out.
    """

    matrix: Path
    examples: Path
    provenance: Path
    diagnostics: Path
    images: Path
    blackbox: Path
    gradients: Path
    planes: Path
    training: Path
    complete: bool

    def has(self, path: Path) -> bool:
        """Tell whether a file is there.

        Raises:
            GradshardError: it is not, and nothing may be left out.
        """
        if path.exists():
            return True
        if self.complete:
            raise GradshardError(f"no {path}: run the stages before `report` first, or `dvc repro`")
        return False

    def json(self, path: Path) -> Any:
        """Read a JSON file, or return none where it is left out.

        Raises:
            GradshardError: it is not there, and nothing may be left out.
        """
        return json.loads(path.read_text(encoding="utf-8")) if self.has(path) else None

    @property
    def left_out(self) -> list[str]:
        """Name the parts of the page whose files are missing."""
        parts = {
            "paired tests": self.examples,
            "digests and versions": self.provenance,
            "flags of masked gradients": self.diagnostics,
            "gradient norms and wrong signs": self.gradients,
            "loss planes": self.planes,
            "images": self.images,
            "adversaries who may ask": self.blackbox,
            "training curves": self.training,
        }
        return [part for part, path in parts.items() if not path.exists()]


def of_project() -> ReportFiles:
    """Return the files that the stages of the project in the working directory write."""
    return ReportFiles(
        matrix=paths.EVALUATION / "matrix.parquet",
        examples=paths.EVALUATION / "examples.parquet",
        provenance=paths.EVALUATION / "provenance.json",
        diagnostics=paths.EVALUATION / "diagnostics.json",
        images=paths.EVALUATION / "images.npz",
        blackbox=paths.BLACKBOX / "results.json",
        gradients=paths.ANALYSIS / "gradients.json",
        planes=paths.ANALYSIS / "planes.npz",
        training=paths.TRAINING,
        complete=True,
    )


def of_results(folder: Path) -> ReportFiles:
    """Return the files of a folder of published results, such as results/mnist.

    Raises:
        GradshardError: the folder has no error matrix.
    """
    matrix = folder / "matrix.parquet"
    if not matrix.exists():
        raise GradshardError(f"{folder} holds no matrix.parquet: name a folder of published results")
    return ReportFiles(
        matrix=matrix,
        examples=folder / "examples.parquet",
        provenance=folder / "provenance.json",
        diagnostics=folder / "diagnostics.json",
        images=folder / "images.npz",
        blackbox=folder / "blackbox.json",
        gradients=folder / "gradients.json",
        planes=folder / "planes.npz",
        training=folder / "training",
        complete=False,
    )
