"""The stage ``report``: one self-contained page, a pure function of the results."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import jinja2
import numpy as np
from ruamel.yaml import YAML

from pipeline import figures, tables
from pipeline.params import Params
from pipeline.tables import Matrix, Table
from stages import paths
from stages.console import say
from stages.options import params_option
from storage import results
from storage.errors import GradshardError
from storage.files import write_text

_GRADIENT_TITLES = {
    "exact": "Error rates, exact gradient",
    "cross_entropy": "Error rates, gradient as the paper computed it (fp32 softmax cross-entropy)",
}


@click.command()
@params_option
def command(params: Params) -> None:
    """Write report/index.html: tables, curves, images, parameters and digests in one file that works offline.

    Reads what `evaluate` wrote and the training curves. Tables are laid out as in the paper: rows are sources.
    """
    rows = results.read_matrix(paths.EVALUATION / "matrix.parquet")
    provenance = json.loads(_read(paths.EVALUATION / "provenance.json"))
    diagnostics = json.loads(_read(paths.EVALUATION / "diagnostics.json"))["models"]
    gradients = params.evaluation.gradients
    page = _template().render(
        dataset=rows[0]["dataset"],
        n=rows[0]["n"],
        attack=provenance["params"]["attack"],
        findings=_findings(params, Matrix(rows, gradients[0])),
        sections=[
            {"gradient_title": _GRADIENT_TITLES[gradient], "tables": _tables(params, Matrix(rows, gradient))}
            for gradient in gradients
        ],
        diagnostics=diagnostics,
        diagnostics_svg=_sweeps(diagnostics),
        images_svg=_images(params),
        curves_svg=figures.training_curves(_curves(params)),
        training={name: json.loads(_read(paths.TRAINING / f"{name}.json")) for name in _trained(params)},
        provenance=provenance,
        parameters=_yaml(provenance["params"]),
    )
    write_text(paths.REPORT / "index.html", page)
    say(f"{paths.REPORT / 'index.html'}: open it in a browser")


def _tables(params: Params, matrix: Matrix) -> list[Table]:
    final = [name for name in params.evaluation.targets if "@" not in name]
    return [
        tables.transfer_table(matrix, "fgsm", final),
        tables.transfer_table(matrix, "rand_fgsm", final),
        tables.white_box_table(matrix, final),
        tables.worst_case_table(matrix, final),
        tables.defence_table(matrix, _by_epochs(params), params.evaluation.holdout),
    ]


def _by_epochs(params: Params) -> dict[str, list[str]]:
    """The robust targets by the epochs they were trained for, fewest first."""
    groups: dict[int, list[str]] = {}
    for target in params.evaluation.targets:
        name, _, epoch = target.partition("@")
        if name in params.robust.models:
            groups.setdefault(int(epoch or params.robust.models[name].epochs), []).append(target)
    return {f"{epochs} epochs": groups[epochs] for epochs in sorted(groups)}


def _findings(params: Params, matrix: Matrix) -> list[tables.Finding]:
    if not (params.robust.self_only and params.robust.ensemble):
        return []
    baseline, ensemble = next(iter(params.robust.self_only)), next(iter(params.robust.ensemble))
    return tables.findings(matrix, baseline=baseline, ensemble=ensemble, holdout=params.evaluation.holdout)


def _sweeps(diagnostics: Mapping[str, Any]) -> str:
    return figures.epsilon_curves(
        {
            name: [(epsilon, errors / found["n"]) for epsilon, errors in found["curve"]]
            for name, found in diagnostics.items()
        }
    )


def _images(params: Params) -> str:
    path = paths.EVALUATION / "images.npz"
    if not path.exists():
        raise GradshardError(f"no images at {path}: run `gradshard evaluate` first")
    with np.load(path, allow_pickle=False) as archive:
        shown = {"image": archive["images"]}
        for name in params.evaluation.illustrated:
            shown[f"sign, {name}"] = archive[f"signs {name}"].astype(np.float32)
            shown[f"FGSM, {name}"] = archive[f"perturbed {name}"]
        return figures.image_rows(shown, [f"#{row}" for row in archive["rows"]])


def _curves(params: Params) -> dict[str, dict[str, list[float]]]:
    curves = {}
    for name in _trained(params):
        lines = list(csv.DictReader(io.StringIO(_read(paths.TRAINING / f"{name}.tsv")), delimiter="\t"))
        curves[name] = {column: [float(line[column]) for line in lines] for column in lines[0]}
    return curves


def _trained(params: Params) -> list[str]:
    return [*params.static, *params.robust.models]


def _read(path: Path) -> str:
    if not path.exists():
        raise GradshardError(f"no {path}: run the stages before `report` first, or `dvc repro`")
    return path.read_text(encoding="utf-8")


def _yaml(value: Mapping[str, Any]) -> str:
    buffer = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(value, buffer)
    return buffer.getvalue()


def _template() -> jinja2.Template:
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html")
