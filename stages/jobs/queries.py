"""The stage ``blackbox`` for one seed: adversaries who may query the target, and a target without a gradient."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradshard import storage
from gradshard.pipeline import models
from gradshard.pipeline.attacks.fgsm import rand_fgsm
from gradshard.pipeline.blackbox.finite_differences import estimated_rand_fgsm, pixel_groups
from gradshard.pipeline.blackbox.oracle import Oracle
from gradshard.pipeline.blackbox.random_forest import Forest, transfer_counts
from gradshard.pipeline.blackbox.substitute import SubstituteConfig, substitutes
from gradshard.pipeline.config.evaluation import ForestParams
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import perturb, random_signs
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import precision_context
from gradshard.stages.console.progress import echo, progress
from gradshard.stages.jobs.models import LoadedModel, check_defined, load_model, weights_of
from gradshard.stages.machines.device_memory import device_of, tell_microbatches
from gradshard.stages.project import paths
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.formats.dataset import Dataset, Split, open_dataset

# Separates this draw from others with the same seed.
_ROWS = 0


def ask(params: Params, seed: int) -> None:
    """Attack the targets that are new in the run of a seed by queries alone, and the forest; publish the errors.

    Raises:
        GradshardError: there is no dataset or it has too few images, or a model is missing, damaged or has gradients
            that cannot be measured.
    """
    changing = f" that changes with seed {seed}" if params.blackbox.named else ""
    params = params.model_copy(update={"blackbox": params.blackbox_of(seed)})
    data = open_dataset(paths.dataset(params))
    device = device_of(params)
    wanted = params.blackbox
    if wanted.forest is not None:
        data.check_trainable()
    if not wanted.named:
        echo(f"blackbox names no target and no source of a forest{changing}: nobody is asked")
    loaded = {name: load_model(*weights_of(params, name, seed), data, device) for name in wanted.named}
    check_defined(loaded, key="blackbox")
    if loaded:
        tell_microbatches({name: model.module for name, model in loaded.items()}, data.sample_shape, device)
    own = wanted.substitute.images
    forest: dict[str, Any] | None = None
    targets = {}
    with (
        precision_context("fp32", device),
        progress("blackbox", len(wanted.targets) + (wanted.forest is not None), "targets") as advance,
    ):
        rows = _drawn(params, data) if wanted.targets else np.arange(0)
        if len(rows):
            _check_groups(params, data)
            images, labels = _read(data.test, rows, device)
        for name in wanted.targets:
            target = loaded[name]
            targets[name] = {
                "substitute": _by_substitute(params, data, target, images, labels),
                "estimation": _by_estimation(params, target, images, labels),
            }
            advance(1)
        if wanted.forest is not None:
            forest = _forest(params, wanted.forest, data, loaded, device)
            advance(1)
    record = {
        "seed": seed,
        "targets": targets,
        "forest": forest,
        "rows": {"own": rows[:own].tolist(), "attacked": rows[own:].tolist()},
        "digests": {name: model.digest for name, model in loaded.items()},
        "test": data.test.digest,
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
    }
    place = paths.blackbox(seed) / "results.json"
    write_text(place, json.dumps(record, indent=1) + "\n")
    echo(f"{place}: {len(targets)} targets{', and a random forest' if forest else ''}")


def _drawn(params: Params, data: Dataset) -> npt.NDArray[np.int64]:
    """Draw rows of test images, int64, unsorted: first the adversary's own, then those that are attacked."""
    wanted = params.blackbox.substitute.images + params.blackbox.examples
    if wanted > len(data.test):
        raise GradshardError(
            f"blackbox.substitute.images and blackbox.examples ask for {wanted} test images, but {data.name} has "
            f"{len(data.test)}: lower one of them"
        )
    draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((params.blackbox.seed, _ROWS))))
    return draws.permutation(len(data.test))[:wanted]


def _check_groups(params: Params, data: Dataset) -> None:
    most, pixels = max(params.blackbox.estimation.groups, default=0), math.prod(data.sample_shape)
    if most > pixels:
        raise GradshardError(
            f"blackbox.estimation.groups has {most}, but an image of {data.name} has {pixels} pixels: lower it"
        )


