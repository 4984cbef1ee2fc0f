"""The stage ``report``: one self-contained page, a pure function of the results."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import jinja2
import numpy as np
import numpy.typing as npt
from ruamel.yaml import YAML

from pipeline import exports, figures, paper, tables
from pipeline.comparisons import Comparison, compare
from pipeline.params import Params
from pipeline.tables import Matrix, Table
from pipeline.vocabulary import CLEAN, Gradient
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

    Reads what `evaluate`, `analyse` and `blackbox` wrote and the training curves. Tables are laid out as in the paper:
    rows are sources. For papers and spreadsheets they are also in report/tables.md and, one a file, in report/tables/.
    """
    rows = results.read_matrix(paths.EVALUATION / "matrix.parquet")
    provenance = json.loads(_read(paths.EVALUATION / "provenance.json"))
    diagnostics = json.loads(_read(paths.EVALUATION / "diagnostics.json"))["models"]
    gradients = params.evaluation.gradients
    sections = [_section(params, rows, gradient) for gradient in gradients]
    norms, planes = _analysis(params)
    blackbox = json.loads(_read(paths.BLACKBOX / "results.json"))
    page = _template().render(
        dataset=rows[0]["dataset"],
        n=rows[0]["n"],
        attack=provenance["params"]["attack"],
        sections=sections,
        both=_both(params, rows),
        diagnostics=diagnostics,
        diagnostics_svg=_sweeps(diagnostics),
        at_full_epsilon=_at_full_epsilon(params, diagnostics),
        norms=norms,
        papers_norms=paper.GRADIENT_NORMS if paper.names(params) else {},
        papers_forest=paper.FOREST,
        called=paper.names(params),
        planes_svg=planes,
        blackbox=blackbox,
        blackbox_svg=_queries(blackbox),
        plane=params.analysis.plane,
        images_svg=_images(params),
        curves_svg=figures.training_curves(_curves(params)),
        training={name: json.loads(_read(paths.TRAINING / f"{name}.json")) for name in _trained(params)},
        provenance=provenance,
        parameters=_yaml(provenance["params"]),
    )
    _write_tables(sections, _both(params, rows))
    write_text(paths.REPORT / "index.html", page)
    say(f"{paths.REPORT / 'index.html'}: open it in a browser")


@dataclass(frozen=True)
class Section:
    """All tables that one gradient gives."""

    gradient: Gradient
    title: str
    findings: Sequence[tables.Finding]
    tables: Sequence[Table]
    comparisons: Sequence[Comparison]


def _section(params: Params, rows: Sequence[Mapping[str, Any]], gradient: Gradient) -> Section:
    """All that one gradient gives."""
    matrix = Matrix(rows, gradient, paper.names(params))
    shown = shown_targets(params, gradient)
    groups = robust_by_epochs(params, shown)
    shown_tables = [
        tables.transfer_table(matrix, "fgsm", shown),
        tables.transfer_table(matrix, "rand_fgsm", shown),
        tables.white_box_table(matrix, shown),
        tables.worst_case_table(matrix, shown),
        tables.defence_table(matrix, groups, params.evaluation.holdout),
    ]
    return Section(
        gradient=gradient,
        title=_GRADIENT_TITLES[gradient],
        findings=_findings(params, matrix, shown),
        tables=shown_tables,
        comparisons=compare(groups, params.evaluation.holdout, partial(_correct, matrix)),
    )


def shown_targets(params: Params, gradient: Gradient) -> list[str]:
    """The targets that a gradient's tables show: the robust models that were trained on it, if any, else all."""
    targets = params.evaluation.targets
    robust = [name for name in targets if _trained_on(params, name) == gradient]
    return [name for name in targets if not _trained_on(params, name) or name in robust or not robust]


def _trained_on(params: Params, target: str) -> str:
    """The gradient that a robust model was trained on; empty for a static one."""
    model = params.robust.models.get(target.partition("@")[0])
    return (model.gradient or params.adversarial.gradient) if model else ""


