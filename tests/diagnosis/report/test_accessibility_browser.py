"""axe-core finds nothing to object to in the pages that are written: on a desktop and a telephone, light and dark."""

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis import compare_runs
from tests.support.accessibility import axe
from tests.support.diagnoses import made

FORMS = [(width, dark) for width in (1280, 390) for dark in (False, True)]

pytestmark = [pytest.mark.browser, pytest.mark.deep]


@pytest.fixture(scope="module")
def script():
    for needed in ("jinja2", "matplotlib"):
        pytest.importorskip(needed, reason="the pages need the extra `report`")
    return axe()


def check(browser, path, script):
    for width, dark in FORMS:
        passes, violations = browser.open(path.as_uri(), width, script, dark=dark, whole=False).result
        assert passes > 10 and violations == [], (width, dark)


def test_diagnoses(browser, script, tmp_path):
    check(browser, made().to_html(tmp_path / "report.html"), script)
    bare = made(kind="numbers", labelled=False, dim=1, curves={})
    check(browser, bare.to_html(tmp_path / "bare.html"), script)


def test_comparison(browser, script, tmp_path):
    compare_runs(made(), made(noise=2.0)).to_html(tmp_path / "comparison.html")
    check(browser, tmp_path / "comparison.html", script)


def test_verification(browser, script, rng, tmp_path):
    same = np.arange(400) % 2
    report = ks.verification.evaluate(same, rng.normal(size=400) + 2 * same)
    report.to_html(tmp_path / "verification.html", groups=np.arange(400) // 100)
    check(browser, tmp_path / "verification.html", script)
