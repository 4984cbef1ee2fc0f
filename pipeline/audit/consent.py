"""Consent to run the code that a manifest names: a stranger's store must not choose what is imported here."""

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import Manifest


def check_attack(manifest: Manifest, attack: str | None, *, where: str, option: str) -> None:
    """Check that the caller named the right attack, or none if the store's attack is gradshard's own code.

    Args:
        manifest: the store's.
        attack: the name that the caller gave, if any.
        where: the store's name in messages.
        option: how the caller names an attack, such as ``--attack``.

    Raises:
        GradshardError: the store's attack is foreign code that the caller did not name, or is not the one named.
    """
    record = manifest.direction.attack
    named = None if record is None else record.name
    if attack != named and (attack is not None or (named is not None and ":" in named)):
        raise GradshardError(
            f"{where} says that its attack is {named or 'none'}: "
            + (f"if you trust the code of that name, give {option} {named}" if named else f"leave out {option}")
        )
