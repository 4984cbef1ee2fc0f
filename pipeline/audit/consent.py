"""Consent to run the code that a manifest names: a stranger's store must not choose what is imported here."""

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.manifest import Manifest


def check_attack(manifest: Manifest, attack: str | None, *, where: str, option: str) -> None:
    """Check that the caller named the store's attack, if that is code that is not gradshard's, and did not misname it.

    Args:
        manifest: the store's.
        attack: what the caller named, if anything.
        where: what the error calls the store.
        option: how the caller names an attack, such as ``--attack``.

    Raises:
        GradshardError: the attack is another's code that the caller did not name, or not the one that was named.
    """
    record = manifest.direction.attack
    named = None if record is None else record.name
    if attack != named and (attack is not None or (named is not None and ":" in named)):
        raise GradshardError(
            f"{where} says that its attack is {named or 'none'}: "
            + (f"if you trust the code of that name, give {option} {named}" if named else f"leave out {option}")
        )
