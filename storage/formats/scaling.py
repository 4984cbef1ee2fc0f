"""Raw images whose numbers are not bytes: multiplied by a given scale, they must be 0 to 255."""

from typing import Any

import numpy as np
import numpy.typing as npt

from gradshard.storage.errors import GradshardError

# k / 255 as a sixteen-bit float misses k by up to 0.063; images that were never bytes soon miss by up to 0.5.
_ROUNDING = 0.1


def check_scalable(dtype: "np.dtype[Any]", scale: float | None, *, where: str) -> None:
    """Refuse dtypes other than uint8 if no scale is given, and all that are not of real numbers.

    Raises:
        GradshardError: the dtype is refused.
    """
    real = dtype == np.bool_ or np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)
    if not real or (scale is None and dtype != np.uint8):
        remedy = (
            "or set dataset.scale to what makes them 0 to 255: 255 for numbers from 0 to 1, 1 for numbers from 0 to 255"
            if real
            else "for numbers of another kind have no stated meaning as pixels"
        )
        raise GradshardError(f"{where}: images must be uint8, but are {dtype}: save them as uint8, {remedy}")


def to_bytes(values: npt.NDArray[Any], scale: float | None, *, first_row: int, where: str) -> npt.NDArray[np.uint8]:
    """Multiply images (n, ...) by a scale, to uint8 of the same shape; without a scale they must be uint8 already.

    Args:
        values: of any real dtype.
        scale: makes them whole numbers from 0 to 255, up to rounding.
        first_row: the number of the first image, for errors.
        where: what they were read from, for errors.

    Raises:
        GradshardError: a product is not such a number.
    """
    if scale is None:
        return values
    scaled = values.astype(np.float64) * scale
    whole = np.rint(scaled)
    # Negated, so that NaN is wrong too.
    wrong = ~((np.abs(scaled - whole) <= _ROUNDING) & (whole >= 0) & (whole <= 255))
    if wrong.any():
        at = tuple(int(axis[0]) for axis in np.nonzero(wrong))
        raise GradshardError(
            f"{where}: {values[at]} of row {first_row + at[0]}, times dataset.scale {scale:g}, is {scaled[at]:.6g}, no "
            "whole number from 0 to 255: set the scale that undoes the division of the bytes, or save them as uint8"
        )
    return whole.astype(np.uint8)
