"""Libraries that not everybody has installed, and the extra that brings each."""

from gradshard.storage.errors import GradshardError

# By the name that is imported.
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
    """Tell how to install what brings a package that is among ``EXTRAS``."""
    return f"pip install 'gradshard[{EXTRAS[package]}]'"


def explained(error: ModuleNotFoundError, what: str) -> GradshardError | None:
    """Return the sentence for an import that failed; none if the module is of no library that may be left out.

    Args:
        error: what the import raised.
        what: who needs it, such as ``the benchmark training``.
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return GradshardError(f"{what} needs the package {package}: {remedy(package)}")
