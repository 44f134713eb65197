"""Several runs side by side: figures, the difference of EERs by hand, settings that differ, the page, the command."""

import html
import json
import re

import numpy as np
import pytest

from keras_siamese.cli import main
from keras_siamese.diagnosis import Diagnosis, compare_runs
from tests.support.diagnoses import HOSTILE, history, made


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Reports of a run that diverges and of a better one of 12 epochs with another setting, and their diagnoses."""
    folder = tmp_path_factory.mktemp("runs")
    better = made(noise=0.4, curves={name: curve[:12] for name, curve in history().items()})
    better.observed.settings["loss"] = {"class": "ContrastiveLoss", "margin": 0.5, "name": None}
    found = {folder / "before.json": made(), folder / "after.json": better}
    for path, diagnosis in found.items():
        diagnosis.to_json(path)
    return found


def test_what_each_run_has_is_in_the_table(runs):
    (before, first), (after, second) = runs.items()
    comparison = compare_runs(before, after)
    assert comparison.names == ["before.json", "after.json"]
    table = {title: cells for title, *cells in comparison.rows()}
    eers = [diagnosis.observed.eer for diagnosis in (first, second)]
    assert table["held-out EER"] == [f"{eer.estimate:.4f} [{eer.low:.4f}, {eer.high:.4f}]" for eer in eers]
    assert table["epochs"] == ["20", "12"] and table["last training loss"][0] == "0.05"
    assert table["flagged epochs"] == [f"{len(first.flags)}, first {first.flags[0].epoch + 1}", "none"]
    assert table["findings"] == [", ".join(f"{one.cause} ({one.severity})" for one in first.findings), "none"]
    assert list(comparison.settings()) == [("", "before.json", "after.json"), ("loss.margin", "1.0", "0.5")]
    text = str(comparison)
    assert f"before.json: {first.verdict}" in text and f"after.json: {second.verdict}" in text


def test_the_difference_is_that_of_independent_figures(runs):
    """Root of the sum of squared standard errors, and the normal quantile 1.96 as tables have it."""
    (before, first), (after, second) = runs.items()
    a, b = first.observed.eer, second.observed.eer
    error = np.sqrt(((a.high - a.low) / 3.92) ** 2 + ((b.high - b.low) / 3.92) ** 2)
    change = a.estimate - b.estimate
    (sentence,) = compare_runs(before, after).differences()
    found = [float(number) for number in re.findall(r"\d\.\d{4}", sentence)]
    assert found == pytest.approx([change, change - 1.96 * error, change + 1.96 * error], abs=2e-4)
    assert sentence.startswith("The EER of after.json is") and "lower than that of before.json." in sentence
    (sentence,) = compare_runs(first, first, names=["a", "b"]).differences()
    assert sentence.endswith("no difference is shown.")


def test_a_run_without_finite_embeddings_has_no_difference(runs, tmp_path):
    report = next(iter(runs.values())).to_dict() | {"verification": None, "errors": None}
    (tmp_path / "broken.json").write_text(json.dumps(report), encoding="utf-8")
    comparison = compare_runs(*runs, tmp_path / "broken.json")
    *_, sentence = comparison.differences()
    assert sentence == "broken.json: not known, because embeddings of a run are not finite."
    assert {title: cells[2] for title, *cells in comparison.rows()}["held-out EER"] == "–"
    assert sentence in str(comparison)


def test_a_diagnosis_of_scores_that_are_not_finite_is_compared_as_its_report_is(tmp_path):
    first, broken = made(), made()
    broken.observed.valid.scores[:] = np.nan
    broken.observed.valid.__dict__.pop("is_finite", None)
    comparison = compare_runs(first, broken)
    assert {title: cells[1] for title, *cells in comparison.rows()}["held-out AUC"] == "–"
    assert next(comparison.differences()).startswith("run 2: not known")


def test_counters_of_one_process_are_no_settings():
    first, second = made(), made()
    for number, run in enumerate((first, second)):
        run.observed.settings["loss"] = {"name": f"contrastive_loss_{number}", "margin": number}
        run.observed.settings["train"] = f"PairSequence(30 samples; epoch {10 + number}; augment=None)"
    assert list(compare_runs(first, second).settings()) == [("", "run 1", "run 2"), ("loss.margin", "0", "1")]


def test_the_page_and_the_command(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib"), pytest.importorskip("jinja2")
    assert main(["compare", *map(str, runs), "--html", str(tmp_path / "page.html")]) == 0
    comparison = compare_runs(*runs)
    assert capsys.readouterr().out == f"{comparison}\n"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1 and page.count('src="data:image/svg') == 1
    first, second = (len(diagnosis.observed.history["loss"]) for diagnosis in comparison.diagnoses)
    assert page.count(": run 1 training loss ") == first and page.count(", run 2 held-out EER ") == second
    for _, *cells in (*comparison.rows(), *comparison.settings()):
        assert all(html.escape(cell) in page for cell in cells)
    named = compare_runs(*runs, names=HOSTILE[:2])
    assert "alert(1)</script>" not in named.to_html(tmp_path / "named.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in named._repr_html_()
    assert main(["compare", *map(str, runs), "--html", str(tmp_path)]) == 2


def test_mistakes_are_named(runs, tmp_path):
    first = Diagnosis.from_json(next(iter(runs)))
    assert compare_runs(first, first).names == ["run 1", "run 2"]
    assert compare_runs(*2 * [next(iter(runs))]).names == 2 * [str(next(iter(runs)))]
    with pytest.raises(ValueError, match="`runs` must be at least two; got 1"):
        compare_runs(first)
    with pytest.raises(TypeError, match="`runs` must be diagnoses or paths .* got dict"):
        compare_runs(first, {})
    for names in (["a"], "ab", [1, 2]):
        with pytest.raises(ValueError, match="`names` must be 2 strings"):
            compare_runs(first, first, names=names)
