"""The report's pictures: what is drawn of a diagnosis, and thumbnails of samples."""

import base64
import io
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from keras_siamese.diagnosis.causes import Finding
from keras_siamese.diagnosis.diagnosis import Diagnosis, diagnosis_of
from keras_siamese.diagnosis.facts.references import references_of
from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.observed import Observed
from keras_siamese.diagnosis.report import page as report
from keras_siamese.diagnosis.report.panels import HEALTH, lines_of
from keras_siamese.diagnosis.report.pictures import draw_curves, draw_health, range_of_losses, thumbnails
from keras_siamese.diagnosis.run import Run
from tests.support.diagnoses import EPOCHS, history, made

QUICK = ("spread", "active_fraction")


def stand_in(timeline, *flagged):
    """What `draw_curves` needs of a diagnosis."""
    flags = [SimpleNamespace(epoch=place) for place in flagged]
    return SimpleNamespace(observed=SimpleNamespace(timeline=timeline), flags=flags, leading=[], facts=Facts())


@pytest.mark.parametrize(
    ("places", "limits", "shaded"), [([50, 100, 150], (25, 175), (75, 125)), ([1], (0.5, 1.5), (0.5, 1.5))]
)
def test_measurements_are_drawn_and_shaded_where_they_lie(places, limits, shaded):
    curves = {name: [0.5] * len(places) for name in ("loss", "auc", "eer", "auc_se", "eer_se")}
    left, right = drawn(draw_curves, stand_in((places, "training step", curves), len(places) // 2)).axes
    assert left.get_xlim() == limits and left.get_xlabel() == "training step"
    (patch,) = left.patches
    extent = patch.get_path().get_extents(patch.get_patch_transform())
    assert (extent.x0, extent.x1) == pytest.approx(shaded)
    assert left.lines[0].get_xdata().tolist() == places
    assert right.texts[0].get_text() == "no cause found"


@pytest.mark.parametrize(
    ("losses", "low", "high"),
    [
        ([0.69, 0.6, float("nan")], 0.5955, 0.6945),
        ([1.0, 0.05], 0.0, 1.0475),
        ([0.7, 0.35], 0.0, 0.7175),  # it has fallen to a half
        ([0.694, 0.693], 0.6744, 0.7126),  # which looks flat
        ([3e-9, 1e-9], 0.0, 3.1e-9),
        ([-14.0, -16.0], -16.1, -13.9),
        ([1.0, -1.0], -1.1, 1.1),
        ([0.0, 0.0], 0.0, 1.0),
        ([float("nan")], 0.0, 1.0),
        ([], 0.0, 1.0),
    ],
)
def test_the_axis_of_losses_shows_how_they_fall(losses, low, high):
    assert range_of_losses(losses) == pytest.approx((low, high), rel=1e-3)
    if losses:
        curves = dict.fromkeys(("auc", "eer", "auc_se", "eer_se", "loss"), losses)
        axes = drawn(draw_curves, stand_in((list(range(len(losses))), "epoch", curves))).axes[0]
        assert axes.get_ylim() == pytest.approx((low, high), rel=1e-3)


@pytest.fixture(scope="module")
def diagnosis():
    return made(curves=history() | {"auc": [*history()["auc"][:-1], float("nan")]})


def drawn(draw, *arguments):
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure(layout="constrained")
    draw(figure, *arguments)
    return figure


def test_flagged_epochs_are_shaded_and_the_cause_stands_beside_the_first(diagnosis):
    left, right = drawn(draw_curves, diagnosis).axes
    # In data coordinates; matplotlib before 3.9 shades by polygons.
    extents = [patch.get_path().get_extents(patch.get_patch_transform()) for patch in left.patches]
    shaded = sorted(round(extent.x0 + 0.5) for extent in extents)
    assert shaded == [flag.epoch + 1 for flag in diagnosis.flags]
    text, *references = right.texts
    assert text.get_text() == diagnosis.leading[0].cause.replace("_", " ")
    known = references_of(diagnosis.facts)
    assert known and [one.get_text() for one in references] == [f"{title} {eer:.3f}" for _, title, eer in known]
    heights = [one.get_position()[1] for one in references]
    assert all(above - below > 0.05 for below, above in pairwise(heights))  # titles do not overlap
    loss = left.lines[0].get_ydata()
    assert loss == pytest.approx(diagnosis.observed.history["loss"])
    eer, auc, *beside = (line.get_ydata() for line in right.lines)
    assert [line[0] for line in beside] == [eer for _, _, eer in known]
    assert len(eer) == EPOCHS and len(auc) == EPOCHS - 1  # the last AUC is not known
    labels = [text.get_text() for text in left.figure.legends[0].get_texts()]
    assert labels == ["flagged", "training loss", "held-out EER", "held-out AUC"]


@pytest.mark.parametrize(
    "name",
    [name if name in ("spread", "active_fraction") else pytest.param(name, marks=pytest.mark.deep) for name in HEALTH],
)
def test_a_curve_of_health_stands_beside_its_alarms(diagnosis, name):
    (axes,) = drawn(draw_health, name, diagnosis.observed).axes
    curve, *lines = axes.lines
    assert curve.get_ydata() == pytest.approx(diagnosis.observed.history[name])
    expected = lines_of(name, diagnosis.observed)
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([line.value for line in expected])


def test_curves_without_a_panel_and_below_zero_are_drawn_as_well(diagnosis):
    curves = history(3, ("update_size",)) | {"$mood_": [1.0, float("nan"), 2.0], "update_size": [0.0, 1e-3, -1.0]}
    observed = Observed(Run(curves), diagnosis.observed.valid)
    (axes,) = drawn(draw_health, "$mood_", observed).axes
    assert axes.lines[0].get_ydata().tolist() == [1.0, 2.0] and axes.get_legend() is None
    (axes,) = drawn(draw_health, "update_size", observed).axes
    assert axes.lines[0].get_ydata().tolist() == [1e-3] and axes.get_yscale() == "log"
    assert [panel.title for panel, _ in report.health(observed)] == ["update size", "$mood "]


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((5, 4), (5, 4)), ((5, 4, 1), (5, 4)), ((5, 4, 4), (5, 4)), ((300, 500, 3), (75, 125)), ((3, 1000), (1, 125))],
)
def test_thumbnails_show_the_samples(shape, shown):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    items = np.random.default_rng(0).integers(0, 9, (6, *shape)).astype("uint8")
    items[2], items[4] = 0, 8
    found = thumbnails({"age": np.zeros(6), "face": items}, [4, 2, 4])
    assert sorted(found) == [2, 4]
    for row, value in ((2, 0), (4, 255)):
        pixels = np.array(image.open(io.BytesIO(base64.b64decode(found[row].partition(",")[2]))).convert("RGB"))
        assert pixels.shape == (*shown, 3) and (pixels == value).all()


