"""The one kind of error that is the user's to mend."""


class GradshardError(Exception):
    """What is wrong, where, and what to do, in one sentence: the command line prints it and exits with 2."""
