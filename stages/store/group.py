"""The group of the commands for sign stores."""

import click

from gradshard.stages.console.lazy_group import LazyGroup

_COMMANDS = {
    "info": ("gradshard.stages.store.info", "Show what a store is, without reading its shards."),
    "verify": ("gradshard.stages.store.verify", "Check that a store is intact, byte by byte."),
    "audit": ("gradshard.stages.store.audit", "Check that a store is honest: compute some rows again."),
    "fidelity": ("gradshard.stages.store.fidelity", "Measure how much of an attack's transfer the stored signs keep."),
    "views": ("gradshard.stages.store.views", "Measure how well the signs hold for crops and mirror images."),
    "repair": ("gradshard.stages.store.repair", "Compute the damaged shards again."),
    "diff": ("gradshard.stages.store.diff", "Compare two stores sign by sign."),
    "sign": ("gradshard.stages.store.sign", "Vouch for a store, by a key or a certificate."),
    "export": ("gradshard.stages.store.archive:export_command", "Write a store to one file."),
    "import": ("gradshard.stages.store.archive:import_command", "Unpack and check such a file."),
    "list": ("gradshard.stages.store.list", "List the stores at a folder or URL."),
    "push": ("gradshard.stages.store.transfer:push_command", "Copy a store to a folder or URL."),
    "pull": ("gradshard.stages.store.transfer:pull_command", "Fetch a store from a folder or URL."),
}


@click.group(cls=LazyGroup, table=_COMMANDS, heading="Commands")
def group() -> None:
    """Inspect, check, repair and share sign stores.

    Exit codes: 0, all is well; 1, the check found something; 2, the command could not be run. Each command has --json.
    """
