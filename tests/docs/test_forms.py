"""Tests that each form of program in docs/guides/forms.md runs with its added line, and means what the page says."""

import re

import pytest

from tests.support.pages import DOCS, blocks, can_run, coded, run

FORMS_PAGE, ATTACH = DOCS / "guides" / "forms.md", DOCS / "guides" / "attach.md"


def meaning(monitor):
    """Whether the output goes up or down with similarity, and the label that means same (None for identities)."""
    anatomy = monitor.attach()
    kind = {"score": "up", "distance": "down"}[anatomy.output_kind]
    return kind, None if anatomy.direction is None else int(anatomy.direction.similar_label)


# What the page says of its programs, by heading.
FORMS = {
    "Two inputs and a learned head": [("up", 1)],
    "Distances and contrastive losses": [("down", 1), ("down", 0)],
    "keras.io's contrastive example": [("down", 0)],
    "Sequences with masks, several inputs per side": [("up", 1), ("down", 1)],
    "Two classes, cosine, several outputs": [("up", 1), ("up", 1), ("down", 1)],
    "Triplets": [("down", 1)] * 5,
    "A subclass": [("up", 1), ("down", 1)],
    "Pairs in one input, cross-encoders": [("down", 1), ("up", 1)],
    "One encoder: a batch loss, a proxy loss, a classifier": [("down", None)] * 3,
    "Data that are not arrays, and mixed precision": [("up", 1)] * 4 + [("down", 1), ("up", 1)],
}


def python_in(text):
    return [code for language, code in coded(text) if language == "python"]


def sections():
    """The text before the first heading, and those under the headings, by heading."""
    before, *others = re.split(r"^## ", FORMS_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return before, {text.split("\n")[0]: text for text in others}


def test_each_form_is_checked():
    assert list(sections()[1]) == list(FORMS)


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # Keras's, of batches
@pytest.mark.parametrize("heading", FORMS)
def test_a_form_attaches(heading, monitors):
    samples, dissected, *_ = blocks("python", ATTACH)
    before, under = sections()
    (helper,), forms = python_in(before), python_in(under[heading])
    namespace = run([samples, dissected, helper], ATTACH)
    assert len(forms) == len(FORMS[heading])
    for block, wanted in zip(forms, FORMS[heading], strict=True):
        assert block.count("# added") == 1
        if can_run(block):
            run([block], FORMS_PAGE, namespace)
            assert meaning(monitors[-1]) == wanted, block
            assert monitors[-1].diagnosis is not None
    assert len(monitors) == sum(map(can_run, forms))
