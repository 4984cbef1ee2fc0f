"""The group of the commands for sign stores."""

import click

from stages.lazy import LazyGroup

_COMMANDS = {
    "info": ("stages.store.info", "What a store is, without reading its shards."),
    "verify": ("stages.store.verify", "Whether a store is intact, byte by byte."),
    "audit": ("stages.store.audit", "Whether a store is honest: compute some rows again."),
    "views": ("stages.store.views", "How well the signs hold for crops and mirror images."),
    "repair": ("stages.store.repair", "Compute the damaged shards again."),
    "diff": ("stages.store.diff", "How far two stores agree."),
    "export": ("stages.store.archive:export_command", "Write a store to one file."),
    "import": ("stages.store.archive:import_command", "Unpack and check such a file."),
    "push": ("stages.store.transfer:push_command", "Copy a store to a folder or URL."),
    "pull": ("stages.store.transfer:pull_command", "Fetch a store from a folder or URL."),
    "plan": ("stages.store.plan", "What stores would cost, and when they pay off."),
}


@click.group(cls=LazyGroup, table=_COMMANDS, heading="Commands")
def group() -> None:
    """Look at, check, mend, share and plan sign stores.

    Exit codes: 0, all is well; 1, the check found something; 2, it could not be run. Each command has --json.
    """
