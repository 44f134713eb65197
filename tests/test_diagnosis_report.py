"""The report: strict JSON with a schema, and one HTML page that fetches nothing and escapes every name."""

import json
import re

import numpy as np
import pytest

from keras_siamese.diagnosis.diagnose import SCHEMA, diagnosis_of
from keras_siamese.diagnosis.evidence import Evidence
from keras_siamese.scoring import ScoredTrials, Trials

HOSTILE = "<script>alert('x')</script>\"&"


@pytest.fixture(scope="module")
def diagnosis():
    rng = np.random.default_rng(0)
    labels = np.repeat([f"{HOSTILE}{i}" for i in range(12)], 5)
    images = rng.random((60, 8, 8, 1))
    trials = Trials.from_labels(images, labels)
    z = images.reshape(60, -1)
    scores = -np.linalg.norm(z[trials.left] - z[trials.right], axis=1)
    flat = [0.5] * 19 + [float("nan")]
    curves = {"loss": np.geomspace(1, 0.1, 20).tolist(), "auc": flat, "eer": flat, "auc_se": [0.03] * 20}
    evidence = Evidence(curves | {"eer_se": [0.03] * 20}, ScoredTrials(trials, z, scores), settings={HOSTILE: HOSTILE})
    return diagnosis_of(evidence)


def test_json_is_strict_and_carries_its_schema(diagnosis, tmp_path):
    path = diagnosis.to_json(tmp_path / "deep" / "report.json")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    facts = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert facts["schema"] == SCHEMA and facts["diverging"] and facts["history"]["auc"][-1] is None
    assert facts["flags"][0]["epoch"] == diagnosis.flags[0].epoch
    assert facts["verdict"] == diagnosis.verdict and facts["settings"] == {HOSTILE: HOSTILE}


def test_html_is_one_escaped_page(diagnosis, tmp_path):
    page = diagnosis.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert all(target.startswith("data:") for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert page.index('class="verdict') < page.index("<h2>") and page.count("<img") == 5
    assert page == diagnosis.to_html(tmp_path / "again.html").read_text(encoding="utf-8")


def test_refuses_a_folder(diagnosis, tmp_path):
    for write in (diagnosis.to_html, diagnosis.to_json):
        with pytest.raises(ValueError, match="folder"):
            write(tmp_path)
