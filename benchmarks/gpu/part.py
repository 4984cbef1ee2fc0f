"""Findings of a part of the GPU run, kept as they come; where and at which size it computes."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import torch

from benchmarks.__main__ import machine, versions
from benchmarks.ratios import Claim
from gradshard.pipeline.models.precision import choose_device
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats.atomic import write_text

Command = TypeVar("Command", bound=Callable[..., None])


class Findings:
    """Findings of a part, written after each to ``NAME.partial.json``, which is ``NAME.json`` once all are there.

    They are found on ``device``; a ``small`` part is a rehearsal, whose figures mean nothing.
    """

    def __init__(self, result: Path, device: torch.device, *, small: bool) -> None:
        self.device, self.small = device, small
        self._result, self._partial = result, result.with_suffix(".partial.json")
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
        self._head = {"device": card, "rehearsal": small, "machine": machine(), "versions": versions()}
        self._found: list[dict[str, Any]] = []

    def add(self, name: str, value: float, unit: str) -> None:
        """Keep a figure and show it."""
        click.echo(f"{name}: {value:.6g} {unit}")
        self._keep({"name": name, "value": value, "unit": unit})

    def add_claim(self, found: Claim) -> None:
        """Keep a ratio and show it."""
        click.echo(found.line())
        self._keep(found.record())

    def finish(self) -> None:
        """Put the file in its place."""
        self._partial.replace(self._result)

    def _keep(self, finding: dict[str, Any]) -> None:
        self._found.append(finding)
        text = json.dumps({**self._head, "findings": self._found}, indent=1, ensure_ascii=False)
        write_text(self._partial, text + "\n")


@contextmanager
def findings(result: Path, device: str, *, small: bool) -> Iterator[Findings]:
    """Give a part's findings, to be added to; what was added before an error stays in the partial file.

    Raises:
        ClickException: the device is not there.
    """
    try:
        chosen = choose_device("cuda" if device == "cuda" else "cpu")
    except GradshardError as error:
        raise click.ClickException(str(error)) from error
    found = Findings(result, chosen, small=small)
    yield found
    found.finish()


def part_options(command: Command) -> Command:
    """Add the arguments of every part: RESULT, --device and --small."""
    for option in (
        click.option("--small", is_flag=True, help="Rehearse with the least of everything that still runs."),
        click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True),
        click.argument("result", type=click.Path(dir_okay=False, path_type=Path)),
    ):
        command = option(command)
    return command
