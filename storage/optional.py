"""Optional libraries, and the extra that installs each."""

from gradshard.storage.errors import GradshardError

# Keyed by the name that is imported.
EXTRAS = {
    "adlfs": "az",
    "aiohttp": "http",
    "OpenSSL": "sign",
    "art": "peers",
    "bokeh": "dashboard",
    "datasets": "hf",
    "dvc": "dvc",
    "foolbox": "peers",
    "gcsfs": "gs",
    "h5py": "bench",
    "huggingface_hub": "hf",
    "ipykernel": "examples",
    "lightning": "examples",
    "litdata": "bench",
    "mkdocs": "site",
    "mlcroissant": "croissant",
    "model_signing": "sign",
    "nbclient": "examples",
    "nbformat": "examples",
    "pyautoattack": "autoattack",
    "s3fs": "s3",
    "sshfs": "ssh",
    "tensorstore": "bench",
    "timm": "timm",
    "torchattacks": "peers",
    "torchvision": "torchvision",
    "transformers": "hf",
    "webdataset": "bench",
}


def remedy(package: str) -> str:
    """Return the command that installs a package of ``EXTRAS``."""
    return f"pip install 'gradshard[{EXTRAS[package]}]'"


def explained(error: ModuleNotFoundError, what: str) -> GradshardError | None:
    """Return the error for a failed import; none if the module does not belong to an optional library.

    Args:
        error: what the import raised.
        what: what needs the library, such as ``the benchmark training``.
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return GradshardError(f"{what} needs the package {package}: {remedy(package)}")
