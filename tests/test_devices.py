"""Several devices give what one device gives, or an error, as `docs/guides/devices.md` says: one loss of each kind."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import devices  # noqa: E402

# The page has all features; they take minutes.
SOME = r"^losses: a last batch that|^`reduction=.sum|^`PairSequence|^embeddings|^`DivergenceMonitor|^`Verifier.decide"


def columns():
    """Of each strategy on the page: `{feature: "equal" or "refused"}`."""
    lines = re.findall(
        r"^\|(.*)\|$", (ROOT / "docs" / "guides" / "devices.md").read_text().split("<!-- table -->")[1], re.MULTILINE
    )
    title, _, *rows = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return {name: {row[0]: row[place].split()[0] for row in rows} for place, name in enumerate(title) if place}


@pytest.mark.deep
@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(name, marks=getattr(pytest.mark, backend))
        for name, (backend, column, *_) in devices.STRATEGIES.items()
        if column
    ],
)
def test_a_strategy_gives_what_the_page_says(strategy):
    backend, column, *_ = devices.STRATEGIES[strategy]
    (one,) = devices.run(backend, SOME, few=True)
    found = devices.verdicts(devices.run(strategy, SOME, few=True), one)
    words = {feature: devices.SHOWN.get(word, word) for feature, (word, _) in found.items()}
    expected = columns()[f"{devices.NAMES[backend]}: {column}"]
    assert len(words) >= 6
    assert words == {feature: expected[feature] for feature in words}, found


def test_the_page_has_each_strategy_and_feature_and_nothing_is_wrong():
    found = columns()
    assert set(found) == {
        f"{devices.NAMES[backend]}: {column}" for backend, column, *_ in devices.STRATEGIES.values() if column
    }
    for of_strategy in found.values():
        assert set(of_strategy) == set(devices.FEATURES)
        assert not {feature for feature, word in of_strategy.items() if word not in ("equal", "refused")}


def test_a_difference_is_seen():
    one = {"curve": [1.0, 2.0], "weights": [[0.5, float("nan")]]}
    assert devices.verdict(one, {"curve": [1.0, 2.000001], "weights": [[0.5, float("nan")]]})[0] == "equal"
    assert devices.verdict(one, {"curve": [1.0, 2.001], "weights": [[0.5, float("nan")]]}) == ("WRONG", "5.0e-04 curve")
    assert devices.verdict(one, {"curve": [1.0], "weights": one["weights"]})[0] == "WRONG"
    assert devices.verdict(one, {"curve": [1.0, 2.0], "weights": [[0.5, 0.5]]})[0] == "WRONG"
    assert devices.verdict(one, {"curve": one["curve"], "weights": one["weights"], "more": 1})[0] == "WRONG"
    trained = {"facts": {"eer": 0.1}, "facts after training": {"loss": 0.1}}
    assert devices.verdict(trained, {**trained, "facts after training": {"loss": 0.12}})[0] == "near"
    assert devices.verdict(trained, {**trained, "facts after training": {"loss": 0.2}})[0] == "WRONG"
    assert devices.verdict(trained, {**trained, "facts": {"eer": 0.11}})[0] == "WRONG"
    assert devices.verdict(one, {"error": "ValueError: no"}) == ("refused", "ValueError: no")


def test_the_page_is_read_as_it_was_written(monkeypatch, tmp_path):
    kinds = [("equal", ""), ("near", "2.0e-02"), ("refused", "ValueError: no"), ("WRONG", "1.0e-01 facts")]
    rows = {feature: kinds[place % 4] for place, feature in enumerate(devices.FEATURES)}
    monkeypatch.setattr(devices, "PAGE", tmp_path / "page.md")
    devices.PAGE.write_text("a\n<!-- table -->\n<!-- table -->\nb", encoding="utf-8")
    devices.write({"mirrored-2": rows})
    assert devices.page_columns() == {"mirrored-2": rows}
