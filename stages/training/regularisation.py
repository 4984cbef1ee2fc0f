"""Changes to a model before its first step: another rate of dropout, and a second classifier."""

from torch import nn

from gradshard.pipeline import models
from gradshard.pipeline.config.optimization import TrainingParams
from gradshard.pipeline.training.config import TrainingRun
from gradshard.stages.training.initial_weights import Classified
from gradshard.stages.training.model_checks import least_rows
from gradshard.storage.errors import GradshardError


def regularised(
    module: nn.Module, training: TrainingParams, data: Classified, run: TrainingRun, *, where: str
) -> models.AuxiliaryHead | None:
    """Set a model's dropout, and make the auxiliary classifier that it is trained with, as the parameters ask.

    Raises:
        GradshardError: the architecture has no dropout or no auxiliary classifier, or the latter would get single rows.
    """
    if training.dropout is not None:
        models.set_dropout(module, training.dropout, where=where)
    if training.auxiliary is None:
        return None
    if least_rows(run) < 2:
        raise GradshardError(
            "training.auxiliary: a row passes alone in some batch, but the auxiliary classifier normalises over rows: "
            "choose another training.batch, or more rows by GRADSHARD_ROWS_AT_ONCE"
        )
    shape, classes, weight = data.sample_shape, data.classes, training.auxiliary
    return models.auxiliary_head(module, shape, classes, weight=weight, seed=run.seed, where=where)
