"""Quality against cost and against what was varied, as the papers draw them."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from st_l0.errors import require
from st_l0.reports.systems import BM25, System, spell

QUALITY = "ndcg@10"
_COSTS = {
    "flops": ("FLOPS", "FLOPS (tokens that a query and a document share, on average)"),
    "document_active_dims": ("active dims", "active dims of a document, on average"),
}
_SETTINGS = {
    "λ": "λ, weight of the document penalty",
    "t": "t, active dims that a document has for free",
    "k": "k, more logs in the penalty",
    "top k": "largest weights that are free",
    "target FLOPS": "FLOPS that were asked for",
    "target dims": "active dims of a document that were asked for",
}
_FILES = {
    "document_active_dims": "dims",
    "λ": "lambda",
    "top k": "top_k",
    "target FLOPS": "target_flops",
    "target dims": "target_dims",
}  # others are called as they are
_LOG = ("flops", "document_active_dims", "λ")
# Okabe and Ito's colours, which the colour-blind tell apart; in grey the markers and lines do it.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS, _LINES = "os^DvPX*", ("-", "--", "-.", ":")
_INK = "#010203"  # takes the colour of the text where the figure stands in a page


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: What its files are called.
        title: What it shows.
        svg: As a file.
        inline: As a part of a page, whose colour of text it takes.
        png: As a file.
    """

    name: str
    title: str
    svg: str
    inline: str
    png: bytes


@dataclass(frozen=True)
class _Curve:
    label: str
    points: list[tuple[float, System]]


def draw(systems: Sequence[System]) -> list[Figure]:
    """A figure for each cost that was measured, and for each setting with several values.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.
    """
    require("matplotlib", "report")
    models = [one for one in systems if one.key == "model"]
    bm25 = next((one.mean(QUALITY) for one in systems if one.name == BM25), None)
    figures = []
    for axis, (short, label) in _COSTS.items():
        if curves := _curves(models, axis):
            figures.append(_draw(axis, f"nDCG@10 against {short}", label, curves, bm25))
    for axis, label in _SETTINGS.items():
        curves = _curves(models, axis)
        if len({x for curve in curves for x, _ in curve.points}) > 1:
            figures.append(_draw(axis, f"nDCG@10 against {axis}", label, curves, bm25))
    return figures


def series_labels(systems: Sequence[System]) -> dict[str, str]:
    """What each curve is called: a variant of a sweep by its name, others by what their names share."""
    labels: dict[str, str] = {}
    for series in dict.fromkeys(one.series for one in systems):
        names = [one.name for one in systems if one.series == series]
        shared = names[0] if len(names) == 1 else _beginning(names).rstrip(" ,-_/0123456789.=")
        variant = all(name == series or name.startswith(f"{series}, ") for name in names)
        label = series if variant else shared or f"{names[0]} and others"
        while label in labels.values():
            label += "′"
        labels[series] = label
    return labels


def _beginning(names: Sequence[str]) -> str:
    """What names have in common, from the first character on."""
    same = [len(set(letters)) == 1 for letters in zip(*names, strict=False)]
    return names[0][: [*same, False].index(False)]


def _curves(systems: Sequence[System], axis: str) -> list[_Curve]:
    """Points of equal settings but for the one along the curve, which is λ where the axis is a cost."""
    along = "λ" if axis in _COSTS else axis
    labels = series_labels(systems)
    curves: dict[tuple[str, str], _Curve] = {}
    for one in systems:
        x = one.mean(axis) if axis in _COSTS else one.settings.get(axis)
        if x is None or one.mean(QUALITY) is None:
            continue
        others = {name: value for name, value in one.settings.items() if name != along}
        mates = [other.settings for other in systems if other.series == one.series]
        varied = [
            name for name in _SETTINGS if name != along and len({str(mate.get(name)) for mate in mates}) > 1
        ]
        parts = [f"{name} {spell(others[name])}" if name in others else f"no {name}" for name in varied]
        if len(labels) > 1 or not parts:  # what is all of one curve needs no name
            parts.insert(0, labels[one.series])
        label = ", ".join(parts)
        curves.setdefault((one.series, str(others)), _Curve(label, [])).points.append((float(x), one))
    for curve in curves.values():
        curve.points.sort(key=lambda point: point[0])
    return list(curves.values())


def _draw(axis: str, title: str, label: str, curves: list[_Curve], bm25: float | None) -> Figure:
    # Not pyplot, which keeps global state.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    name = f"ndcg_{_FILES.get(axis, axis)}"
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": name, **dict.fromkeys(ink, _INK)}
    with rc_context(style):
        figure = Canvas(figsize=(6.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for number, curve in enumerate(curves):
            means: list[Any] = [one.mean(QUALITY) for _, one in curve.points]
            axes.errorbar(
                [x for x, _ in curve.points],
                means,
                yerr=[one.spread(QUALITY) / 2 for _, one in curve.points],
                marker=_MARKERS[number % len(_MARKERS)],
                color=_COLOURS[number % len(_COLOURS)],
                linestyle=_LINES[number % len(_LINES)],
                markersize=7,
                capsize=2,
                label=curve.label,
            )
        if bm25 is not None:
            axes.axhline(bm25, color="#808080", linestyle=(0, (1, 2)), label="BM25")
        if axis in _LOG and all(x > 0 for curve in curves for x, _ in curve.points):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.set_ylabel("nDCG@10, average of the collections")
        axes.grid(visible=True, color="#808080", alpha=0.3)
        columns = 1 if max(len(curve.label) for curve in curves) > 30 else 2
        figure.legend(loc="outside lower center", ncols=columns, fontsize="small", frameon=False)
        svg, png = io.StringIO(), io.BytesIO()
        vector: Any = FigureCanvasSVG(figure)
        vector.print_svg(svg, metadata={"Date": None})
        figure.set_dpi(150)
        raster: Any = FigureCanvasAgg(figure)
        raster.print_png(png)
    text = svg.getvalue()
    return Figure(name, title, text.replace(_INK, "#000000"), _inline(text, name, title), png.getvalue())


def _inline(svg: str, name: str, title: str) -> str:
    """An SVG as a part of a page: no prolog, ids of its own, no background, the page's ink."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"fill: #ffffff", "fill: none", svg)
    svg = svg.replace(_INK, "currentColor")
    head = rf'<svg \1 role="img" aria-label="{title}">'
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', head, svg, count=1)
