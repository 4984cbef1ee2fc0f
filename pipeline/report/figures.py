"""Figures as SVG text, the same bytes for the same data."""

import io
from collections.abc import Mapping, Sequence
from statistics import fmean

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from gradshard.pipeline.report.defences.study_points import CostPoint, Panel
from gradshard.pipeline.report.over_seeds.training_cell import TrainingCell
from gradshard.pipeline.report.table import RateCell, Table

# Figures are drawn in this colour, which is then replaced by currentColor, so that dark pages can have light ink.
_INK = "#010203"
# The ink of figures in files of their own, which are white.
_DARK = "#222222"
_MARKERS = "osD^vPX"
_RC = {
    "svg.hashsalt": "gradshard",
    "svg.fonttype": "none",
    "font.size": 9,
    # Every text names them all; texts are measured in the first, which comes with matplotlib.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    **{f"{name}.color": _INK for name in ("text", "xtick", "ytick")},
    **{f"axes.{name}": _INK for name in ("edgecolor", "labelcolor", "titlecolor")},
}

# By panel and line: the place on the x axis, and each seed's error rate there.
Panels = Mapping[str, Mapping[str, Sequence[tuple[float, Sequence[float]]]]]


def training_curves(curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> str:
    """Draw loss against epochs, a panel per model, in it a line per seed.

    Args:
        curves: per model and seed, the column ``epoch`` and, as far as its training has them, ``clean_loss`` and
            ``adversarial_loss``.
    """
    columns = 3
    rows = -(-len(curves) // columns)
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(9, 2.3 * rows), layout="constrained")
        for number, (model, runs) in enumerate(curves.items(), start=1):
            axes = figure.add_subplot(rows, columns, number)
            for columns_of in runs:
                for colour, label in (("C0", "clean"), ("C1", "adversarial")):
                    if (column := f"{label}_loss") in columns_of:
                        axes.plot(columns_of["epoch"], columns_of[column], colour, label=label, linewidth=1)
            if "adversarial_loss" in runs[0]:
                axes.legend(*_once(axes), frameon=False)
            axes.set(title=model, xlabel="epoch", yscale="log")
            axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def epsilon_curves(panels: Panels) -> str:
    """Draw error in percent against epsilon, a panel per attack, a line per model, from each seed's error rates."""
    return _error_curves(panels, xlabel="ε", xscale="linear")


def query_curves(panels: Panels) -> str:
    """Draw error in percent against queries, a panel per adversary, a line per target, from one error rate a point."""
    return _error_curves(panels, xlabel="queries", xscale="log")


def loss_planes(
    planes: Mapping[str, tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]],
    titles: Sequence[str],
    *,
    first: str,
    second: str,
) -> str:
    """Draw the log loss over the plane of two signed gradients; a row per range, a column per point (figure 2).

    Args:
        planes: per range, the steps (k,) and the losses (points, k, k), whose rows follow the first direction.
        titles: the names of the points.
        first: the model whose signed gradient is the first direction, and whose loss it is.
        second: the model whose signed gradient is the second.
    """
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(2.7 * len(titles) + 1, 2.7 * len(planes)), layout="constrained")
        grid = figure.subplots(len(planes), len(titles), squeeze=False)
        for line, (steps, losses) in zip(grid, planes.values(), strict=True):
            logarithms = np.log10(np.maximum(losses, np.finfo(np.float32).tiny))
            low, high = max(float(logarithms.min()), -8.0), float(logarithms.max())
            for axes, values, title in zip(line, logarithms, titles, strict=True):
                extent = (steps[0], steps[-1], steps[0], steps[-1])
                drawn = axes.imshow(values, origin="lower", extent=extent, vmin=low, vmax=high, cmap="viridis")
                axes.set(title=title, xlabel=f"ε₂, sign of {second}", ylabel=f"ε₁, sign of {first}")
            figure.colorbar(drawn, ax=list(line), label="log₁₀ of the loss")
        return _svg(figure)


def rate_bars(table: Table) -> str:
    """Draw the error rates of a table, a group of bars per column and a bar per row, with the paper's as dots.

    Bars have their 95 % intervals. Over several seeds, bars are means, intervals are for seeds and images, and marks
    show the seeds.

    The figure is a file of its own, so it has dark ink on white and not the colours of a page around it.
    """
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        axes = figure.add_subplot()
        width = 0.8 / len(table.rows)
        for number, (name, cells) in enumerate(table.rows):
            for column, cell in enumerate(cells):
                if not isinstance(cell, RateCell | TrainingCell) or cell.heat is None:
                    continue
                place, error = column + (number - (len(table.rows) - 1) / 2) * width, 100 * cell.heat
                axes.bar(place, error, 0.9 * width, color=f"C{number}", label=name)
                if cell.interval is not None:
                    low, high = (100 * end for end in cell.interval)
                    axes.errorbar(place, error, [[error - low], [high - error]], color=_INK, linewidth=0.8)
                if isinstance(cell, TrainingCell):
                    seeds = [100 * rate.rate for rate in cell.errors.rates.values()]
                    axes.plot([place] * len(seeds), seeds, "_", markersize=6, color=_INK, label="a seed")
                if cell.paper is not None:
                    axes.plot(place, cell.paper, "o", markersize=4, color=_INK, fillstyle="none", label="the paper")
        axes.set(ylabel="error, %", ylim=(0, None), xticks=range(len(table.columns)), xticklabels=table.columns)
        _finish(figure, axes)
        return _svg(figure, ink=_DARK)


