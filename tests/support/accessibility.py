"""axe-core, the accessibility checker of Deque Systems; the package axe-core-python has it as one file.

What it can't decide by itself, such as the contrast of text over a picture, is not told.

    passes, violations = browser.open(url, 390, axe(), dark=True).result
"""

import importlib.util
from pathlib import Path

import pytest

RUN = """(async () => { %s
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return [found.passes.length,
    found.violations.map(one => `${one.id}: ${one.help}: ${one.nodes.map(node => node.html).slice(0, 3)}`)];
})()"""


def axe():
    """The script that checks a page: how many rules it keeps, and a line for each that it breaks."""
    package = importlib.util.find_spec("axe_core_python")
    if package is None:
        pytest.skip("needs axe-core-python, of the extra `test`")
    return RUN % (Path(package.origin).parent / "axe.min.js").read_text(encoding="utf-8")
