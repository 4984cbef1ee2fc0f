"""The stage ``blackbox``: adversaries who may ask the target, and a target without a gradient."""

import json
from functools import partial
from typing import Any

import click
import torch
from torch import Tensor

from gradshard import storage
from gradshard.pipeline import models
from gradshard.pipeline.attacks.fgsm import fgsm, rand_fgsm
from gradshard.pipeline.blackbox.finite_differences import estimated_rand_fgsm, pixel_groups
from gradshard.pipeline.blackbox.oracle import Oracle
from gradshard.pipeline.blackbox.random_forest import Forest
from gradshard.pipeline.blackbox.substitute import SubstituteConfig, substitutes
from gradshard.pipeline.config.evaluation import ForestParams
from gradshard.pipeline.config.schema import Params
from gradshard.pipeline.gradients.perturb import random_signs
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.models.precision import choose_device, precision_context
from gradshard.stages.support import paths
from gradshard.stages.support.models import LoadedModel, check_defined, load_model, weights_of
from gradshard.stages.support.options import params_option
from gradshard.stages.support.progress import progress, say
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_text
from gradshard.storage.formats.dataset import Dataset, open_dataset


@click.command()
@params_option
def command(params: Params) -> None:
    """Attack the targets of `blackbox`, of the first seed, by queries alone, and a random forest by others' examples.

    Writes blackbox/results.json: per target, the error against the number of queries, for a substitute trained on the
    target's labels and for gradients estimated from its confidences; and the forest's error on examples that transfer.
    """
    data = open_dataset(paths.dataset(params))
    data.check_trainable()
    device = choose_device(params.device)
    wanted = params.blackbox
    seed = params.seeds[0]
    loaded = {name: load_model(*weights_of(params, name, seed), data, device) for name in wanted.named}
    check_defined(loaded, key="blackbox")
    forest: dict[str, Any] | None = None
    targets = {}
    with (
        precision_context("fp32", device),
        progress("blackbox", len(wanted.targets) + (wanted.forest is not None), "targets") as advance,
    ):
        if loaded:
            images, labels = _test_examples(params, data, device)
        for name in wanted.targets:
            target = loaded[name]
            targets[name] = {
                "substitute": _by_substitute(params, data, target, images, labels),
                "estimation": _by_estimation(params, target, images, labels),
            }
            advance(1)
        if wanted.forest is not None:
            forest = _forest(params, wanted.forest, data, loaded, images, labels)
            advance(1)
    record = {
        "seed": seed,
        "targets": targets,
        "forest": forest,
        "digests": {name: model.digest for name, model in loaded.items()},
        "test": data.test.digest,
        "versions": {"gradshard": storage.__version__, "torch": torch.__version__},
    }
    write_text(paths.BLACKBOX / "results.json", json.dumps(record, indent=1) + "\n")
    say(f"{paths.BLACKBOX / 'results.json'}: {len(targets)} targets{', and a random forest' if forest else ''}")


def _test_examples(params: Params, data: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first test images: the adversary's own, then those that are attacked."""
    wanted = params.blackbox.substitute.images + params.blackbox.examples
    if wanted > len(data.test):
        raise GradshardError(
            f"blackbox.substitute.images and blackbox.examples ask for {wanted} test images, but {data.name} has "
            f"{len(data.test)}: lower one of them"
        )
    images = to_unit_range(torch.from_numpy(data.test.read_images(0, wanted)).to(device))
    return images, torch.from_numpy(data.test.read_labels(0, wanted)).to(device)


def _by_substitute(
    params: Params, data: Dataset, target: LoadedModel, images: Tensor, labels: Tensor
) -> list[dict[str, int]]:
    """FGSM from the substitute after each round, on images that it was not grown from."""
    chosen = params.blackbox.substitute
    oracle = Oracle(target.module)
    fresh = partial(models.create_model, chosen.architecture, data.sample_shape, data.classes, seed=chosen.seed)
    growth = SubstituteConfig(chosen.rounds, chosen.epochs, chosen.step, chosen.limit, chosen.seed)
    attacked, truth = images[chosen.images :], labels[chosen.images :]
    found = []
    for substitute, queries in substitutes(oracle, fresh, images[: chosen.images], growth):
        adversarial = fgsm(substitute, attacked, truth, epsilon=params.attack.epsilon)
        errors = _errors(target, adversarial, truth)
        found.append({"queries": queries, "errors": errors, "n": len(truth)})
    return found


def _by_estimation(params: Params, target: LoadedModel, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """RAND+FGSM by estimated gradients, for each number of groups, beside the same by the true gradient."""
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
    params: Params,
    chosen: ForestParams,
    data: Dataset,
    loaded: dict[str, LoadedModel],
    images: Tensor,
    labels: Tensor,
) -> dict[str, Any]:
    """A forest trained on the training images: its error on clean ones and on FGSM examples of each source."""
    examples = params.blackbox.examples
    forest = Forest(chosen.trees, seed=chosen.seed)
    forest.fit(*data.train.load())
    images, labels = images[-examples:], labels[-examples:]
    truth = labels.cpu().numpy()
    rows = [{"source": "", "gradient": "", "errors": forest.errors(images.cpu().numpy(), truth), "n": len(truth)}]
    for source in chosen.sources:
        for gradient in params.evaluation.gradients:
            adversarial = fgsm(loaded[source].module, images, labels, epsilon=params.attack.epsilon, gradient=gradient)
            errors = forest.errors(adversarial.cpu().numpy(), truth)
            rows.append({"source": source, "gradient": gradient, "errors": errors, "n": len(truth)})
    return {"trees": chosen.trees, "rows": rows}


def _errors(target: LoadedModel, images: Tensor, labels: Tensor) -> int:
    return int((Oracle(target.module).labels(images) != labels).sum())
