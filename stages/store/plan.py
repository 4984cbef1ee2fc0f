"""``store plan``: what stores would cost, and when they have paid off."""

from dataclasses import asdict

import click

from gradshard.pipeline.cost_model import plan
from gradshard.stages.store.output import bytes_text, json_option, table, tell
from gradshard.stages.support.planning import Stores, stores_options


@click.command()
@stores_options(classes=10)
@json_option
def command(stores: Stores, as_json: bool) -> None:
    """Plan the stores of some static models over a training set.

    Tells the hours of computing, the disk, files and memory they take, and after how many epochs of training they cost
    less than the crafting they replace. Each further user of the stores saves all of it.
    """
    planned = plan(rows=stores.rows, pixels=stores.pixels, sources=stores.sources, rate=stores.rate, bits=stores.bits)
    entries = {
        "rate": f"{stores.rate:.4g} images/s {'measured here' if stores.measured else 'as given'}",
        "computing": f"{planned.hours:.3g} hours, once",
        "disk": f"{bytes_text(planned.disk)} at {stores.bits} bits per pixel",
        "memory": f"{bytes_text(planned.memory)} to hold the signs; less, and they stream in windows",
        "files": f"{planned.files}, for {planned.shards} shards of {planned.shard} rows (chunks of {planned.chunk})",
        "paid off": f"after {planned.epochs_against_live} epochs against crafting live from each batch's source, after "
        f"{planned.epochs_against_all_sources} against crafting from all sources on every batch",
    }
    tell({"rate": stores.rate, **asdict(planned)}, table(entries), as_json=as_json)
