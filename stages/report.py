"""The stage ``report``: one self-contained page, a pure function of the results."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import numpy as np
from ruamel.yaml import YAML

from gradshard.pipeline.config.schema import FILE_NAME, Params, read_params
from gradshard.pipeline.report import export, figures, measurements, probing, selection, tables
from gradshard.pipeline.report.custom import custom_table
from gradshard.pipeline.report.defences.costs import Costs
from gradshard.pipeline.report.defences.study_points import cost_points, store_panels
from gradshard.pipeline.report.error_matrix import ErrorMatrix, Examples
from gradshard.pipeline.report.over_seeds.same_attacks import check_same_measurements
from gradshard.pipeline.report.over_seeds.seeds import Seeds
from gradshard.pipeline.report.over_seeds.significance import (
    Comparison,
    TrainingComparison,
    compare_models,
    compare_training,
)
from gradshard.pipeline.report.paper import paper_figures
from gradshard.pipeline.report.paper.claim_checks import CheckedClaim, check_over_images, check_over_seeds
from gradshard.pipeline.report.paper.claims import measured_claims
from gradshard.pipeline.report.registry import Results, make_tables
from gradshard.pipeline.report.table import Table
from gradshard.pipeline.report.templates import template
from gradshard.pipeline.types import Gradient
from gradshard.stages.console.places import PathType
from gradshard.stages.console.progress import echo
from gradshard.stages.project import merging, paths, report_files
from gradshard.stages.project.new_project import CODE_LINK
from gradshard.stages.project.report_files import ReportFiles
from gradshard.storage.formats.atomic import remove_outdated, write_text

_GRADIENT_TITLES = {
    "exact": "Error rates, exact gradient",
    "cross_entropy": "Error rates, gradient as the paper computed it (fp32 softmax cross-entropy)",
}


@click.command()
@click.argument("folder", required=False, type=PathType(file_okay=False, path_type=Path))
@click.option(
    "--into", type=PathType(file_okay=False, path_type=Path), help="The folder to write to; default: report in FOLDER."
)
@click.option(
    "--params",
    "file",
    type=PathType(dir_okay=False, path_type=Path),
    help=f"The parameter file; default: {FILE_NAME} in FOLDER.",
)
def command(folder: Path | None, into: Path | None, file: Path | None) -> None:
    """Write report/index.html: tables, curves, images, parameters and digests in one file that works offline.

    Reads the results of `evaluate` for every seed, those of `analyze` and `blackbox`, and the training curves. With
    FOLDER, it reads a folder of kept results, such as results/mnist, and leaves out whatever was not kept there.

    Tables are laid out as in the paper: rows are sources. For papers and spreadsheets they are also written to
    report/tables.md and, one table per file, to report/tables/ as CSV and LaTeX. The main table is drawn in
    report/defences.svg, and a study (docs/battery.md) in study-cost.svg and study-stores.svg. The results of all seeds
    are combined in report/matrix.parquet, examples.parquet, errors.csv, metrics.json, costs.json and provenance.json.
    """
    if folder:
        report_files.check_results(folder)
    params = read_params(file or (folder or Path()) / FILE_NAME)
    found = report_files.of_results(folder, params.seeds) if folder else report_files.of_project(params.seeds)
    into = into or (folder or Path()) / paths.REPORT
    seeds = Seeds.of_params(params, list(found.evaluations))
    rows = merging.rows(found)
    examples = merging.examples(found)
    costs = merging.costs(found)
    provenance = merging.provenance(found, params)
    diagnostics = found.each("diagnostics.json")
    blackbox = found.jsons(found.blackbox)
    targets = {seed: its["targets"] for seed, its in blackbox.items()}
    queries = {seed: {name: measurements.queries(of) for name, of in its.items()} for seed, its in targets.items()}
    check_same_measurements(queries, stage="blackbox")
    analysis = {seed: its["models"] for seed, its in found.jsons(found.gradients).items()}
    sections = [
        section
        for gradient in params.evaluation.gradients
        for top in params.evaluation.top
        if (section := _section(params, seeds, rows, examples, costs, diagnostics, gradient, top)).shown
    ]
    general = _general_tables(params, seeds, rows, examples, analysis, blackbox)
    recorded = provenance["params"] if provenance else json.loads(params.model_dump_json(by_alias=True))
    curves = _curves(params, seeds, found)
    page = template("page.html").render(
        dataset=params.dataset.name,
        n=rows[0]["n"] if rows else 0,
        sample=params.evaluation.sample,
        attack=recorded["attack"],
        compared=bool(paper_figures.names(params)),
        left_out=found.left_out,
        seeds=seeds,
        trained=selection.trained_here(params),
        sections=sections,
        undefined=merging.undefined(diagnostics, seeds),
        general=general,
        planes_svg=_planes(params, found),
        blackbox_svg=_queries(blackbox),
        plane=params.analysis.plane,
        images_svg=_images(params, found),
        curves_svg=figures.training_curves(curves) if curves else "",
        training={run: m for run in params.runs if (m := found.json(found.training / f"{run}.json"))} if curves else {},
        provenance=provenance,
        parameters=_yaml(recorded),
        docs=_docs(into),
    )
    _write_tables(into, sections, general)
    _write_figures(into, sections[0] if sections else None)
    if found.merged:
        merging.write(into, found, rows, provenance, costs)
    write_text(into / "index.html", page)
    missing = f" (without {', '.join(found.left_out)}: not in {folder})" if found.left_out else ""
    echo(f"{into / 'index.html'}: open it in a browser{missing}")


@dataclass(frozen=True)
class Section:
    """Results for one gradient and one top k: checked findings, tables, paired tests, and probes with their flags."""

    name: str
    title: str
    findings: Sequence[CheckedClaim]
    tables: Sequence[Table]
    comparisons: Sequence[Comparison] | Sequence[TrainingComparison]
    probes: Sequence[Table]
    flags: Mapping[str, Sequence[Mapping[str, str]]]
    curves_svg: str
    study_svg: Mapping[str, str]

    @property
    def shown(self) -> bool:
        """Tell whether the section has anything to show."""
        return bool(self.tables or self.flags)


def _section(
    params: Params,
    seeds: Seeds,
    rows: Sequence[Mapping[str, Any]],
    examples: Mapping[int, Examples],
    costs: Costs,
    diagnostics: Mapping[int, Any],
    gradient: Gradient,
    top: int,
) -> Section:
    called, holdout = paper_figures.names(params), params.evaluation.holdout
    matrix = ErrorMatrix(rows, gradient, seeds, called, top, examples)
    shown = selection.shown_targets(params, gradient)
    groups = selection.compared(params, shown)
    # Probes of gradients do not depend on top k, so they are shown once, for top 1.
    probed = probing.records(diagnostics, gradient) if top == 1 else {}
    probes = probing.restored(probed)
    claims = measured_claims(params, matrix, probes, shown)
    results = Results(params, matrix, shown, groups, costs)
    return Section(
        name=gradient.replace("_", "-") + (f"-top-{top}" if top > 1 else ""),
        title=_GRADIENT_TITLES[gradient] + (f", top {top}" if top > 1 else ""),
        findings=check_over_seeds(claims) if seeds.several else check_over_images(claims),
        tables=make_tables(results),
        comparisons=(compare_training if seeds.several else compare_models)(groups, holdout, matrix),
        probes=probing.tables(probes, called, holdout, seeds) if probes else [],
        flags=probing.flags(probed, seeds),
        curves_svg=probing.curves(probes, holdout, seeds) if probes else "",
        study_svg=_study_figures(results),
    )


@dataclass(frozen=True)
class General:
    """Tables that do not belong to the attacks by one gradient."""

    both: Table | None
    gradients: Sequence[Table]
    blackbox: Sequence[Table]
    custom: Sequence[Table]

    @property
    def tables(self) -> list[Table]:
        """All these tables."""
        return [*([self.both] if self.both else []), *self.gradients, *self.blackbox, *self.custom]


def _general_tables(
    params: Params,
    seeds: Seeds,
    rows: Sequence[Mapping[str, Any]],
    examples: Mapping[int, Examples],
    analysis: Mapping[int, Mapping[str, Any]],
    blackbox: Mapping[int, Mapping[str, Any]],
) -> General:
    called, targets = paper_figures.names(params), {seed: its["targets"] for seed, its in blackbox.items()}
    forests = {seed: its["forest"] for seed, its in blackbox.items() if its["forest"]}
    return General(
        both=_both(params, seeds, rows, examples),
        gradients=_shown(
            seeds,
            measurements.gradient_norms_table(analysis, seeds, called),
            measurements.wrong_signs_table(analysis, seeds),
            measurements.directions_table(analysis, seeds),
        ),
        blackbox=_shown(
            seeds,
            measurements.substitute_table(targets, seeds),
            measurements.estimation_table(targets, seeds),
            measurements.forest_table(forests, seeds, compared=bool(called)),
        ),
        custom=[custom_table(reference, rows, params) for reference in params.analysis.tables],
    )


def _shown(seeds: Seeds, *tables: Table) -> list[Table]:
    """Return the tables that have rows, with their seeds named in the captions."""
    return [seeds.captioned(table) for table in tables if table.rows]


def _both(
    params: Params, seeds: Seeds, rows: Sequence[Mapping[str, Any]], examples: Mapping[int, Examples]
) -> Table | None:
    """Return both gradients side by side, if both were evaluated."""
    gradients = params.evaluation.gradients
    if len(gradients) < 2:
        return None
    shown = dict.fromkeys(name for gradient in gradients for name in selection.shown_targets(params, gradient))
    final = {name: selection.trained_on(params, name) for name in shown if "@" not in name}
    matrices: dict[str, ErrorMatrix] = {
        gradient: ErrorMatrix(rows, gradient, seeds, examples=examples) for gradient in gradients
    }
    return seeds.captioned(tables.gradients_table(matrices, final, params.evaluation.holdout))


def _planes(params: Params, found: ReportFiles) -> str:
    """Draw the loss around some images, if `analyze` measured it."""
    plane = params.analysis.plane
    if plane is None or not found.has(found.planes):
        return ""
    with np.load(found.planes, allow_pickle=False) as archive:
        if not len(archive["rows"]):
            return ""
        planes = {name: (archive[f"{name} steps"], archive[name]) for name in ("full", "zoom")}
        titles = [f"#{row}" for row in archive["rows"]]
    return figures.loss_planes(planes, titles, first=plane.model, second=plane.source)


def _queries(blackbox: Mapping[int, Mapping[str, Any]]) -> str:
    """Draw errors against queries, for each seed, if any target was queried."""
    targets = measurements.by_model({seed: its["targets"] for seed, its in blackbox.items()})
    if not targets:
        return ""
    substitutes = {
        name: _against([its["substitute"] for its in found.values()], "queries") for name, found in targets.items()
    }
    estimates = {
        name: _against([its["estimation"]["estimated"] for its in found.values()], "queries_per_example")
        for name, found in targets.items()
    }
    return figures.query_curves({"labels, queries in all": substitutes, "confidences, queries an image": estimates})


def _against(rounds: Sequence[Sequence[Mapping[str, Any]]], key: str) -> list[tuple[float, list[float]]]:
    """Return the queries of each round, and the error rate of every seed after it."""
    return [(rows[0][key], [row["errors"] / row["n"] for row in rows]) for rows in zip(*rounds, strict=True)]


def _write_tables(into: Path, sections: Sequence[Section], general: General) -> None:
    named = [(section.name, section.title, [*section.tables, *section.probes]) for section in sections]
    written = export.files([*named, ("", "", general.tables)])
    for name, text in written.items():
        write_text(into / name, text)
    # Tables of earlier results or parameters, which these no longer have.
    for suffix in (".csv", ".tex"):
        remove_outdated(into / "tables", suffix, keep={Path(name).name for name in written}, ours=export.is_table)


def _write_figures(into: Path, section: Section | None) -> None:
    """Write the figures that are files of their own; remove those that earlier results had."""
    drawn = dict(section.study_svg) if section else {}
    drawn |= {t.name: figures.rate_bars(t) for t in (section.tables if section else ()) if t.name == "defences"}
    for name in ("defences", "study-cost", "study-stores"):
        if name in drawn:
            write_text(into / f"{name}.svg", drawn[name])
        else:
            (into / f"{name}.svg").unlink(missing_ok=True)


def _study_figures(of: Results) -> dict[str, str]:
    """Draw the study's figures, by file name; leave out what was not measured or does not vary."""
    study = of.study
    if study is None or not study.measured:
        return {}
    title = f"Worst case from {', '.join(study.sources)}"
    points, panels = cost_points(study), store_panels(study)
    drawn = {"study-cost": figures.errors_against_cost(points, title)} if points else {}
    return drawn | ({"study-stores": figures.errors_against_stores(panels, title)} if panels else {})


