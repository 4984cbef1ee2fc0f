"""A robust model before training: with random weights, or those of a static model."""

from gradshard.pipeline import models
from gradshard.pipeline.config.schema import Params
from gradshard.stages.jobs.models import check_architecture, static_weights_of
from gradshard.stages.training.initial_weights import Classified, Initial
from gradshard.storage.formats import checkpoints


def initial_robust_model(params: Params, name: str, seed: int, data: Classified) -> Initial:
    """Build a robust model with random weights by the seed, or with those of ``init_from`` in the run of the seed.

    Raises:
        GradshardError: the architecture or the weights are missing, or do not fit the dataset.
    """
    robust = params.robust[name]
    module = models.create_model(robust.architecture, data.sample_shape, data.classes, seed=seed)
    if robust.init_from is None:
        return Initial(module, None)
    path, architecture = static_weights_of(params, params.in_run(robust.init_from, seed))
    tensors, record = checkpoints.load(path)
    check_architecture(record, architecture, path)
    models.load_weights(module, tensors, where=str(path))
    return Initial(module, checkpoints.tensors_digest(tensors, architecture))