def _correct(matrix: Matrix, target: str, source: str, attack: str) -> npt.NDArray[np.bool_] | None:
    if matrix.rate(target, source, attack) is None:
        return None
    return results.read_examples(
        paths.EVALUATION / "examples.parquet",
        target=target,
        source=source,
        attack=attack,
        gradient="" if attack == CLEAN else matrix.gradient,
    )


def _both(params: Params, rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Both gradients side by side, if both were evaluated."""
    gradients = params.evaluation.gradients
    if len(gradients) < 2:
        return None
    final = {name: _trained_on(params, name) for name in params.evaluation.targets if "@" not in name}
    return tables.gradients_table({g: Matrix(rows, g) for g in gradients}, final, params.evaluation.holdout)


def robust_by_epochs(params: Params, targets: Sequence[str]) -> dict[str, list[str]]:
    """The robust models among the targets by the epochs they were trained for, fewest first."""
    groups: dict[int, list[str]] = {}
    for target in targets:
        name, _, epoch = target.partition("@")
        if name in params.robust.models:
            groups.setdefault(int(epoch or params.robust.models[name].epochs), []).append(target)
    return {f"{epochs} epochs": groups[epochs] for epochs in sorted(groups)}


def _findings(params: Params, matrix: Matrix, shown: Sequence[str]) -> list[tables.Finding]:
    baseline = next((name for name in shown if name in params.robust.self_only), None)
    ensemble = next((name for name in shown if name in params.robust.ensemble), None)
    if baseline is None or ensemble is None:
        return []
    return tables.findings(matrix, baseline=baseline, ensemble=ensemble, holdout=params.evaluation.holdout)


def _at_full_epsilon(params: Params, diagnostics: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    """Percent right under FGSM with epsilon = 1, where it was measured, and the paper's figure (section 3.3)."""
    called = paper.names(params)
    found: dict[str, tuple[float, float | None]] = {}
    for name, measured in diagnostics.items():
        errors = dict(measured["curve"]).get(1.0)
        if errors is not None:
            compared = called.get(name, "").partition("@")[0] == "A_adv"
            right = 100 * (1 - errors / measured["n"])
            found[name] = (right, paper.RIGHT_AT_FULL_EPSILON if compared else None)
    return found


def _analysis(params: Params) -> tuple[dict[str, Any], str]:
    """What `analyse` found: per model its gradients, and the figure of the loss."""
    norms = json.loads(_read(paths.ANALYSIS / "gradients.json"))["models"]
    path = paths.ANALYSIS / "planes.npz"
    if not path.exists():
        raise GradshardError(f"no {path}: run `gradshard analyse` first")
    with np.load(path, allow_pickle=False) as archive:
        if not len(archive["rows"]):
            return norms, ""
        planes = {name: (archive[f"{name} steps"], archive[name]) for name in ("full", "zoom")}
        plane = params.analysis.plane
        return norms, figures.loss_planes(
            planes, [f"#{row}" for row in archive["rows"]], first=plane.model, second=plane.source
        )


def _queries(blackbox: Mapping[str, Any]) -> str:
    targets = blackbox["targets"]
    if not targets:
        return ""
    substitutes = {
        name: [(row["queries"], row["errors"] / row["n"]) for row in found["substitute"]]
        for name, found in targets.items()
    }
    estimates = {
        name: [(row["queries_per_example"], row["errors"] / row["n"]) for row in found["estimation"]["estimated"]]
        for name, found in targets.items()
    }
    return figures.query_curves({"labels, queries in all": substitutes, "confidences, queries an image": estimates})


def _write_tables(sections: Sequence[Section], both: Table | None) -> None:
    named = [(f"{table.name}-{s.gradient.replace('_', '-')}", s.title, table) for s in sections for table in s.tables]
    named += [(both.name, both.title, both)] if both else []
    text = "".join(f"## {table.title}\n\n{title}.\n\n{exports.markdown(table)}\n" for _, title, table in named)
    write_text(paths.REPORT / "tables.md", f"# Error rates in percent\n\n{text}")
    for name, _, table in named:
        write_text(paths.REPORT / "tables" / f"{name}.csv", exports.comma_separated(table))


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