def errors_against_cost(points: Mapping[str, Sequence[CostPoint]], title: str) -> str:
    """Draw error in percent against passes of a training image, a point per seed; hollow ones add making the stores.

    Like that of ``rate_bars``, the figure is a file of its own.
    """
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, seeds) in enumerate(points.items()):
            colour, marker = f"C{number % 10}", _MARKERS[number % len(_MARKERS)]
            for seed in seeds:
                error = 100 * seed.error
                if seed.total > seed.training:
                    axes.plot([seed.training, seed.total], [error, error], color=colour, linewidth=0.6)
                    axes.plot(seed.total, error, marker, color=colour, markersize=5, fillstyle="none")
                axes.plot(seed.training, error, marker, color=colour, markersize=5, label=name)
        axes.set(title=title, ylabel="error, %", xlabel="passes of a training image", xscale="log", ylim=(0, 102))
        _plain_ticks(axes)
        _finish(figure, axes)
        return _svg(figure, ink=_DARK)


def errors_against_stores(panels: Mapping[str, Panel], title: str) -> str:
    """Draw error in percent against the property of their stores in which defences differ, a panel per property.

    Lines go through the means. Like that of ``rate_bars``, the figure is a file of its own.
    """
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(max(4.5 * len(panels), 6), 3.6), layout="constrained")
        drawn = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, panel) in zip(drawn, panels.items(), strict=True):
            places = {value: place for place, value in enumerate(panel.values)}
            for number, (line, rates) in enumerate(panel.lines.items()):
                ordered = sorted((places[value], [100 * rate for rate in its]) for value, its in rates.items())
                xs, means = [place for place, _ in ordered], [fmean(its) for _, its in ordered]
                axes.plot(xs, means, color=f"C{number}", label=line)
                for place, its in ordered:
                    axes.plot([place] * len(its), its, "o", color=f"C{number}", markersize=3, alpha=0.6)
            axes.set(xlabel=name, ylabel="error, %", ylim=(0, 102), xlim=(-0.3, len(places) - 0.7))
            axes.set(xticks=range(len(places)), xticklabels=places)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=7)
        figure.suptitle(title, fontsize=10)
        figure.set_facecolor("white")
        return _svg(figure, ink=_DARK)


def image_rows(rows: Mapping[str, npt.NDArray[np.generic]], titles: Sequence[str]) -> str:
    """Draw rows of images under each other, each row with its name (figure 1).

    Args:
        rows: per row name, images (n, C, H, W) with values in [0, 1], or signs in -1, 0 and 1.
        titles: the heads of the n columns.
    """
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(1.0 * len(titles) + 1.6, 1.05 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(titles), squeeze=False)
        for line, (name, images) in zip(grid, rows.items(), strict=True):
            low = -1 if images.min() < 0 else 0
            for axes, image in zip(line, images, strict=True):
                picture = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
                picture = (picture - low) / (1 - low) if len(image) == 3 else picture
                axes.imshow(picture, cmap="gray", vmin=low, vmax=1, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title)
        return _svg(figure)


def _finish(figure: Figure, axes: Axes) -> None:
    """Make a figure of one panel fit for a file of its own: white, with its legend beside it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(*_once(axes), frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.set_facecolor("white")


def _plain_ticks(axes: Axes) -> None:
    """Write the numbers of a logarithmic axis in full, also those between powers of ten."""
    for formatted in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatted(StrMethodFormatter("{x:,.0f}"))


def _once(axes: Axes) -> tuple[list[Artist], list[str]]:
    """Return handles and labels of a legend that shows every name once."""
    named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    return list(named.values()), list(named)


def _error_curves(panels: Panels, *, xlabel: str, xscale: str) -> str:
    """Draw a line through the mean of the seeds, and the seeds as points where there are several."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
        drawn = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, curves) in zip(drawn, panels.items(), strict=True):
            for number, (name, points) in enumerate(curves.items()):
                xs, means = [x for x, _ in points], [100 * fmean(rates) for _, rates in points]
                several = max(len(rates) for _, rates in points) > 1
                colour, marker = f"C{number}", "" if several else "o"
                axes.plot(xs, means, color=colour, marker=marker, markersize=3, label=name)
                if several:
                    every = [(x, 100 * rate) for x, rates in points for rate in rates]
                    axes.plot(*zip(*every, strict=True), "o", color=colour, markersize=3, alpha=0.6)
            axes.set(title=title, xlabel=xlabel, ylabel="error, %", xscale=xscale, ylim=(0, 102))
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False)
        return _svg(figure)


def _svg(figure: Figure, *, ink: str = "currentColor") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor=figure.get_facecolor())
    text = buffer.getvalue().replace(_INK, ink)
    return text[text.index("<svg") :]
