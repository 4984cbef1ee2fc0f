"""The words that parameters, commands and results share; nothing heavy is imported to know them."""

from typing import Literal

SELF = "self"
CLEAN = "clean"
WORST_CASE = "worst_case"
ANY_SOURCE = "any"
# The weights a model begins with, where they are not a checkpoint's path.
RANDOM = "random"
PRETRAINED = "pretrained"
# What stands for the gradient of an attack that climbs a loss of its own.
OWN_LOSS = "own"
# A snapshot that is no epoch's by number, but the one of least error on held-back rows.
BEST = "best"

Gradient = Literal["exact", "cross_entropy"]
LabelPolicy = Literal["predicted", "true", "least_likely"]
StoreLabel = Literal["predicted", "true", "least_likely", "random"]
EvaluationLabel = Literal["true", "least_likely"]
# Ways of training a robust model; the table: pipeline/training/methods/registry.py.
MethodName = Literal["ensemble", "fast_at", "n_fgsm", "free_at", "fgsm_ep", "fgsm_pgi", "fgsm_mep", "pgd_at", "trades"]
TrainingAttack = Literal["fgsm", "rand_fgsm", "pgd"]
# The image that a label is predicted of, where an attack begins with a random step.
LabelledImage = Literal["moved", "clean"]
# One source a batch, or all of them and their losses combined.
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
