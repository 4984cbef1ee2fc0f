"""Refusals of malicious input, in one sentence and in little memory."""

import tracemalloc
from collections.abc import Callable

import pytest

from gradshard.storage.errors import GradshardError

MB = 1_000_000


def refused(action: Callable[[], object], *, below: int = 30 * MB) -> str:
    """Check that an action is refused with one printable sentence and little memory; return the sentence."""
    tracemalloc.start()
    try:
        with pytest.raises(GradshardError) as caught:
            action()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert peak < below, f"{peak / MB:.0f} MB"
    assert sentence.isprintable(), sentence
    assert len(sentence) < 1000
    return sentence
