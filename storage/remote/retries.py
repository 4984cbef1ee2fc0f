"""Trying again after failures that may be temporary: broken connections and overloaded servers."""

import time
from collections.abc import Callable
from typing import TypeVar

from gradshard.storage.remote.causes import ConnectionBrokenError

Result = TypeVar("Result")

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5


def patiently(step: Callable[[], Result]) -> Result:
    """Run a step, up to five times while its connection breaks, with pauses that double.

    Raises:
        ConnectionBrokenError: the connection broke every time.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return step()
        except ConnectionBrokenError:
            time.sleep(_PAUSE_SECONDS * 2**attempt)
    return step()
