"""Listed pairs: each once an epoch, for validation, and read from LFW's pairs.txt."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.data import ExplicitPairs, PairSequence, explicit, from_pairs, read_lfw_pairs
from keras_siamese.scoring import Trials

LABELS = np.array([4, 1, 1, 4, 9, 9, 9, 4, 1, 2])
LEFT = np.array([0, 1, 4, 9, 5, 0, 3, 8, 2, 6, 9])
RIGHT = np.array([3, 2, 6, 0, 6, 4, 7, 1, 9, 1, 5])
SAME = LABELS[LEFT] == LABELS[RIGHT]
X = np.random.default_rng(5).normal(size=(10, 4)).astype("float32")


def pairs(x=X, **options):
    return from_pairs(x, LEFT, RIGHT, SAME, **({"batch_size": 4} | options))


def flat(batches):
    """The pairs in batches, in order: left rows, right rows and labels, where a sample is its own row."""
    columns = zip(*((left, right, same) for (left, right), same in batches), strict=True)
    return [np.concatenate(column).tolist() for column in columns]


def in_order(sequence):
    return [sequence[index] for index in range(len(sequence))]


def assert_same_batches(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


# Batches


def test_frozen_pairs_are_the_given_ones_in_their_order():
    sequence = pairs(np.arange(10), frozen=True)
    assert [len(same) for _, same in in_order(sequence)] == [4, 4, 3]
    assert flat(in_order(sequence)) == [LEFT.tolist(), RIGHT.tolist(), SAME.tolist()]
    sequence.set_epoch(5)
    assert flat(in_order(sequence)) == [LEFT.tolist(), RIGHT.tolist(), SAME.tolist()]
    for got, given in zip(sequence.pairs(3), (LEFT, RIGHT, SAME), strict=True):
        np.testing.assert_array_equal(got, given)


def test_each_pair_comes_once_an_epoch_in_an_order_of_its_own():
    sequence = pairs(np.arange(10), seed=3)
    given = sorted(zip(LEFT.tolist(), RIGHT.tolist(), SAME.tolist(), strict=True))
    orders = set()
    for epoch in range(6):
        sequence.set_epoch(epoch)
        columns = flat(in_order(sequence))
        assert sorted(zip(*columns, strict=True)) == given
        assert columns == [column.tolist() for column in sequence.pairs()]
        orders.add(tuple(columns[0]))
    assert len(orders) == 6


def test_the_table_cannot_be_changed_and_does_not_follow_what_was_given():
    left = LEFT.copy()
    for frozen in (True, False):
        sequence = from_pairs(X, left, RIGHT, SAME, frozen=frozen)
        for column in sequence.pairs():
            with pytest.raises(ValueError, match="read-only"):
                column[0] = 1
    left[:] = 0
    assert sorted(sequence.pairs()[0]) == sorted(LEFT)


@pytest.mark.parametrize("given", [SAME, SAME.astype(int), SAME.astype("float32")[:, None], SAME.tolist()])
def test_labels_as_numbers_and_booleans(given):
    sequence = from_pairs(X, LEFT.tolist(), RIGHT, given, frozen=True)
    np.testing.assert_array_equal(sequence[0][1], SAME)
    assert sequence[0][1].dtype == np.float32
    assert sequence.positive_fraction == pytest.approx(SAME.sum() / len(SAME))


@pytest.mark.parametrize("given", [SAME, 1 - SAME.astype(int)])
def test_similar_label_0_in_and_out(given):
    sequence = from_pairs(X, LEFT, RIGHT, given, similar_label=0, frozen=True, labels=LABELS)
    np.testing.assert_array_equal(sequence[0][1], ~SAME)
    np.testing.assert_array_equal(sequence.pairs()[2], SAME)


def test_dicts_and_augmentation_of_each_tower():
    x = {"image": X, "row": np.arange(10)}

    def noise(batch, rng):
        return {**batch, "image": batch["image"] + rng.normal(size=batch["image"].shape).astype("float32")}

    sequence, again = (pairs(x, augment=noise, seed=1) for _ in range(2))
    assert_same_batches(in_order(sequence), in_order(again)[:])
    (left, right), _ = sequence[1]
    for tower, rows in ((left, sequence.pairs()[0][4:8]), (right, sequence.pairs()[1][4:8])):
        np.testing.assert_array_equal(tower["row"], rows)
        tower["noise"] = tower["image"] - X[rows]
    assert np.abs(left["noise"] - right["noise"]).min() > 0


def test_attributes_and_repr():
    sequence = pairs(labels=LABELS.astype(str))
    assert repr(sequence) == "ExplicitPairs(11 pairs of 10 samples, 54.5% same, in 3 batches of 4; epoch 0)"
    assert sequence.identities[sequence.labels].tolist() == LABELS.astype(str).tolist()
    assert sequence.pairs_per_epoch == 11
    assert not hasattr(pairs(), "labels")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"left": [0, 10, 2], "right": [1, 2, 3], "same": [0, 0, 0]},
            r"`left` .* from 0 to 9; got 10 in pair 1 \(1",
        ),
        ({"left": [0, 1, 2], "right": [1, -2, -3], "same": [0, 0, 0]}, r"`right` .*; got -2 in pair 1 \(2"),
        ({"left": [0.0, 1.0]}, r"`left` must be integers of shape \(pairs,\); got float64 of shape \(2,\)"),
        ({"left": LEFT[:, None]}, r"`left` must be integers of shape \(pairs,\); got int64 of shape \(11, 1\)"),
        ({"left": LEFT[1:]}, "`left` and `right` must have the same length ≥ 1; got 10 and 11"),
        ({"left": [], "right": [], "same": []}, "must have the same length ≥ 1; got 0 and 0"),
        ({"same": SAME[1:]}, "`same` must have one entry for each of the 11 pairs; got 10"),
        ({"same": [2] * 11}, r"`same` must hold only 1 \(genuine\) and 0 \(impostor\)"),
        ({"left": RIGHT}, "`same` must be true if .* are the same row; .* pairs 3, 5, 8, 9, 10 "),
        ({"labels": LABELS[1:]}, "`labels` must have one entry for each of the 10 samples; got 9"),
        ({"labels": LABELS, "same": ~SAME}, "`same` must agree with `labels`; .* 0, 1, 2, 3, .* and 1 more "),
        ({"x": np.full((10, 2), np.nan)}, "`x` must be finite"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"similar_label": 2}, "`similar_label` must be one of 0, 1"),
        ({"frozen": True, "augment": np.negative}, "`augment` must be None when frozen=True"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        from_pairs(**({"x": X, "left": LEFT, "right": RIGHT, "same": SAME} | change))


def test_unknown_options_name_the_known():
    with pytest.raises(TypeError, match="ExplicitPairs knows no option 'pairs_per_epoch'; it knows x, left, right"):
        pairs(pairs_per_epoch=3)


# Training and validation


def model():
    siamese = ks.SiameseWrapper(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    siamese.compile("sgd", loss=ks.losses.ContrastiveLoss())
    return siamese


@pytest.mark.parametrize("labels", [None, LABELS])
def test_frozen_pairs_validate(labels):
    sequence = pairs(labels=labels, frozen=True)
    trials = Trials.of(sequence)
    np.testing.assert_array_equal(trials.items[trials.left], X[LEFT])
    np.testing.assert_array_equal(trials.items[trials.right], X[RIGHT])
    np.testing.assert_array_equal(trials.same, SAME)
    if labels is None:
        assert trials.identities is None
    else:
        left, right = trials.pair_identities
        np.testing.assert_array_equal(left == right, SAME)


@pytest.mark.parametrize(
    ("monitor", "labels"),
    [
        ("DivergenceMonitor", LABELS),
        pytest.param("DivergenceMonitor", None, marks=pytest.mark.deep),
        pytest.param("VerificationMonitor", LABELS, marks=pytest.mark.deep),
        pytest.param("VerificationMonitor", None, marks=pytest.mark.deep),
    ],
)
def test_monitors_take_frozen_pairs(monitor, labels):
    validation = pairs(labels=labels, frozen=True)
    options = {"on_divergence": lambda diagnosis: None} if monitor == "DivergenceMonitor" else {}
    callback = getattr(ks.callbacks, monitor)(validation, **options)
    history = model().fit(pairs(labels=labels), validation_data=validation, epochs=2, verbose=0, callbacks=[callback])
    assert len(history.history["val_eer"]) == 2
    assert np.isfinite(history.history["val_loss"]).all()


def test_monitors_refuse_pairs_that_are_not_frozen():
    with pytest.raises(ValueError, match=r"frozen PairSequence: ExplicitPairs\(x, left, right, same, frozen=True\)"):
        ks.callbacks.VerificationMonitor(pairs())
    with pytest.raises(ValueError, match=r"frozen PairSequence: PairSequence\(x, labels, frozen=True\)"):
        ks.callbacks.VerificationMonitor(PairSequence(X, LABELS))


def test_fit_sets_the_epoch():
    sequence = pairs()
    model().fit(sequence, epochs=3, verbose=0)  # warnings are errors: nobody misses SetEpoch
    assert sequence.epoch == 2


# LFW

PEOPLE = {"Ada_Bo": 3, "Cy": 2, "Di_Eve_Flo": 4, "Gus": 1}
VIEW_2 = """2\t2
Ada_Bo\t1\t3
Cy\t1\t2
Ada_Bo\t2\tGus\t1
Cy\t2\tDi_Eve_Flo\t4
Di_Eve_Flo\t1\t2
Ada_Bo\t1\t2
Gus\t1\tCy\t1
Di_Eve_Flo\t2\tAda_Bo\t3
"""


@pytest.fixture
def lfw(tmp_path):
    """A folder of images, each of one grey: 10 × the person's place in the alphabet + the image's number."""
    pil = pytest.importorskip("PIL.Image")
    for place, (name, count) in enumerate(PEOPLE.items()):
        (tmp_path / "lfw" / name).mkdir(parents=True)
        for number in range(1, count + 1):
            image = pil.new("L", (16, 16), 10 * place + number)
            image.save(tmp_path / "lfw" / name / f"{name}_{number:04d}.jpg", quality=100)
    return tmp_path / "lfw"


def write(folder, text):
    path = folder.parent / "pairs.txt"
    path.write_bytes(text.encode())
    return path


def grey(name, number):
    return 10 * list(PEOPLE).index(name) + int(number)


def naive_lfw(text):
    """For each line the greys of both images, whether it is genuine, and its fold."""
    first, *lines = text.split("\n")
    size = 2 * int(first.split()[-1])
    rows = []
    for number, line in enumerate(line for line in lines if line):
        words = line.split()
        genuine = len(words) == 3
        other = words[0] if genuine else words[2]
        rows.append((grey(words[0], words[1]), grey(other, words[-1]), genuine, number // size))
    return rows


@pytest.mark.parametrize("text", [VIEW_2, VIEW_2.replace("\n", "\r\n"), VIEW_2 + "\n\n", VIEW_2.replace("\t", "  ")])
def test_pairs_txt_as_a_naive_reader_has_it(lfw, text):
    read = read_lfw_pairs(write(lfw, text), lfw, (8, 8), "grayscale")
    pixels = read.x[:].mean(axis=(1, 2, 3)).round().astype(int)
    got = list(zip(pixels[read.left], pixels[read.right], read.same, read.fold, strict=True))
    assert got == naive_lfw(text.replace("\r", ""))
    assert [grey(name, 0) for name in read.labels] == (pixels // 10 * 10).tolist()
    assert read.x.shape == (9, 8, 8, 1)
    assert repr(read) == "LFWPairs(8 pairs in 2 folds, of 9 images of 4 people)"


def test_view_1_has_one_fold(lfw):
    read = read_lfw_pairs(write(lfw, "1\nCy\t1\t2\nCy\t1\tGus\t1\n"), str(lfw), (8, 8))
    assert read.fold.tolist() == [0, 0]
    assert read.same.tolist() == [True, False]
    assert read.labels.tolist() == ["Cy", "Cy", "Gus"]


@pytest.mark.deep
def test_folds_train_and_validate(lfw):
    read = read_lfw_pairs(write(lfw, VIEW_2), lfw, (8, 8))
    train = from_pairs(read.x, *read.pairs(read.fold == 0), labels=read.labels, batch_size=2)
    valid = from_pairs(read.x, *read.pairs(read.fold == 1), labels=read.labels, batch_size=2, frozen=True)
    assert from_pairs(read.x, *read.pairs()).pairs_per_epoch == 8
    siamese = ks.SiameseWrapper(
        keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    )
    siamese.compile("sgd", loss=ks.losses.ContrastiveLoss())
    monitor = ks.callbacks.VerificationMonitor(valid)
    history = siamese.fit(train, epochs=1, verbose=0, callbacks=[monitor])
    assert "val_eer" in history.history


def change(old, new):
    assert old in VIEW_2
    return VIEW_2.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must begin with the number of folds .*; line 1 is ''"),
        (change("2\t2", "two folds"), "line 1 is 'two folds'"),
        (change("2\t2", "2\t2\t2"), "line 1 is"),
        (change("2\t2", "0\t2"), "line 1 is"),
        (change("2\t2", "2\t3"), r"must have 12 lines after its first, 3 genuine and 3 impostor .* of 2 folds; got 8"),
        (change("Cy\t1\t2", "Cy\t1"), r"1 malformed lines:\n  line 3 must hold one genuine pair: .*; got 'Cy\\t1'"),
        (change("Cy\t1\t2\n", "\n"), r"line 3 must hold one genuine pair: .*; got ''"),
        (change("Cy\t1\t2", "Cy\t1\tGus\t1"), r"line 3 must hold one genuine pair"),
        (change("Gus\t1\tCy\t1", "Gus\t1\t1"), r"line 8 must hold one impostor pair: name, number, name, number; got"),
        (change("Cy\t1\t2", "Cy\t1\t1"), "line 3 must"),
        (change("Cy\t1\t2", "Cy\t0\t2"), "line 3 must"),
        (change("Cy\t1\t2", "Cy\t-1\t2"), "line 3 must"),
        (change("Cy\t1\t2", "Cy\tone\t2"), "line 3 must"),
        (change("Gus\t1\tCy\t1", "Cy\t1\tCy\t2"), "line 8 must"),
        (change("Cy\t1\t2", "../../etc\t1\t2"), "line 3 must"),
        (change("Cy\t1\t2", "..\t1\t2"), "line 3 must"),
        (VIEW_2.replace("Cy", "Cy Cy"), r"3 malformed lines:\n  line 3 .*\n  line 5 .*\n  line 8 "),
        ("1\t20\n" + "Cy\t1\n" * 40, r"40 malformed lines:(\n  line \d+ .*){10}\n  and 30 more$"),
    ],
)
def test_malformed_lines_are_named(lfw, text, message):
    with pytest.raises(ValueError, match=message):
        read_lfw_pairs(write(lfw, text), lfw, (8, 8))


def test_missing_and_broken_images_are_named(lfw):
    path = write(lfw, VIEW_2)
    (lfw / "Cy" / "Cy_0002.jpg").unlink()
    (lfw / "Gus" / "Gus_0001.jpg").rename(lfw / "Gus" / "Gus_1.jpg")
    with pytest.raises(ValueError, match=r"the 9 images that .* names; 2 missing: .*Cy_0002\.jpg, .*Gus_0001\.jpg$"):
        read_lfw_pairs(path, lfw, (8, 8))
    with pytest.raises(ValueError, match="9 missing"):
        read_lfw_pairs(path, lfw, (8, 8), extension=".png")
    (lfw / "Cy" / "Cy_0002.jpg").write_text("no image")
    (lfw / "Gus" / "Gus_1.jpg").rename(lfw / "Gus" / "Gus_0001.jpg")
    with pytest.raises(ValueError, match=r"1 of 9 files are not:\n.*Cy_0002\.jpg"):
        read_lfw_pairs(path, lfw, (8, 8))
    with pytest.raises(ValueError, match="`root` must be a folder"):
        read_lfw_pairs(path, lfw / "none", (8, 8))
    with pytest.raises(FileNotFoundError):
        read_lfw_pairs(lfw / "none.txt", lfw, (8, 8))


def test_links_out_of_the_folder_are_refused(lfw, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x.jpg"
    (lfw / "Cy" / "Cy_0002.jpg").rename(outside)
    (lfw / "Cy" / "Cy_0002.jpg").symlink_to(outside)
    with pytest.raises(ValueError, match=r"Cy_0002\.jpg: outside `root`"):
        read_lfw_pairs(write(lfw, VIEW_2), lfw, (8, 8))


def test_the_naive_reader_would_notice_swapped_folds_and_labels(lfw, monkeypatch):
    parse = explicit.parse_lfw_lines
    path = write(lfw, VIEW_2)
    for broken in (
        lambda left, right, same, fold: (left, right, same, [0] * len(fold)),
        lambda left, right, same, fold: (left, right, sorted(same), fold),
        lambda left, right, same, fold: (right, left, same, fold),
    ):
        monkeypatch.setattr(explicit, "parse_lfw_lines", lambda *lines, broken=broken: broken(*parse(*lines)))
        with pytest.raises(AssertionError):
            read = read_lfw_pairs(path, lfw, (8, 8), "grayscale")
            pixels = read.x[:].mean(axis=(1, 2, 3)).round().astype(int)
            got = list(zip(pixels[read.left], pixels[read.right], read.same, read.fold, strict=True))
            assert got == naive_lfw(VIEW_2)


def test_the_class_and_the_function_are_one():
    assert type(pairs()) is ExplicitPairs
    assert_same_batches(in_order(ExplicitPairs(X, LEFT, RIGHT, SAME, seed=2)), in_order(pairs(seed=2, batch_size=32)))
