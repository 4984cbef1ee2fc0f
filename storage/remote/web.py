"""Options for requests of files over HTTP."""

from typing import Any


def web_options() -> dict[str, Any]:
    """Return the options of fsspec's driver for HTTP."""
    import aiohttp

    # By default a file must arrive in five minutes; a large shard may take longer as long as data arrive.
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)}}
