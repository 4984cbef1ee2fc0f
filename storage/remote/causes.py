"""The true cause of a driver's failure, in words, and whether it may be temporary.

Each driver of fsspec raises exceptions of its own libraries. The one for HTTP reports every failed request for a file
as "not found", and keeps the reason as the exception's cause.
"""

import errno
import http
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from gradshard.storage.errors import GradshardError

_MISSING = {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE}
_REFUSED = {
    http.HTTPStatus.UNAUTHORIZED,
    http.HTTPStatus.FORBIDDEN,
    http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
}
_CHANGED = {http.HTTPStatus.CONFLICT, http.HTTPStatus.PRECONDITION_FAILED}
_PASSING = {http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_EARLY, http.HTTPStatus.TOO_MANY_REQUESTS}


class ConnectionBrokenError(GradshardError):
    """A failure that may be temporary."""


@dataclass(frozen=True)
class Cause:
    """Cause of a failure, what to do about it, and whether it may be temporary (``passes``)."""

    what: str
    advice: str
    passes: bool

    def error(self, place: str) -> GradshardError:
        """Return the error to raise for a file or folder at ``place``."""
        kind = ConnectionBrokenError if self.passes else GradshardError
        return kind(f"{place}: {self.what}: {self.advice}")


def is_missing(error: FileNotFoundError, *, protocol: str) -> bool:
    """Tell whether a file that a driver calls missing really is; over HTTP (hf:// too), whether the server says so."""
    for found in _chain(error):
        status = _status(found)
        if status is not None:
            return status in _MISSING
    return error.__cause__ is None or protocol not in ("http", "https", "hf")


def cause_of(error: Exception) -> Cause:
    """Return the true cause of a driver's exception."""
    chain = list(_chain(error))
    statuses = [status for found in chain if (status := _status(found)) is not None]
    if statuses:
        return _cause_of_status(statuses[0])
    return next((known for found in chain if (known := _known(found)) is not None), _unknown(chain[-1]))


def is_conflict(error: Exception) -> bool:
    """Tell whether an exception says that the server refused a write because somebody else wrote in between."""
    return next((status for found in _chain(error) if (status := _status(found)) is not None), None) in _CHANGED


def _cause_of_status(status: int) -> Cause:
    known = status in set(http.HTTPStatus)
    text = f"{status} {http.HTTPStatus(status).phrase}" if known else str(status)
    if status in _REFUSED:
        advice = "check the address and your credentials; an address that was signed may have run out"
        return Cause(f"the server refuses ({text})", advice, passes=False)
    if status in _PASSING or status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return Cause(f"the server is overloaded or out of order ({text})", "run the same again later", passes=True)
    if status in _MISSING:
        return Cause(f"there is no such place ({text})", "create it first, or check the address", passes=False)
    if status in _CHANGED:
        return Cause(f"somebody else changed the place just now ({text})", "run the same again", passes=False)
    return Cause(f"the server does not accept the request ({text})", "check the address", passes=False)


def _known(error: BaseException) -> Cause | None:
    if isinstance(error, PermissionError):
        return Cause("the server refuses (no permission)", "check the address and your credentials", passes=False)
    if isinstance(error, socket.gaierror):
        passes = error.errno == socket.EAI_AGAIN
        return Cause("no host of that name is known", "check the address and your connection", passes=passes)
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "check the address, and the clock and certificates of this machine"
        return Cause(f"the server's certificate is not valid ({error.verify_message})", advice, passes=False)
    if isinstance(error, OSError) and error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
        advice = "the server is down or the address is wrong: check it, then run the same again"
        return Cause("nothing answers there", advice, passes=True)
    if isinstance(error, TimeoutError):
        return Cause("no answer came in time", "check the connection, then run the same again", passes=True)
    return None


def _unknown(error: BaseException) -> Cause:
    reason = " ".join(str(error).split()) or type(error).__name__
    advice = "check the address, your credentials and the connection, then run the same again"
    return Cause(reason[:300], advice, passes=True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and, one after the other, those that it was raised from."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an exception carries, wherever its library keeps it."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    candidates = (
        getattr(error, "status", None),  # aiohttp
        metadata.get("HTTPStatusCode"),  # botocore
        getattr(response, "status_code", None),  # requests, httpx
    )
    lowest, highest = 400, 600
    return next((found for found in candidates if isinstance(found, int) and lowest <= found < highest), None)
