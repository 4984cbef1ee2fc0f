"""Errors that the user can fix."""


class GradshardError(Exception):
    """Error that says in one sentence what is wrong, where, and how to fix it; commands print it and exit with 2."""

    exit_code = 2


class AlteredError(GradshardError):
    """Error about bytes that are not those of the store that the manifest describes."""


class NotVouchedError(GradshardError):
    """Error about a store that the required signer does not vouch for; a check that finds a fault exits with 1."""

    exit_code = 1
