"""The words that parameters, commands and results share; this module imports nothing heavy."""

from typing import Literal

SELF = "self"
# Instead of a source's name: the target itself.
OWN = "own"
CLEAN = "clean"
WORST_CASE = "worst_case"
ANY_SOURCE = "any"
# The weights that a model begins with, if they are not given as a checkpoint's path.
RANDOM = "random"
PRETRAINED = "pretrained"
# Recorded instead of a gradient's name for an attack that climbs a loss of its own.
OWN_LOSS = "own"
# Instead of an epoch's number in a snapshot's name: the epoch with the least error on held-back rows.
BEST = "best"

Gradient = Literal["exact", "cross_entropy"]
LabelPolicy = Literal["predicted", "true", "least_likely"]
StoreLabel = Literal["predicted", "true", "least_likely", "random"]
EvaluationLabel = Literal["true", "least_likely"]
# Methods of training; their table is pipeline/training/methods/registry.py.
MethodName = Literal["ensemble", "fast_at", "n_fgsm", "free_at", "fgsm_ep", "fgsm_pgi", "fgsm_mep", "pgd_at", "trades"]
TrainingAttack = Literal["fgsm", "rand_fgsm", "pgd"]
# The image for which a label is predicted, if an attack begins with a random step.
LabelledImage = Literal["moved", "clean"]
# One source per batch, or all sources with their losses combined.
ScheduleKind = Literal["random", "rotate"]
Combination = Literal["all", "top_k", "loss_weighted"]
ScheduleOrCombination = Literal[ScheduleKind, Combination]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "tf32"]
StorePrecision = Literal["fp32", "bf16"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
BrokenPolicy = Literal["fail", "skip"]
ArrayLayout = Literal["chw", "hwc"]
RowOrder = Literal["auto", "as_given", "shuffled"]
Mode = Literal["train", "eval"]
Objective = Literal["both", "half"]
EpsilonDistribution = Literal["fixed", "truncated_normal"]
OptimizerName = Literal["adam", "sgd", "rmsprop"]
LearningRateSchedule = Literal["exponential", "step", "cosine"]
BatchNorm = Literal["per_rank", "synchronised"]
Compilation = Literal["auto", "on", "off"]
Output = Literal["logits", "probabilities"]