def _images(params: Params, found: ReportFiles) -> str:
    if not params.evaluation.illustrated or not found.has(found.first / "images.npz"):
        return ""
    with np.load(found.first / "images.npz", allow_pickle=False) as archive:
        shown = {"image": archive["images"]}
        for name in params.evaluation.illustrated:
            shown[f"sign, {name}"] = archive[f"signs {name}"].astype(np.float32)
            shown[f"FGSM, {name}"] = archive[f"perturbed {name}"]
        return figures.image_rows(shown, [f"#{row}" for row in archive["rows"]])


def _curves(params: Params, seeds: Seeds, found: ReportFiles) -> dict[str, list[dict[str, list[float]]]]:
    runs = {name: [name] for name in params.static}
    runs |= {name: [params.in_run(name, seed) for seed in seeds.of] for name in params.robust}
    curves: dict[str, list[dict[str, list[float]]]] = {}
    for name, trained in runs.items():
        for path in (found.training / f"{run}.tsv" for run in trained):
            if found.has(path):
                lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t"))
                read = {column: [float(line[column]) for line in lines] for column in lines[0]}
                curves.setdefault(name, []).append(read)
    return curves


def _docs(into: Path) -> str:
    """Return where the page's links find docs/: in this checkout or project, else in the installed gradshard."""
    for docs in (Path("docs"), Path(CODE_LINK) / "docs"):
        if (docs / "statistics.md").is_file():
            return Path(os.path.relpath(docs, into)).as_posix()
    return Path(str(files("gradshard") / "docs")).resolve().as_uri()


def _yaml(value: Mapping[str, Any]) -> str:
    buffer = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(value, buffer)
    return buffer.getvalue()
