"""Measure every claim, one module after the other, and keep what was found in ``results.json`` and in the docs."""

import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from benchmarks.ratios import Claim
from gradshard.storage.errors import GradshardError

MODULES = (
    "training",
    "priors",
    "precompute",
    "streaming",
    "reading",
    "png",
    "png_training",
    "unpacking",
    "evaluation",
    "scaling",
    "opening",
    "loading",
    "startup",
    "coverage",
)
RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"
_BEGIN, _END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_HEAD = ("| ratio | median | spread | target | |", "| --- | --- | --- | --- | --- |")
_VERSIONS = ("torch", "numpy", "zarr", "dask", "pyarrow")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(MODULES))
@click.option("--quick", is_flag=True, help="Run one short repeat of each, to see that they run; nothing is kept.")
def main(names: Sequence[str], quick: bool) -> None:
    """Measure the claims of the modules NAMES, by default of all modules.

    Prints the results and keeps them in results.json and docs/benchmarks.md. Each module runs in a process of its own.
    Results of other modules are kept if they come from the same machine and versions; otherwise all of them are
    dropped, because ratios from different machines do not belong in one table.
    """
    kept = {} if quick else _kept()
    for name in names or MODULES:
        try:
            kept[name] = _measure(name, quick=quick)
        except GradshardError as error:
            raise _UnmeasuredError(str(error)) from error
        for found in kept[name]:
            click.echo(f"{name}: {Claim.restore(found).line()}")
        if not quick:
            _keep(kept)


class _UnmeasuredError(click.ClickException):
    """A mistake of the user's, told in a sentence."""

    exit_code = 2


# What the process of one benchmark runs; it ends in its findings as JSON, or in what it lacks.
_CODE = """
import json
from gradshard.storage.optional import explained
try:
    import benchmarks.{name} as benchmark
    found = [claim.record() for claim in benchmark.measure(quick={quick})]
except ModuleNotFoundError as error:
    lacking = explained(error, "the benchmark {name}")
    if lacking is None:
        raise
    found = str(lacking)
print(json.dumps(found))
"""


def _measure(name: str, *, quick: bool) -> list[dict[str, Any]]:
    """Return the claims of a benchmark, measured in a process of its own.

    Raises:
        GradshardError: a library that comes with an extra is not installed.
    """
    command = [sys.executable, "-c", _CODE.format(name=name, quick=quick)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: list[dict[str, Any]] | str = json.loads(done.stdout.splitlines()[-1])
    if isinstance(found, str):
        raise GradshardError(found)
    return found


def _kept() -> dict[str, list[dict[str, Any]]]:
    if not RESULTS.exists():
        return {}
    before = json.loads(RESULTS.read_text(encoding="utf-8"))
    if (before["machine"], before["versions"]) != (machine(), versions()):
        return {}
    kept: dict[str, list[dict[str, Any]]] = {}
    for row in before["results"]:
        kept.setdefault(row.pop("benchmark"), []).append(row)
    return kept


def _keep(found: dict[str, list[dict[str, Any]]]) -> None:
    rows = [{"benchmark": name, **row} for name in MODULES for row in found.get(name, [])]
    record = {"machine": machine(), "versions": versions(), "results": rows}
    RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    PAGE.write_text(f"{before}{_BEGIN}\n{table(record)}{_END}{rest.partition(_END)[2]}", encoding="utf-8")


def table(record: dict[str, Any]) -> str:
    """Return the kept results in Markdown, a table for each benchmark under what its module says of itself."""
    parts = [f"Measured on {record['machine']}, with {', '.join(f'{n} {v}' for n, v in record['versions'].items())}.\n"]
    for name in dict.fromkeys(row["benchmark"] for row in record["results"]):
        said = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
        lines = [
            f"\n### `{name}`\n",
            said.strip(),
            "",
            *_HEAD,
        ]
        for row in record["results"]:
            if row["benchmark"] == name:
                found = Claim.restore(row)
                spread = f"{found.least:.3g} to {found.largest:.3g}, {found.repeats}"
                lines.append(f"| {found.name} | {found.value:.3g} | {spread} | {found.target_text} | {found.verdict} |")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def machine() -> str:
    """Name the machine that the ratios were measured on, in words."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_cpu()}, {os.cpu_count()} cores, {gigabytes:.0f} GiB, {platform.system()}"


def versions() -> dict[str, str]:
    """Name the software that they were measured with."""
    return {"Python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}


def _cpu() -> str:
    """Return the processor's name, with family and model where there are such: a cloud calls many the same."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in found:
        return platform.processor() or platform.machine()
    numbers = f" (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else ""
    return found["model name"] + numbers


if __name__ == "__main__":
    main()
