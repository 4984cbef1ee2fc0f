"""A user's own functions: ``package.module:function``, found beside params.yaml or in an installed package."""

import difflib
import hashlib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradshard.storage.errors import GradshardError

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_reference(text: str) -> bool:
    """Return whether a text has the form ``package.module:function``."""
    return _FORM.fullmatch(text) is not None


def find(reference: str, *, what: str) -> Callable[..., Any]:
    """Import the function that a reference names; an error's message begins with ``what``.

    Raises:
        GradshardError: there is no such module, it cannot be imported, or it has no function of that name.
    """
    module_name, _, name = reference.partition(":")
    _let_the_project_be_found()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise GradshardError(
            f"{what}: there is no module {error.name}: run this in the folder that holds it, or install its package"
        ) from error
    # A user's code may raise anything.
    except Exception as error:
        raise GradshardError(f"{what}: the module {module_name} cannot be imported ({explain(error)})") from error
    found = getattr(module, name, None)
    if found is None:
        raise GradshardError(f"{what}: the module {module_name} has no {name}{_meant(name, vars(module))}")
    if not callable(found):
        raise GradshardError(f"{what}: {name} is no function")
    function: Callable[..., Any] = found
    return function


def _meant(name: str, known: Mapping[str, object]) -> str:
    """Return the end of a message about an unknown name: the function or class that was probably meant, if any."""
    functions = {word.lower(): word for word, value in known.items() if callable(value) and word[0] != "_"}
    near = difflib.get_close_matches(name.lower(), functions, n=1)
    return f" (did you mean {functions[near[0]]}?)" if near else ""


def check_call(function: Callable[..., Any], keywords: Mapping[str, object], *, what: str, positional: int = 0) -> None:
    """Check that a function takes these keywords, after ``positional`` other arguments, before it is called.

    Raises:
        GradshardError: it does not take them; the message says why.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have no known signature
        return
    try:
        signature.bind(*[None] * positional, **keywords)
    except TypeError as error:
        raise GradshardError(f"{what}: {error}: it takes {', '.join(signature.parameters)}") from error


def takes(function: Callable[..., Any], keyword: str) -> bool:
    """Tell whether a function takes a keyword; true if its signature is not known."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some functions written in C have no known signature
        return True
    return keyword in parameters or any(some.kind is inspect.Parameter.VAR_KEYWORD for some in parameters.values())


def source_digest(reference: str, *, what: str) -> str:
    """Return the SHA-256, in hex, of the file that a function is defined in; empty if there is none.

    Raises:
        GradshardError: there is no such function.
    """
    file = inspect.getsourcefile(inspect.unwrap(find(reference, what=what)))
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except FileNotFoundError as error:
        raise GradshardError(
            f"{what}: {reference} lies in no file, as in a notebook: put it into a module, whose digest can be recorded"
        ) from error


def explain(error: BaseException) -> str:
    """Return an exception in one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{place}"


def _let_the_project_be_found() -> None:
    """Make modules beside params.yaml importable for ``gradshard``, as they are for ``python -m gradshard``."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
