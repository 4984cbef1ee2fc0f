"""Costs of the attacked models in passes and bytes, from the records of their training and of their stores."""

from collections.abc import Mapping
from typing import Any

from gradshard.pipeline.attacks.store_passes import store_passes
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.types import BEST
from gradshard.stages.project import paths
from gradshard.storage.formats.json_results import read_results
from gradshard.storage.formats.manifest import Manifest, read_manifest
from gradshard.storage.formats.store_paths import MANIFEST

# The cost of one target: the counts of its training, none where unknown, and those of each of its stores.
Cost = dict[str, Any]


def costs(params: Params, seed: int, rows: int, stores: Mapping[str, Mapping[str, str]]) -> dict[str, Cost]:
    """Gather what each target of the evaluation cost.

    Args:
        params: the parameters of the project in the working directory.
        seed: the seed of the robust models.
        rows: the number of rows of the training set.
        stores: by target and source, the content digests of the stores that its weights were trained on.

    Returns:
        By target: ``rows``; the images that passed ``forward`` and ``backward`` in its training; ``prior_bytes`` if its
        method kept any; and in ``stores``, by source, the store's ``rows`` and ``bytes`` and the images that passed
        ``forward`` and ``backward`` to make it. Unknown numbers are null: those of weights from elsewhere, of the
        snapshot of an epoch, and of a store that is not in the project.

    Raises:
        GradshardError: the record of a training is damaged.
    """
    return {
        target: {"rows": rows, **_training(params, target, seed)}
        | {"stores": {source: _store(params, source, seed, content) for source, content in stores[target].items()}}
        for target in params.evaluation.targets
    }


def _training(params: Params, target: str, seed: int) -> dict[str, int | None]:
    """Count the passes of a whole training run; finding its best snapshot took all of them."""
    model, _, epoch = target.partition("@")
    file, _ = paths.training(params.in_run(model, seed))
    found = read_results(file, remedy=f"train {target} again") if epoch in ("", BEST) and file.exists() else {}
    passes = found.get("passes", {})
    prior = {"prior_bytes": found["prior_bytes"]} if "prior_bytes" in found else {}
    return {"forward": passes.get("forward"), "backward": passes.get("backward"), **prior}


def _store(params: Params, source: str, seed: int, content: str) -> dict[str, int | None] | None:
    """Count what making the store of this content cost; none if it is not in the project."""
    place = paths.store(params.in_run(source, seed))
    if not (place / MANIFEST).exists() or (manifest := read_manifest(place)).content != content:
        return None
    return _of_manifest(manifest)


def _of_manifest(manifest: Manifest) -> dict[str, int | None]:
    rows, direction = manifest.dataset.rows, manifest.direction
    attack = direction.attack
    passes = store_passes(
        None if attack is None else attack.name,
        label=direction.label,
        steps=1 if attack is None else attack.steps or 1,
        copies=manifest.copies,
    )
    forward, backward = (None, None) if passes is None else (rows * passes.forward, rows * passes.backward)
    return {"rows": rows, "bytes": manifest.size, "forward": forward, "backward": backward}
