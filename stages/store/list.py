"""``store list``: the stores at a place."""

import click

from gradshard.stages.console.output import bytes_text, json_option, tell
from gradshard.stages.console.places import PLACE
from gradshard.storage.remote.index import Entry, listed, rebuild
from gradshard.storage.remote.location import shown

_COLUMNS = ("name", "model", "dataset", "rows", "size", "digest", "signer")


@click.command()
@click.argument("place", type=PLACE)
@click.option("--rebuild", "anew", is_flag=True, help="Read all stores there and write the list again.")
@json_option
def command(place: str, anew: bool, as_json: bool) -> None:
    """List the stores at PLACE, a folder or URL that contains stores.

    At a URL, the list `stores.json` is read, which `store push` writes; in a folder, the stores themselves are read.
    `store pull PLACE STORE --pick NAME` fetches one of them by its name or by the beginning of its digest. The signer
    shown is only what the signature claims; `store pull --signer` checks it.
    """
    entries = rebuild(place) if anew else listed(place)
    result = {"place": shown(place), "stores": [entry.model_dump(mode="json") for entry in entries]}
    rows = [_COLUMNS, *map(_row, entries)] if entries else [("no stores",)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    tell(result, lines, as_json=as_json)


def _row(entry: Entry) -> tuple[str, ...]:
    dataset = f"{entry.dataset}, {entry.split}"
    size = bytes_text(entry.size)
    return (entry.name, entry.model, dataset, f"{entry.rows:,}", size, entry.digest[:12], entry.signer or "none")
