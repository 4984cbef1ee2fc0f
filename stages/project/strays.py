"""Files of models, stores and seeds that the parameters do not have, such as those left after a model was renamed.

Stages depend on whole folders of models, stores and results. A file there that no stage makes would count as an input,
and be missing in a clone that pulled the stages' outputs. Under DVC such files are therefore moved away; without DVC
nothing is touched.
"""

import os
import shutil
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from gradshard.pipeline.config.schema import Params
from gradshard.stages.console.progress import echo
from gradshard.stages.project import paths
from gradshard.storage.home import at_home

SET_ASIDE = Path("set-aside")


def set_strays_aside(params: Params) -> None:
    """Move files in shared folders that belong to no model, store or seed of the parameters, if DVC runs this."""
    if "DVC_STAGE" not in os.environ:
        return
    moved = list(_strays(params))
    for path in moved:
        target = SET_ASIDE / path
        _move(path, target, moved)
        echo(f"{path}: of no model or seed in the parameters, moved to {target}")


def _strays(params: Params) -> Iterator[Path]:
    owned = {paths.static_weights(name) for name in params.static}
    owned |= {place(run) for run in params.runs for place in (paths.robust_weights, paths.snapshots)}
    owned |= {paths.store(name) for name in params.signs}
    owned |= {curve for name in (*params.static, *params.runs) for curve in paths.training(name)}
    owned |= {place(seed) for seed in params.seeds for place in (paths.evaluation, paths.analysis, paths.blackbox)}
    owned |= {Path(at_home(static.weights)) for static in params.static.values()}
    places = {place for path in owned for place in _places(path)}
    kept = places | {folder for place in places for folder in place.parents}
    for folder in (*paths.SHARED_FOLDERS, paths.TRAINING, paths.EVALUATION, paths.ANALYSIS, paths.BLACKBOX):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if kept.isdisjoint(_places(path)) and not _is_kept(path):
                yield path


def _places(path: Path) -> set[Path]:
    """Return the place of a path and, for a symbolic link, also that of its target."""
    # Unlike Path.resolve, realpath accepts links that lead in a circle.
    return {path.parent.resolve() / path.name, Path(os.path.realpath(path))}


def _is_kept(path: Path) -> bool:
    """Tell whether a file is hidden, or tracked by DVC itself, with `dvc add` or `dvc import`."""
    return path.name.startswith(".") or path.suffix == ".dvc" or path.with_name(f"{path.name}.dvc").exists()


def _move(path: Path, target: Path, moved: Collection[Path]) -> None:
    """Move a file, a folder or a link, also to another disk; replace the target, and keep relative links valid."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    led = {link.relative_to(path): _leads_to(link) for link in _leading_out(path, moved)}
    shutil.move(path, target)
    for name, leads_to in led.items():
        link = target / name
        link.unlink()
        link.symlink_to(os.path.relpath(leads_to, link.parent.resolve()))


def _leading_out(path: Path, moved: Collection[Path]) -> Iterator[Path]:
    """Yield the relative links, at a path or below it, whose targets are not moved along."""
    inside = [Path(folder) / name for folder, *names in os.walk(path) for name in chain(*names)]
    along = [each.parent.resolve() / each.name for each in moved]
    for link in [path] if path.is_symlink() else inside:
        if not link.is_symlink() or link.readlink().is_absolute():
            continue
        if not any(_leads_to(link).is_relative_to(each) for each in along):
            yield link


def _leads_to(link: Path) -> Path:
    """Return the next place that a relative link leads to, perhaps a link again."""
    place = link.parent / link.readlink()
    return place.parent.resolve() / place.name
