"""Ready-made parameter files, among which ``gradshard profile`` switches."""

from importlib.resources import files


def profiles() -> dict[str, str]:
    """Return the text of every profile, by name."""
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in sorted(files(__name__).iterdir(), key=lambda entry: entry.name.removesuffix(".yaml"))
        if entry.name.endswith(".yaml")
    }
