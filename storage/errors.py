"""The one kind of error that is the user's to mend."""


class GradshardError(Exception):
    """Error that says in one sentence what is wrong, where, and the remedy: the command prints it and exits with 2."""
