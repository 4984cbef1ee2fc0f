"""Architectures of a user's own: ``package.module:factory``, a function that makes the model.

It is called as ``factory(sample_shape=(C, H, W), classes=K)`` and returns a ``torch.nn.Module`` that maps images in
[0, 1], float32 (N, C, H, W), to logits (N, K). Its random draws must come from torch's seeded default generator.
"""

from torch import nn

from gradshard.pipeline import plugins
from gradshard.storage.errors import GradshardError


def is_factory(architecture: str) -> bool:
    """Return whether a name has the form ``package.module:factory``."""
    return plugins.is_reference(architecture)


def build(architecture: str, sample_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Make a model by its factory.

    Raises:
        GradshardError: there is no such factory, it fails, or it does not return a module.
    """
    factory = plugins.find(architecture, what=_named(architecture))
    try:
        model = factory(sample_shape=sample_shape, classes=classes)
    # User code can raise any exception.
    except Exception as error:
        raise GradshardError(
            f"architecture {architecture}: the factory failed for images of shape {sample_shape} and {classes} classes "
            f"({plugins.explain(error)})"
        ) from error
    if not isinstance(model, nn.Module):
        raise GradshardError(f"architecture {architecture} made a {type(model).__name__} and not a torch.nn.Module")
    return model


def source_digest(architecture: str) -> str:
    """Return the SHA-256, in hex, of the file that the factory is defined in.

    Raises:
        GradshardError: there is no such factory.
    """
    return plugins.source_digest(architecture, what=_named(architecture))


def _named(architecture: str) -> str:
    return f"architecture {architecture}"
