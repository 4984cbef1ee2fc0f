"""Files of models, stores and seeds that the parameters do not have, such as those from before a model was renamed.

Stages depend on whole folders of models, stores and results. A file there that no stage makes would count, and be
missing in a clone that pulled what the stages made. Under DVC it is therefore moved out of the way; without DVC nothing
is touched.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from gradshard.pipeline.config.schema import Params
from gradshard.stages.support import paths
from gradshard.stages.support.progress import echo
from gradshard.storage.formats.atomic import replace_folder

SET_ASIDE = Path("set-aside")


def set_strays_aside(params: Params) -> None:
    """Move what lies in shared folders and is of no model, store or seed of the parameters, if DVC runs this."""
    if "DVC_STAGE" not in os.environ:
        return
    for path in _strays(params):
        target = SET_ASIDE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            replace_folder(path, target)
        else:
            path.replace(target)
        echo(f"{path}: of no model or seed in the parameters, moved to {target}")


def _strays(params: Params) -> Iterator[Path]:
    owned = {paths.static_weights(name) for name in params.static}
    owned |= {place(run) for run in params.runs for place in (paths.robust_weights, paths.snapshots)}
    owned |= {paths.store(name) for name in params.signs}
    owned |= {curve for name in (*params.static, *params.runs) for curve in paths.training(name)}
    owned |= {place(seed) for seed in params.seeds for place in (paths.evaluation, paths.analysis, paths.blackbox)}
    owned |= {Path(static.weights) for static in params.static.values()}
    for folder in (*paths.SHARED_FOLDERS, paths.TRAINING, paths.EVALUATION, paths.ANALYSIS, paths.BLACKBOX):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path not in owned and not _is_kept(path):
                yield path


def _is_kept(path: Path) -> bool:
    """Tell if a file is hidden, or one that DVC itself tracks, with `dvc add` or `dvc import`."""
    return path.name.startswith(".") or path.suffix == ".dvc" or path.with_name(f"{path.name}.dvc").exists()
