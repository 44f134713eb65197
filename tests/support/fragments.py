"""The text of fragments of HTML, as notebooks show them.

assert text_of(report._repr_html_()) == words(str(report))
"""

from xml.etree import ElementTree


def text_of(shown):
    """The text of a fragment of HTML that is well-formed."""
    whole = f"<div>{shown}</div>".replace("<details open>", "<details>").replace("<br>", " ")
    pieces = (piece.strip() for piece in ElementTree.fromstring(whole).itertext())
    return " ".join(" ".join(pieces).split())


def words(text):
    return " ".join(text.split())
