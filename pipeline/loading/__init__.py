"""Stores in any training loop: made from its model and data, and read beside its images or in the trainer's order."""

from gradshard.pipeline.gradients.input_gradient import input_gradient
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.loading.compute import compute_signs
from gradshard.pipeline.loading.sign_loader import SignLoader
from gradshard.pipeline.loading.signed_dataset import SignedDataset

__all__ = ["SignLoader", "SignedDataset", "compute_signs", "input_gradient", "perturb"]
