"""The flag: each clause alone, and all clauses together against loops on random curves."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese.diagnosis import find_flags
from keras_siamese.diagnosis.trend import has_recovered, mann_kendall, warmup_of, why_no_flags
from tests.oracles import diagnosis as oracles

EPOCHS = 12
FALLING = np.geomspace(1.0, 0.2, EPOCHS)
AT_CHANCE = np.full(EPOCHS, 0.5)
GOOD = {"auc": np.full(EPOCHS, 0.9), "eer": np.full(EPOCHS, 0.15)}
FIRST = 1 + 4  # warm-up of 12 epochs, a window, and one epoch more, counted from 0


@pytest.fixture(autouse=True)
def seeded():
    """Replaces the fixture of conftest.py: nothing here uses Keras."""


def flags(loss=FALLING, auc=AT_CHANCE, eer=AT_CHANCE, pairs=1000, **options):
    return [flag.epoch for flag in find_flags(loss, auc, eer, pairs=pairs, **options)]


def bent(curve, epochs, values):
    """Returns `curve` with other `values` at `epochs`."""
    curve = np.array(curve, float)
    curve[epochs] = values
    return curve


# --- each clause


def test_a_falling_loss_at_chance_is_flagged_from_the_second_window_on():
    assert flags() == list(range(FIRST, EPOCHS))
    first = find_flags(FALLING, AT_CHANCE, AT_CHANCE, pairs=1000)[0]
    assert (first.reason, first.auc, first.eer, first.best_auc, first.best_eer) == (
        "no better than chance",
        0.5,
        0.5,
        0.5,
        0.5,
    )
    assert first.loss_p == pytest.approx(1 / 24) and first.auc_p == first.eer_p == 1.0
    assert first.loss_drop == pytest.approx(1 - FALLING[FIRST] / FALLING[FIRST - 3])
    assert first.auc_null == pytest.approx(0.5 + 2.326 * 3.6 * math.sqrt(1 / 3000), rel=1e-6)
    assert first.to_dict()["epoch"] == FIRST


@pytest.mark.parametrize("seed", range(5))
def test_the_flags_since_an_epoch_are_the_last_ones_of_all_flags(seed):
    rng = np.random.default_rng(seed)
    auc = 0.5 + 0.01 * rng.normal(size=40)
    auc[rng.choice(40, 8, replace=False)] = np.nan
    curves, found = (np.geomspace(1, 0.01, 40), auc, 1 - auc), []
    everything = find_flags(*curves, pairs=1000)
    for since in range(42):
        found.append(find_flags(*curves, pairs=1000, since=since))
        assert found[-1] == [flag for flag in everything if flag.epoch >= since]
    assert len({len(flags) for flags in found}) > 5


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (9, 0), (12, 1), (70, 7), (200, 20)])
def test_the_warmup_is_a_tenth_of_the_epochs(epochs, warmup):
    assert warmup_of(epochs) == warmup


def test_the_warmup_goes_by_the_epochs_that_the_run_is_to_have():
    assert flags(epochs=40)[0] == 4 + 4
    assert flags(epochs=100) == []


def test_five_epochs_are_enough():
    short = [curve[:5] for curve in (FALLING, AT_CHANCE, AT_CHANCE)]
    assert flags(*short) == [4]


def test_one_window_is_not_enough():
    loss = bent(FALLING, slice(FIRST, None), 1.0)
    assert flags(loss) == []
    assert oracles.flagged_epochs(loss, AT_CHANCE, AT_CHANCE, 1000, skip={"consecutive"}) == [FIRST - 1]


def test_the_loss_must_fall_by_trend():
    zigzag = bent(FALLING, slice(None), [1.0, 0.5] * (EPOCHS // 2))
    assert flags(zigzag) == []
    one_rise = bent(FALLING, [6, 7], FALLING[[7, 6]])  # in the windows with both, one pair of four is out of order
    assert flags(one_rise) == [FIRST, FIRST + 1, 11]
    assert flags(one_rise, window=5) == list(range(FIRST + 1, EPOCHS))  # p = 5 / 120


@pytest.mark.parametrize(("drop", "flagged"), [(0.049, False), (0.051, True)])
def test_the_loss_must_fall_by_five_percent_a_window(drop, flagged):
    assert bool(flags((1 - drop) ** (np.arange(EPOCHS) / 3))) is flagged
    assert bool(flags(-((1 + drop) ** (np.arange(EPOCHS) / 3)))) is flagged  # a negative loss falls from its size


@pytest.mark.parametrize("improving", ["auc", "eer"])
def test_an_improving_auc_or_eer_is_not_flagged(improving):
    curves = {"auc": AT_CHANCE, "eer": AT_CHANCE}
    slope = np.linspace(0, 0.01, EPOCHS)
    curves[improving] = 0.5 + slope if improving == "auc" else 0.5 - slope
    assert flags(**curves) == []
    out_of_order = curves | {improving: curves[improving][[0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10]]}
    assert flags(**out_of_order) == []  # one pair of neighbours in each window
    curves[improving] = 1 - curves[improving]
    assert flags(**curves)


def test_above_chance_and_at_its_best_is_not_flagged():
    assert flags(**GOOD) == []


@pytest.mark.parametrize(("below", "flagged"), [(0.001, True), (-0.001, False)])
def test_chance_ends_at_the_99th_percentile_of_noise(below, flagged):
    auc = np.full(EPOCHS, 0.5 + 2.326 * 0.05 - below)
    assert bool(flags(auc=auc, eer=np.full(EPOCHS, 0.4), auc_se=0.05, eer_se=0.05)) is flagged


@pytest.mark.parametrize(("target", "flagged"), [(0.14, True), (0.16, False)])
def test_an_eer_above_the_target_is_flagged(target, flagged):
    assert bool(flags(**GOOD, target_eer=target)) is flagged
    if flagged:
        assert find_flags(FALLING, *GOOD.values(), pairs=1000, target_eer=target)[0].reason == "below target"


@pytest.mark.parametrize("figure", ["auc", "eer"])
@pytest.mark.parametrize(("errors", "flagged"), [(1.9, False), (2.1, True)])
def test_worse_than_the_best_by_two_standard_errors_is_flagged(figure, errors, flagged):
    lost = errors * 0.03 * (1 if figure == "eer" else -1)
    curves = {**GOOD, figure: bent(GOOD[figure] + lost, 1, GOOD[figure][1])}
    assert bool(flags(**curves, auc_se=0.03, eer_se=0.03)) is flagged
    if flagged:
        assert find_flags(FALLING, *curves.values(), pairs=1000, auc_se=0.03, eer_se=0.03)[0].reason == (
            "worse than its best"
        )


def test_a_dip_below_a_lucky_best_is_not_flagged():
    # The run of the demo's repaired recipe: for two epochs the EER is slightly above its best, then it improves again.
    eer = np.array([0.28, 0.277, 0.186, 0.189, 0.171, 0.165, 0.151, 0.138, 0.133, 0.143, 0.144, 0.134, 0.114, 0.128])
    loss = np.geomspace(0.24, 0.13, len(eer))
    assert flags(loss, 1 - eer, eer, auc_se=0.005, eer_se=0.004, pairs=50_000) == []
    assert oracles.flagged_epochs(loss, 1 - eer, eer, 50_000, 0.005, 0.004, skip={"throughout"})


def test_never_when_the_eer_is_good():
    eer = bent(np.full(EPOCHS, 0.019), 1, 0.001)
    options = {"auc": np.full(EPOCHS, 0.99), "auc_se": 1e-4, "eer_se": 1e-4, "pairs": 10**6}
    assert flags(eer=eer, **options) == []
    assert flags(eer=eer + 0.002, **options)


def test_never_when_the_loss_sits_on_its_floor():
    loss = bent(1e-3 * FALLING, 0, 2.0)
    assert flags(loss) == []
    assert flags(bent(loss, 0, 0.5))


@pytest.mark.parametrize(("pairs", "flagged"), [(99, False), (100, True)])
def test_never_on_fewer_than_a_hundred_pairs(pairs, flagged):
    assert bool(flags(pairs=pairs)) is flagged


# --- standard errors


def test_unknown_standard_errors_are_those_of_independent_pairs_widened():
    auc = np.full(EPOCHS, 0.6)
    null = find_flags(FALLING, auc, 1 - auc, pairs=200)[0].auc_null
    assert null == pytest.approx(0.5 + 2.326 * 3.6 * math.sqrt(0.24 / 150))
    known_of_one = bent(np.full(EPOCHS, np.nan), 1, 0.02)  # with it .6 is above chance in the window from 1 to 4
    unknown = flags(auc=auc, eer=1 - auc, pairs=200)
    assert flags(auc=auc, eer=1 - auc, pairs=200, auc_se=known_of_one) == unknown[1:]


def test_a_standard_error_of_zero_is_not_believed():
    # A collapsed encoder gives all pairs one score, so AUC is the same on every resample.
    assert flags(auc_se=0.0, eer_se=0.0) == flags()
    perfect = flags(auc=np.ones(EPOCHS), eer=np.zeros(EPOCHS), auc_se=0.0, eer_se=0.0)
    assert perfect == []


# --- epochs that are not known


def test_epochs_that_were_not_measured_are_left_out_of_windows():
    epochs = 24
    loss, auc = np.geomspace(1, 0.2, epochs), np.full(epochs, np.nan)
    auc[1::2] = 0.5
    # The warm-up is 2 of 24 epochs; 3, 5, 7, … are measured, and the fifth of them is 11.
    assert flags(loss, auc, auc.copy()) == list(range(11, epochs, 2))


def test_a_resumed_run_begins_with_unknown_epochs():
    unknown = np.full(5, np.nan)
    curves = [np.concatenate([unknown, curve]) for curve in (FALLING, AT_CHANCE, AT_CHANCE)]
    assert flags(*curves) == list(range(5 + 4, 5 + EPOCHS))


def test_fewer_epochs_than_two_windows_are_not_flagged():
    short = [curve[: FIRST - 1] for curve in (FALLING, AT_CHANCE, AT_CHANCE)]
    assert flags(*short) == []
    assert flags([], [], []) == []


@pytest.mark.parametrize(
    ("epochs", "pairs", "said"),
    [
        (4, 1000, "only 4 measured epochs after a warm-up of 0, but at least 5 are needed"),
        (5, 1000, None),
        (5, 99, "only 99 held-out pairs, but at least 100 are needed"),
    ],
)
def test_why_no_flag_was_possible(epochs, pairs, said):
    curves = [curve[:epochs] for curve in (FALLING, AT_CHANCE, AT_CHANCE)]
    assert why_no_flags(*curves, pairs=pairs) == said
    assert bool(flags(*curves, pairs=pairs)) is (said is None)


def test_recovered_is_better_than_the_best_before_the_flag():
    found = find_flags(FALLING, AT_CHANCE, AT_CHANCE, pairs=1000)
    up = np.concatenate([AT_CHANCE, np.linspace(0.5, 0.9, 6)])
    assert has_recovered(found, up, 1 - up, pairs=1000)
    assert not has_recovered(found, up, np.full(len(up), 0.5), pairs=1000)  # AUC alone is not enough
    assert not has_recovered(found, AT_CHANCE, AT_CHANCE, pairs=1000)
    assert not has_recovered([], up, 1 - up, pairs=1000)
    slightly = np.concatenate([AT_CHANCE, [0.5 + 0.03]])
    assert not has_recovered(found, slightly, 1 - slightly, pairs=1000, auc_se=0.02, eer_se=0.02)
    assert has_recovered(found, slightly, 1 - slightly, pairs=10**6, auc_se=0.01, eer_se=0.01)


# --- against loops


def random_run(rng):
    """Random curves of every kind: falling, flat, rising, noisy, with gaps, ties and floors."""
    epochs = int(rng.integers(6, 26))
    t = np.arange(epochs)
    loss = np.exp(-t * rng.choice([0, 0.01, 0.05, 0.2, 1.0])) + rng.normal(0, rng.choice([0, 0.01, 0.1]), epochs)
    level, drift = rng.choice([0.5, 0.55, 0.7, 0.9, 0.985]), rng.choice([-0.01, 0, 0, 0.002])
    auc = np.clip(level + drift * t + rng.normal(0, rng.choice([0, 0.005, 0.03]), epochs), 0, 1)
    eer = np.clip(1 - auc + rng.normal(0, rng.choice([0, 0.01]), epochs), 0, 1)
    if rng.random() < 0.3:
        loss, auc, eer = (np.round(curve, 2) for curve in (loss, auc, eer))
    if rng.random() < 0.1:
        auc, eer = np.full(epochs, 0.99), np.full(epochs, 0.015)
        auc[1], eer[1] = 1.0, 0.0
    if rng.random() < 0.3:
        auc[rng.random(epochs) < 0.3] = np.nan
    if rng.random() < 0.2:
        loss[: rng.integers(1, 4)] = np.nan
    errors = [
        rng.choice(np.array([None, 0.0, 0.01, 0.03], dtype=object))
        if rng.random() < 0.5
        else np.where(rng.random(epochs) < 0.2, np.nan, rng.uniform(0, 0.05, epochs))
        for _ in range(2)
    ]
    return {
        "loss": loss,
        "auc": auc,
        "eer": eer,
        "pairs": int(rng.choice([99, 100, 300, 5000])),
        "auc_se": errors[0],
        "eer_se": errors[1],
        "target_eer": [None, 0.1, 0.4][rng.integers(3)],
        "epochs": [None, epochs, epochs + 20][rng.integers(3)],
    }


CLAUSES = ("pairs", "warmup", "good", "floor", "loss trend", "loss drop", "auc trend", "eer trend", "badly")
CLAUSES += ("consecutive", "throughout")


def test_flags_equal_those_of_the_loop_and_each_clause_matters():
    rng = np.random.default_rng(3)
    runs = [random_run(rng) for _ in range(500)]
    found = [flags(**run) for run in runs]
    assert found == [oracles.flagged_epochs(**run) for run in runs]
    assert 50 < sum(map(bool, found)) < 450
    # A loop without one of the clauses gives other flags for some run.
    for clause in CLAUSES:
        assert any(one != oracles.flagged_epochs(**run, skip={clause}) for one, run in zip(found, runs, strict=True)), (
            clause
        )


def test_a_flag_depends_on_nothing_after_it():
    rng = np.random.default_rng(4)
    for _ in range(60):
        run = random_run(rng)
        run["epochs"] = len(run["loss"])
        found = flags(**run)
        for length in range(len(run["loss"])):
            cut = {key: value[:length] if isinstance(value, np.ndarray) else value for key, value in run.items()}
            assert flags(**cut) == [epoch for epoch in found if epoch < length]


# --- healthy curves


@pytest.mark.parametrize("noise", [0.0, 0.005, 0.01])
@pytest.mark.parametrize("kind", ["learning", "plateau", "slow starter", "hard", "nearly perfect"])
def test_healthy_curves_are_never_flagged(kind, noise):
    rng = np.random.default_rng(5)
    t = np.arange(40)
    best, pace = {
        "learning": (0.97, 15),
        "plateau": (0.9, 3),
        "slow starter": (0.9, 20),
        "hard": (0.8, 8),
        "nearly perfect": (0.999, 2),
    }[kind]
    for _ in range(20):
        auc = best - (best - 0.5) * np.exp(-((t / pace) ** (2 if kind == "slow starter" else 1)))
        wobble = rng.normal(0, noise, len(t))
        auc, eer = np.clip(auc + wobble, 0, 1), np.clip((1 - auc) * 1.2 - wobble, 0, 1)
        loss = 0.05 + np.exp(-t / 12) + rng.normal(0, 0.003, len(t))
        # The held-out pairs are the same in all epochs, so their figures vary less than the standard error.
        assert flags(loss, auc, eer, pairs=2000, auc_se=0.02, eer_se=0.02) == []


# --- Mann–Kendall


@given(st.lists(st.integers(0, 6), min_size=3, max_size=6), st.sampled_from(["falling", "rising"]))
@settings(max_examples=80, deadline=None)
def test_mann_kendall_counts_all_orders(values, direction):
    assert mann_kendall(values, direction) == pytest.approx(oracles.mann_kendall(values, direction))


def test_mann_kendall_goes_on_with_scipy_where_orders_are_too_many():
    falling = np.arange(8)[::-1]
    assert mann_kendall(falling, "falling") == pytest.approx(1 / math.factorial(8))
    assert mann_kendall(falling, "rising") == pytest.approx(1.0)
    assert mann_kendall(np.ones(9), "rising") == 1.0
    swapped = falling[[1, 0, 2, 3, 4, 5, 6]]
    assert mann_kendall(swapped, "falling") == pytest.approx(oracles.mann_kendall(swapped, "falling"))


def test_the_oracle_rejects_a_count_without_ties():
    def without_ties(values, direction):
        ranks = np.argsort(np.argsort(values, kind="stable"))
        return oracles.mann_kendall(list(ranks), direction)

    wrong = [
        values
        for values in itertools.product(range(3), repeat=4)
        if without_ties(values, "rising") != pytest.approx(oracles.mann_kendall(values, "rising"))
    ]
    assert len(wrong) > 10


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auc": np.ones(3)}, r"curves of one length; got shapes \(12,\), \(3,\), \(12,\)"),
        ({"loss": np.ones((12, 1))}, "curves of one length"),
        ({"pairs": -1}, "`pairs` must be at least 0"),
        ({"target_eer": 0.0}, "`target_eer` must be in"),
        ({"window": 3}, "`window` must be at least 4"),
        ({"auc_se": np.ones(4)}, r"`auc_se` must be a number or a curve of shape \(12,\); got shape \(4,\)"),
    ],
)
def test_bad_curves_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        flags(**change)
