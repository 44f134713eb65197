"""The table of facts: numbers by name, words and rows beside them."""

import pytest

from keras_siamese.diagnosis.facts.table import Facts


def test_numbers_are_read_by_name():
    facts = Facts({"eer": 0.25}, {"loss": "ContrastiveLoss"}, {"duplicates": [3]})
    assert facts["eer"] == 0.25 and facts.get("eer") == 0.25 and "eer" in facts
    assert facts.get("gap") is None and facts.get("gap", 1.0) == 1.0 and "gap" not in facts
    assert facts.to_dict() == {
        "numbers": {"eer": 0.25}, "words": {"loss": "ContrastiveLoss"}, "rows": {"duplicates": [3]}
    }  # fmt: skip
    with pytest.raises(KeyError, match="gap"):
        facts["gap"]
