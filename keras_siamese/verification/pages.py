"""HTML pages: a report as one self-contained file.

Contract: pictures are embedded as SVG, nothing is loaded from the network, and the template escapes all text that comes
from the user. The only script is our own; the page's Content-Security-Policy names its digest, so a browser runs no
other. Needs the extra `report` (matplotlib, jinja2), which is imported only when a page is made. Anything above
`distances` may import it.

    html = render(report)
    uri = svg(lambda figure: plot_roc(figure.subplots(), same, scores))
"""

import base64
import hashlib
import io
from importlib import resources

from keras_siamese._checks import check_installed
from keras_siamese.verification.explorer import Example, explore, grouped, spread

ROOM = "keras_siamese.verification"


def render(report, title="Verification", groups=None):
    """The HTML page `(str)` of a `VerificationReport`, with the group `(n,)` of each pair, if known."""
    heading = str(report).partition("\n")[0]
    rows, picture = list(report.rows()), svg_of(report.plot())
    explorer = explore(*explored(report, groups))
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
    figure_module = check_installed("matplotlib.figure", "report")
    figure = figure_module.Figure(figsize=size, layout="constrained")
    draw(figure)
    return svg_of(figure)


def svg_of(figure):
    """A data URI of a matplotlib figure."""
    for axes in figure.axes:
        axes.spines[["top"]].set_visible(False)
    buffer = io.BytesIO()
    # No date and fixed element ids, so that the same run gives the same file.
    with check_installed("matplotlib", "report").rc_context({"svg.hashsalt": "keras_siamese"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
