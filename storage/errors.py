"""The kinds of errors that are the user's to mend."""


class GradshardError(Exception):
    """Error that says in one sentence what is wrong, where, and the remedy: the command prints it and exits with 2."""

    exit_code = 2


class AlteredError(GradshardError):
    """Bytes that are not those of the store that its manifest names."""


class NotVouchedError(GradshardError):
    """A store for which the signer that was asked for does not vouch: a check that found something, so exit with 1."""

    exit_code = 1
