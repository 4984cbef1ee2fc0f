"""Anybody's own architecture: ``package.module:factory``, a function that makes the model.

It is called as ``factory(sample_shape=(C, H, W), classes=K)`` and returns a ``torch.nn.Module`` that maps images in
[0, 1], float32 (N, C, H, W), to logits (N, K). What it draws must come from torch's default generator, which is seeded.
"""

import hashlib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from gradshard.storage.errors import GradshardError

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_factory(architecture: str) -> bool:
    """Whether a name has the form ``package.module:factory``."""
    return _FORM.fullmatch(architecture) is not None


def build(architecture: str, sample_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """What the factory makes.

    Raises:
        GradshardError: there is no such factory, it fails, or it makes something else.
    """
    factory = _find(architecture)
    try:
        model = factory(sample_shape=sample_shape, classes=classes)
    # Somebody else's code raises anything.
    except Exception as error:
        raise GradshardError(
            f"architecture {architecture}: the factory failed for images of shape {sample_shape} and {classes} classes "
            f"({_told(error)})"
        ) from error
    if not isinstance(model, nn.Module):
        raise GradshardError(f"architecture {architecture} made a {type(model).__name__} and not a torch.nn.Module")
    return model


def source_digest(architecture: str) -> str:
    """The SHA-256, in hex, of the file that the factory is defined in.

    Raises:
        GradshardError: there is no such factory.
    """
    file = inspect.getsourcefile(inspect.unwrap(_find(architecture)))
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _find(architecture: str) -> Callable[..., Any]:
    module_name, _, name = architecture.partition(":")
    _let_the_project_be_found()
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise GradshardError(
            f"architecture {architecture}: there is no module {error.name}: run this in the folder that holds it, or "
            "install its package"
        ) from error
    except AttributeError as error:
        raise GradshardError(f"architecture {architecture}: the module {module_name} has no {name}") from error
    except Exception as error:
        raise GradshardError(
            f"architecture {architecture}: the module {module_name} cannot be imported ({_told(error)})"
        ) from error
    if not callable(factory):
        raise GradshardError(f"architecture {architecture}: {name} is no function")
    found: Callable[..., Any] = factory
    return found


def _let_the_project_be_found() -> None:
    """Modules beside params.yaml are importable for ``gradshard`` as they are for ``python -m gradshard``."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _told(error: Exception) -> str:
    """An exception in one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place}"
