"""HTML pages: a report as one self-contained file.

Contract: pictures are embedded as SVG, nothing is loaded from the network, and the template escapes all text that comes
from the user. Needs the extra `report` (matplotlib, jinja2), which is imported only when a page is made. Anything above
`distances` may import it.

    html = render(report)
    uri = svg(lambda figure: plot_roc(figure.subplots(), same, scores))
"""

import base64
import io

from keras_siamese._checks import check_installed


def render(report, title="Verification"):
    """The HTML page `(str)` of a `VerificationReport`."""
    page = template("keras_siamese.verification", "report.html.jinja")
    heading, *_ = str(report).splitlines()
    return page.render(title=title, heading=heading, rows=list(report.rows()), picture=svg_of(report.plot()))


def template(package, name):
    """The jinja template `name` of one of our packages; it escapes its arguments."""
    jinja2 = check_installed("jinja2", "report")
    loader = jinja2.PackageLoader(package, "")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(name)


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
