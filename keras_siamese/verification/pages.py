"""HTML pages: a report as one self-contained file.

Contract: pictures are embedded as SVG, nothing is loaded from the network, and the template escapes all text that comes
from the user. The only script is our own; the page's Content-Security-Policy names its digest, so a browser runs no
other. Needs the extra `report` (matplotlib, jinja2), which is imported only when a page is made. Anything above
`distances` may import it.

    html = render(report)
    uri = svg(lambda figure: plot_roc(figure.subplots(), same, scores))
    curves(lambda figure: plot_roc(figure.subplots(), same, scores)).charts[0]["says"][0]
"""

import base64
import hashlib
import io
from importlib import resources
from typing import NamedTuple

import numpy as np

from keras_siamese._checks import check_installed
from keras_siamese.verification.explorer import Example, explore, grouped, spread

ROOM = "keras_siamese.verification"
PLACES = 400  # at which a curve can be read, at most


class Curves(NamedTuple):
    """A picture of curves: its data URI, and its `charts`, which say what can be read from it."""

    uri: str
    charts: list


def render(report, title="Verification", groups=None):
    """The HTML page `(str)` of a `VerificationReport`, with the group `(n,)` of each pair, if known."""
    heading = str(report).partition("\n")[0]
    rows, picture = list(report.rows()), curves_of(report.plot())
    explorer = explore(*explored(report, groups), negated=report.pairs.get("negated"))
    return interactive(ROOM, "report.html.jinja").render(
        title=title, heading=heading, explorer=explorer, rows=rows, picture=picture
    )


def explored(report, groups=None):
    """The arguments of `explore` for a `VerificationReport` and the group `(n,)` of each pair."""
    same, scores, left, right = (report.pairs[name] for name in ("same", "scores", "left", "right"))
    threshold = report.eer_point.threshold if report.threshold is None else report.threshold
    chosen = None if groups is None else grouped(groups, "Each pair is in the group that was given for it.")
    codes = None if chosen is None else chosen.codes

    def sides(pair):
        return (f"pair {pair}",) if left is None else (str(left[pair]), str(right[pair]))

    examples = [
        Example(float(scores[pair]), bool(same[pair]), sides(pair), (), None if codes is None else int(codes[pair]))
        for pair in spread(same, scores, codes)
    ]
    return same, scores, threshold, examples, chosen


def template(package, name):
    """The jinja template `name` of one of our packages; it escapes its arguments. It may use the templates here."""
    jinja2 = check_installed("jinja2", "report")
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package, ""), jinja2.PackageLoader(ROOM, "")])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["script_source"] = "'none'"
    return environment.get_template(name)


def interactive(package, name):
    """The jinja template `name`, with the script of `explorer.js`, which a browser allows by its digest."""
    page = template(package, name)
    script = resources.files(ROOM).joinpath("explorer.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page.globals |= {"script_source": f"'sha256-{digest}'", "script": script}
    return page


def svg(draw, size=(4.6, 3.6)):
    """A data URI of the picture that `draw(figure)` draws."""
    return svg_of(drawn(draw, size))


def curves(draw, size=(4.6, 3.6)):
    """The `Curves` that `draw(figure)` draws."""
    return curves_of(drawn(draw, size))


def curves_of(figure):
    """The `Curves` of a matplotlib figure."""
    return Curves(svg_of(figure), charts(figure))  # in this order: matplotlib lays the axes out when it draws them


def drawn(draw, size):
    figure_module = check_installed("matplotlib.figure", "report")
    figure = figure_module.Figure(figsize=size, layout="constrained")
    draw(figure)
    return figure


def svg_of(figure):
    """A data URI of a matplotlib figure."""
    for axes in figure.axes:
        axes.spines[["top"]].set_visible(False)
    buffer = io.BytesIO()
    # No date and fixed element ids, so that the same run gives the same file.
    with check_installed("matplotlib", "report").rc_context({"svg.hashsalt": "keras_siamese"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def charts(figure):
    """What can be read from a figure that was drawn: a list of dicts, one for each place of axes with curves.

    Each has "box", the axes' left, top, width and height as shares of the figure; "at", where the curves have points,
    as shares of that width, ascending; and "says", the values there as text. Twin axes are one chart.
    """
    places = {}
    for axes in figure.axes:
        left, low, width, height = axes.get_position().bounds
        box = tuple(round(float(share), 4) for share in (left, 1 - low - height, width, height))
        (first, readings), several = places.setdefault(box, (axes, {})), curves_in(axes)
        for name, points in several:
            name = name if len(several) > 1 else plain(axes.get_ylabel())
            for share, (x, y) in thinned(axes, points):
                start = f"{plain(first.get_xlabel())} {(first.fmt_xdata or short)(x)}: "
                value = f"{name} {(axes.fmt_ydata or short)(y)}".strip()
                readings.setdefault((share, x, start), {})[name] = value  # where a line is upright, its last point
    found = []
    for box, (_, readings) in places.items():
        keys = sorted(readings)
        says = [key[2] + ", ".join(readings[key].values()) for key in keys]
        found.append({"box": box, "at": [share for share, _, _ in keys], "says": says})
    return [chart for chart in found if chart["at"]]


def curves_in(axes):
    """The label and the points `(n, 2)` of each solid line and of each histogram of `axes`; other lines are marks."""
    lines = [line for line in axes.lines if line.get_linestyle() == "-" and line.get_transform() == axes.transData]
    found = [(line.get_label(), line.get_xydata()) for line in lines]
    for bars in axes.containers:
        tops = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars]
        found.append((bars[0].get_label(), np.array(tops)))
    return found


def thinned(axes, points):
    """At most `PLACES` of the points that are in sight, each with its place as a share of the axis."""
    points = points[np.isfinite(points).all(axis=1)]
    shares = (axes.transScale + axes.transLimits).transform(points)
    seen = ((shares > -1e-6) & (shares < 1 + 1e-6)).all(axis=1)
    points, across = points[seen], shares[seen, 0]
    if len(points) > PLACES:
        kept = np.unique((across * (PLACES - 1)).round(), return_index=True)[1]
        points, across = points[kept], across[kept]
    return zip(across.round(4).tolist(), points.tolist(), strict=True)


def plain(label):
    """The label of an axis without what explains it: a unit, or a parenthesis."""
    return label.partition(" (")[0].partition(",")[0]


def short(value):
    return f"{value:.4g}"