def _read(split: Split, rows: npt.NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    images = to_unit_range(torch.from_numpy(split.take_images(rows)).to(device))
    return images, torch.from_numpy(split.read_labels()[rows]).to(device)


def _by_substitute(
    params: Params, data: Dataset, target: LoadedModel, images: Tensor, labels: Tensor
) -> list[dict[str, Any]]:
    """Measure FGSM from the substitute after each round, on images that it was not trained on."""
    chosen = params.blackbox.substitute
    oracle = Oracle(target.module)
    fresh = partial(models.create_model, chosen.architecture, data.sample_shape, data.classes, seed=chosen.seed)
    growth = SubstituteConfig(chosen.rounds, chosen.epochs, chosen.step, chosen.limit, chosen.seed)
    attacked, truth = images[chosen.images :], labels[chosen.images :]
    found = []
    for substitute, queries in substitutes(oracle, fresh, images[: chosen.images], growth):
        signs = input_gradient(substitute, attacked, truth)[0].sign()
        errors = {
            epsilon: _errors(target, perturb(attacked, signs, epsilon), truth)
            for epsilon in _epsilons(params, chosen.sweep)
        }
        sweep = [{"epsilon": epsilon, "errors": count} for epsilon, count in errors.items()]
        found.append({"queries": queries, "errors": errors[params.attack.epsilon], "n": len(truth), "sweep": sweep})
    return found


def _epsilons(params: Params, sweep: Sequence[float]) -> list[float]:
    """Return the epsilons of a sweep and that of the attack, sorted."""
    return sorted({*sweep, params.attack.epsilon})


def _by_estimation(params: Params, target: LoadedModel, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Measure RAND+FGSM with estimated gradients, for each number of pixel groups, and with the true gradient."""
    chosen, attack = params.blackbox.estimation, params.attack
    images, labels = images[-params.blackbox.examples :][: chosen.examples], labels[-params.blackbox.examples :]
    labels = labels[: chosen.examples]
    generator = torch.Generator().manual_seed(chosen.seed)
    noise = random_signs(images.shape, generator=generator).to(images.device)
    estimated = partial(estimated_rand_fgsm, epsilon=attack.epsilon, alpha=attack.alpha, noise=noise)
    known = rand_fgsm(target.module, images, labels, epsilon=attack.epsilon, alpha=attack.alpha, noise=noise)
    rows = []
    for count in chosen.groups:
        groups = pixel_groups(images[0].numel(), count, generator=torch.Generator().manual_seed(chosen.seed))
        oracle = Oracle(target.module)
        adversarial = estimated(oracle, images, labels, groups, delta=chosen.delta)
        errors = _errors(target, adversarial, labels)
        rows.append({"queries_per_example": oracle.queries // len(images), "errors": errors, "n": len(labels)})
    return {"estimated": rows, "true_gradient": {"errors": _errors(target, known, labels), "n": len(labels)}}


def _forest(
    params: Params, chosen: ForestParams, data: Dataset, loaded: Mapping[str, LoadedModel], device: torch.device
) -> dict[str, Any]:
    """Train a forest on the training images and measure it on all test images and on each source's FGSM examples."""
    forest = Forest(chosen.trees, seed=chosen.seed)
    forest.fit(*data.train.load())
    images, labels = _read(data.test, np.arange(len(data.test)), device)
    clean = int(forest.wrong(images.cpu().numpy(), labels.cpu().numpy()).sum())
    rows: list[dict[str, Any]] = [{"source": "", "gradient": "", "errors": clean, "n": len(labels)}]
    for source in chosen.sources:
        for gradient in params.evaluation.gradients:
            counts = transfer_counts(
                forest,
                loaded[source].module,
                images,
                labels,
                epsilons=_epsilons(params, chosen.sweep),
                gradient=gradient,
            )
            rows += [{"source": source, "gradient": gradient, **asdict(count)} for count in counts]
    return {"trees": chosen.trees, "rows": rows}


def _errors(target: LoadedModel, images: Tensor, labels: Tensor) -> int:
    return int((Oracle(target.module).labels(images) != labels).sum())
