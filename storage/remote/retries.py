"""Trying again what may succeed the next moment: connections break, and servers are overloaded now and then."""

import time
from collections.abc import Callable
from typing import TypeVar

from gradshard.storage.remote.causes import ConnectionBrokenError

Result = TypeVar("Result")

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5


def patiently(step: Callable[[], Result]) -> Result:
    """Run a step, up to five times while its connection breaks, with a pause that doubles.

    Raises:
        ConnectionBrokenError: it broke every time.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return step()
        except ConnectionBrokenError:
            time.sleep(_PAUSE_SECONDS * 2**attempt)
    return step()
