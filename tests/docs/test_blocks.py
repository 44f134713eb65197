"""Tests that all Python blocks and commands of the pages run, each page in its order.

The blocks of some pages continue those of another page, as the page itself says (`AFTER`). Pages with tests of their
own are `APART`: their blocks run there.
"""

import os
import shlex

import pytest

import keras_siamese
from keras_siamese import cli
from tests.support.pages import DOCS, PAGES, README, blocks, can_run, coded, name_of, run

ATTACH, EXAMPLE = DOCS / "guides" / "attach.md", DOCS / "causes" / "index.md"
APART = {README, DOCS / "migration.md", DOCS / "guides" / "forms.md", DOCS / "guides" / "scale.md"}
APART |= set((DOCS / "examples").glob("*.md"))  # made by running the examples
AFTER = {DOCS / "guides" / "long_runs.md": ATTACH, DOCS / "faq.md": ATTACH}
AFTER |= {path: EXAMPLE for path in (DOCS / "causes").glob("*.md") if path != EXAMPLE}
# Extras without which a page's blocks do not run.
NEEDS = {"tuning": ("keras_tuner", "pandas"), "data": ("PIL",), "faq": ("keras_tuner",), "start": ("jinja2",)}
NEEDS |= {"deploying": ("lancedb",), "thresholds": ("jinja2",)}
NEEDS |= {"texts": ("tensorflow",)}  # Keras's TextVectorization needs it


TO_RUN = [page for page in PAGES if page not in APART and coded(page.read_text(encoding="utf-8"))]


def first(page):
    """The namespace of a page's first block, and the package."""
    return run(blocks("python", page)[:1], page, {"ks": keras_siamese})


def run_page(page, namespace):
    """Runs the Python blocks and the commands of `page`, in their order."""
    for language, code in coded(page.read_text(encoding="utf-8")):
        if language == "python" and can_run(code):
            run([code], page, namespace)
        elif language == "sh":
            for line in code.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "keras-siamese", line
                assert cli.main(arguments) in (0, None), line
    return namespace


def check_start(names, folder, printed):
    assert (folder / "report.html").stat().st_size > 10_000
    assert names["monitor"].diagnosis.leading[0].cause == "memorising"  # as the page says
    assert min(names["siamese"].history.history["val_eer"]) < names["monitor"].history["eer"][-1] - 0.03
    assert "EER" in printed


def check_attach(names, folder, printed):
    found, less = names["found"], names["less"]
    assert found.facts["train_eer"] == less.facts["train_eer"] and "threshold" in found.facts
    assert "the same on each side" in printed and "learned after the comparison" in printed
    assert "The output grows with similarity; label 1 means same." in printed


def check_long_runs(names, folder, printed):
    assert len((folder / "run.jsonl").read_text().splitlines()) == 4


def check_causes(names, folder, printed):
    assert names["monitor"].diagnosis is not None and "EER" in printed


def check_repair(names, folder, printed):
    assert names["repaired"].attempts and names["best"].optimizer.iterations > 0


def check_report(names, folder, printed):
    assert names["again"].verdict == names["diagnosis"].verdict


def check_thresholds(names, folder, printed):
    assert names["report"].eer < 0.35 and "cost" in names["costly"].evidence["criterion"]
    assert "FNIR at FPIR ≤ 0.1 " in printed and len(names["curve"].fnmr) > 100
    assert (folder / "report.html").stat().st_size > 10_000


def check_tuning(names, folder, printed):
    assert names["search"].best_params_["margin"] in names["grid"]["margin"]
    assert len(names["oracle"].reasons) == 5
    assert len(names["results"].trials) == 3
    assert names["model"].optimizer.iterations > 0
    assert "data:image/svg+xml" in (folder / "search.html").read_text()
    assert len(list((folder / "logs").glob("trial_*/*tfevents*"))) == 3
    assert "rank  trial  val_eer" in printed


def check_texts(names, folder, printed):
    assert names["report"].eer < 0.25
    whole, *_, bits = names["cost"].rows
    assert whole.eer.estimate < 0.1 and bits.difference.low > 0
    assert names["cross_encoder"].history.history["val_eer"][-1] < 0.1
    assert (folder / "hard.csv").read_text().count("\n") == len(names["hard"]) + 1
    tower, reranked = names["shares"]
    assert reranked > tower > 2 / 15 and "reranked" in printed


def check_label_noise(names, folder, printed):
    assert len(names["cleaner"][0]) > 100


# What is asked of the namespace, the folder and the output after the blocks of a page.
CHECKS = {"docs/start.md": check_start, "docs/causes/index.md": check_causes}
CHECKS |= {"docs/causes/label_noise.md": check_label_noise}
CHECKS |= {
    f"docs/guides/{name}.md": globals()[f"check_{name}"]
    for name in ("attach", "long_runs", "repair", "report", "texts")
}
CHECKS |= {"docs/guides/thresholds.md": check_thresholds, "docs/guides/tuning.md": check_tuning}


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")  # Keras's, under KerasTuner
@pytest.mark.parametrize("page", TO_RUN, ids=name_of)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    for package in NEEDS.get(page.stem, ()):
        pytest.importorskip(package, reason=f"a block of {page.name} needs {package}")
    monkeypatch.chdir(tmp_path)
    namespace = run_page(page, first(AFTER[page]) if page in AFTER else {})
    if name_of(page) in CHECKS:
        CHECKS[name_of(page)](namespace, tmp_path, capsys.readouterr().out)


def test_a_page_whose_blocks_continue_others_says_so():
    assert set(AFTER) <= set(TO_RUN)
    for page, before in AFTER.items():
        assert f"]({os.path.relpath(before, page.parent)}" in page.read_text(encoding="utf-8"), page


def test_each_block_is_run_and_each_check_is_of_a_page():
    assert set(CHECKS) <= {name_of(page) for page in TO_RUN}
    for page in PAGES:
        languages = {language for language, _ in coded(page.read_text(encoding="utf-8"))}
        assert languages <= {"python", "sh"}, f"{page}: blocks in another language are not run"
        assert "sh" not in languages or page in TO_RUN or page == README, page
        assert "python" not in languages or page in TO_RUN or page in APART, page
