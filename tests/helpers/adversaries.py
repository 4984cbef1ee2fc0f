"""Adversaries of training methods that perturb by themselves, without stores."""

from gradshard.pipeline.training.adversary import Adversary


def adversary_of(method, *, epsilon, attack="fgsm", policy="predicted", **settings):
    """Return the adversary of a method; its other fields have fixed values."""
    return Adversary(
        attack=attack,
        epsilon=epsilon,
        alpha=0.0,
        clean_weight=0.5,
        sources=("self",),
        schedule="random",
        gradient="exact",
        policy=policy,
        live_mode="train",
        directions={},
        method=method,
        settings=settings,
    )