def test_a_large_picture_is_reduced_to_the_means_of_its_squares():
    image = pytest.importorskip("PIL.Image")
    rows = np.random.default_rng(1).random((1, 256, 130)) * np.linspace(0, 1, 130)
    rows[0, 0, :2] = 0, 1  # the common scale is [0, 1]
    uri = thumbnails(rows, [0])[0]
    pixels = np.array(image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))
    expected = [[rows[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(65)] for i in range(128)]
    assert pixels.shape == (128, 65) and np.abs(pixels - 255 * np.array(expected)).max() <= 1.5


def test_what_is_no_image_has_no_thumbnail():
    for items in (np.zeros((4, 3)), np.zeros((4, 5, 5, 2)), np.zeros((4, 2, 2, 2, 3)), {"x": np.zeros((4, 1))}):
        assert thumbnails(items, [0]) == {}
    assert thumbnails(np.zeros((4, 5, 5)), []) == {}


def test_ties_are_all_named():
    whole = diagnosis_of(made().observed)
    causes = ("memorising", "margin", "collapse")
    findings = [
        Finding(cause, "error", 5, "", {}, "", strength=s) for cause, s in zip(causes, (2, 1.9, 1.1), strict=True)
    ]
    tied = Diagnosis(whole.observed, tuple(findings), (), ())
    assert [finding.cause for finding in tied.leading] == ["memorising", "margin"]
    assert tied.verdict.endswith("cause: memorising or margin, which explain it equally well.")
    assert drawn(draw_curves, tied).axes[1].texts[0].get_text() == "memorising\nor margin"
