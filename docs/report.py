"""Draws the pictures of the report in docs/assets: report.png, in README.md, threshold.png and verification.png.

They are of the first run of `keras-siamese demo` with seed 0, on TensorFlow, which the demo installs. The first two are
parts of its HTML report in Chromium.

    KERAS_BACKEND=tensorflow python docs/report.py
"""

import io
import sys
import tempfile
from pathlib import Path

import keras
from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from keras_siamese import data, demo, verification  # noqa: E402
from tests.support.chromium import Chromium  # noqa: E402

WIDTH = 1000  # CSS pixels
# Where the first finding ends, and where the part about the threshold begins and ends, in pixels from the top.
PLACES = """(() => {
  const [finding, text, row] = [".finding", ".explorer .sentence", ".counts:last-child"].map(
    selector => document.querySelector(selector).getBoundingClientRect()
  )
  return [finding.bottom, text.top, row.bottom].map(Math.round)
})()"""


def draw_page(diagnosis, top_path, threshold_path):
    with tempfile.TemporaryDirectory() as folder, Chromium(Chromium.find()) as browser:
        page = browser.open(diagnosis.to_html(Path(folder) / "report.html").as_uri(), WIDTH, PLACES)
    picture, (end, first, last) = Image.open(io.BytesIO(page.screenshot)), page.result
    for path, top, bottom in ((top_path, 0, end + 12), (threshold_path, first - 2, last + 12)):
        picture.crop((0, top, picture.width, bottom)).quantize(128).save(path, optimize=True)


def draw_verification(diagnosis, path):
    pairs = diagnosis.observed.valid
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    scores, roc, det = figure.subplots(1, 3)
    point = verification.eer_point(pairs.same, pairs.scores)
    verification.plot_scores(scores, pairs.same, pairs.scores, {"EER": point.threshold})
    verification.plot_roc(roc, pairs.same, pairs.scores)
    verification.plot_det(det, pairs.same, pairs.scores)
    figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    train, valid, _ = data.split_identities(*demo.scan_digits(0), (0.6, 0.2, 0.2), seed=0)
    _, monitor = demo.fit(demo.RECIPE, train, valid, seed=0)
    draw_page(monitor.diagnosis, HERE / "assets" / "report.png", HERE / "assets" / "threshold.png")
    draw_verification(monitor.diagnosis, HERE / "assets" / "verification.png")
