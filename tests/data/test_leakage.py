"""check_leakage against loops over all pairs of rows: it finds all that two sides share, and no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese.data import check_leakage, leakage

SIZE = 16


def images(rng, n, channels=None):
    return rng.random((n, SIZE, SIZE) if channels is None else (n, SIZE, SIZE, channels)).astype("float32")


def cosine(a, b):
    a, b = np.float64(a), np.float64(b)
    return 1 - float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def thumbnail(image):
    """Means of the 8 × 8 cells of a grey image minus their mean, cell by cell."""
    side = image.shape[0] // 8
    grey = np.float64(image if image.ndim == 2 else image.mean(axis=2))
    cells = [grey[side * i : side * (i + 1), side * j : side * (j + 1)].mean() for i in range(8) for j in range(8)]
    return np.array(cells) - np.mean(cells)


def nearest_by_loop(train, valid, near, skip=(), measure=cosine):
    """The nearest row of `train` within `near` for each row of `valid` not in `skip`: `{valid row: (train row, d)}`."""
    found = {}
    for j in range(len(valid)):
        distances = [measure(train[i], valid[j]) for i in range(len(train))]
        best = int(np.argmin(distances))
        if j not in skip and distances[best] <= near:
            found[j] = best, distances[best]
    return found


def assert_near(report, expected):
    assert [int(row) for row in report.near[:, 1]] == sorted(expected)
    for (a, b), distance in zip(report.near.tolist(), report.distances, strict=True):
        assert a == expected[b][0]
        assert distance == pytest.approx(expected[b][1], abs=2e-6)


# Identities


@pytest.mark.parametrize(
    ("train", "valid", "shared", "rows"),
    [
        ([3, 1, 1, 2], [5, 2, 3, 2], [2, 3], [1, 2, 3]),
        (["bo", "ada"], ["cy", "ada", "bobo"], ["ada"], [1]),
        ([1, 2], [3, 4], [], []),
    ],
)
def test_shared_identities(rng, train, valid, shared, rows):
    report = check_leakage((rng.random((len(train), 2)), train), (rng.random((len(valid), 2)), valid))
    assert report.identities.tolist() == shared
    assert report.valid_rows.tolist() == rows
    assert bool(report) == bool(shared)


def test_identities_of_two_kinds_cannot_be_compared(rng):
    with pytest.raises(ValueError, match="`train` and `valid` must have labels of one kind"):
        check_leakage((rng.random((2, 2)), [1, 2]), (rng.random((2, 2)), ["1", "3"]))


def test_without_labels_only_samples_are_compared(rng):
    x = rng.random((6, 2))
    report = check_leakage((x[:4], None), (x[3:], [1, 2, 3]))
    assert report.identities.tolist() == []
    assert report.exact.tolist() == [[3, 0]]
    assert "shared identities: labels unknown" in str(report)


# Exact duplicates


def exact_by_loop(train, valid):
    pairs = []
    for j in range(len(valid)):
        first = [i for i in range(len(train)) if np.array_equal(train[i], valid[j])][:1]
        pairs += [[i, j] for i in first]
    return pairs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 14), min_size=1, max_size=30))
def test_exact_duplicates_against_the_loop(train, valid):
    content = np.random.default_rng(3).random((15, 2, 3))
    content[4] = content[3]
    content[4, 1, 2] += 1e-12  # one bit is enough to differ
    report = check_leakage((content[train], None), (content[valid], None))
    assert report.exact.tolist() == exact_by_loop(content[train], content[valid])
    clean = np.delete(np.arange(len(valid)), report.valid_rows)
    assert not len(clean) or not check_leakage((content[train], None), (content[valid][clean], None))


def test_the_loop_rejects_a_broken_match(rng):
    x = rng.random((5, 3))
    swapped = check_leakage((x, None), (x[::-1], None)).exact[:, ::-1]
    assert exact_by_loop(x[:3], x[[4, 2]]) == [[2, 1]]
    assert exact_by_loop(x, x[[1, 0, 0]]) != check_leakage((x[::-1], None), (x[[1, 0, 0]], None)).exact.tolist()
    assert swapped.tolist() == [[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]]


def test_equal_numbers_of_two_dtypes_are_equal():
    train, valid = np.array([[0, 1], [2, 3]], "uint8"), np.array([[2.0, 3.0], [-0.0, 1.0], [2.0, 3.5]], "float64")
    assert check_leakage((train, None), (valid, None)).exact.tolist() == [[1, 0], [0, 1]]


def test_a_dict_is_equal_only_in_all_its_arrays(rng):
    x = {"image": rng.random((6, 3)), "meta": {"name": np.array(["a", "b", "c", "d", "e", "ff"])}}
    part = {"image": x["image"][[2, 3]], "meta": {"name": np.array(["c", "x"])}}
    assert check_leakage((x, None), (part, None)).exact.tolist() == [[2, 0]]


class Lazy:
    """A lazy source that records the largest number of rows read in one call."""

    def __init__(self, x):
        self.x, self.most = x, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        self.most = max(self.most, len(rows))
        return self.x[rows]


def test_lazy_and_mapped_sources_are_read_in_blocks(rng, tmp_path, monkeypatch):
    x = images(rng, 50)
    np.save(tmp_path / "x.npy", x)
    mapped, lazy = np.load(tmp_path / "x.npy", mmap_mode="r"), Lazy(x[40:])
    monkeypatch.setattr(leakage, "_BLOCK_BYTES", 4 * SIZE * SIZE * 4)
    report = check_leakage((mapped[:45], None), (lazy, None))
    assert report.exact.tolist() == [[40 + i, i] for i in range(5)]
    assert lazy.most == 4


@pytest.mark.parametrize("scale", [1, 1000])
def test_many_copies_make_few_pairs(scale):
    """Copies on both sides give one pair for each validation row, not one for each combination."""
    x = np.ones((scale, 4, 4))
    report = check_leakage((x, None), (x, None))
    assert report.exact.tolist() == [[0, i] for i in range(scale)]
    assert report.constant == 2 * scale


# Near-duplicates


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_near_duplicates_by_pixels_against_the_loop(rng, channels):
    train = images(rng, 40, channels)
    valid = images(rng, 12, channels)
    valid[2] = 0.5 * train[7] + 0.2
    valid[5] = train[11] + 0.01 * rng.normal(size=train[11].shape)
    valid[8] = 200 * train[39]
    valid[9] = train[3]
    valid[10] = np.roll(train[3], 5, axis=0)
    report = check_leakage((train, None), (valid, None))
    features = [[thumbnail(image) for image in side] for side in (train, valid)]
    assert report.exact.tolist() == [[3, 9]]
    expected = nearest_by_loop(*features, 0.002, skip=[9])
    assert set(expected) == {2, 5, 8}
    assert_near(report, expected)
    assert report.valid_rows.tolist() == [2, 5, 8, 9]


def test_uneven_sides_pool_to_the_cells_means(rng):
    image = rng.random((1, 19, 5)).astype("float32")
    edges = [[side * i // cells for i in range(cells + 1)] for side, cells in ((19, 8), (5, 5))]
    cells = [
        image[0, a:b, c:d].astype("float64").mean()
        for a, b in zip(edges[0], edges[0][1:], strict=False)
        for c, d in zip(edges[1], edges[1][1:], strict=False)
    ]
    expected = np.array(cells) - np.mean(cells)
    np.testing.assert_allclose(leakage._thumbnails(image)[0], expected / np.linalg.norm(expected), atol=1e-6)


def clustered(rng, n, dim, centres):
    return centres[rng.integers(0, len(centres), n)] + 0.3 * rng.normal(size=(n, dim))


@pytest.mark.parametrize(("dim", "near"), [(2, 0.002), (16, 0.002), (16, 0.05), (64, 0.02), (200, 0.1)])
def test_near_duplicates_by_embeddings_against_the_loop(rng, dim, near):
    centres = rng.normal(size=(20, dim))
    train, valid = clustered(rng, 300, dim, centres), clustered(rng, 80, dim, centres)
    for j in range(0, 80, 4):
        valid[j] = 3 * train[2 * j] + rng.normal(size=dim) * np.linalg.norm(train[2 * j]) * 0.5 * np.sqrt(near / dim)
    x = np.arange(380.0)[:, None]
    report = check_leakage((x[:300], None), (x[300:], None), embeddings=(train, valid), near=near)
    expected = nearest_by_loop(train, valid, near)
    assert len(expected) >= 20
    assert_near(report, expected)
    assert report.unsettled == 0
    assert report.compared == "embeddings"
    # A loop that does not divide by norms finds other pairs, so the test notices if scale matters.
    assert nearest_by_loop(train, valid, near, measure=lambda a, b: np.sum((a - b) ** 2) / 2).keys() != expected.keys()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.001, 0.01, 0.1, 0.5]), st.integers(2, 24))
def test_without_its_rows_nothing_leaks(seed, near, dim):
    rng = np.random.default_rng(seed)
    train, valid = rng.normal(size=(40, dim)), rng.normal(size=(25, dim))
    valid[:5] = train[:5] + 0.02 * rng.normal(size=(5, dim))
    x, labels = rng.integers(0, 30, (65, 1)), rng.integers(0, 60, 65)
    report = check_leakage((x[:40], labels[:40]), (x[40:], labels[40:]), embeddings=(train, valid), near=near)
    kept = np.delete(np.arange(25), report.valid_rows)
    if len(kept):
        embeddings = train, valid[kept]
        again = check_leakage(
            (x[:40], labels[:40]), (x[40:][kept], labels[40:][kept]), embeddings=embeddings, near=near
        )
        assert not again
    assert report.unsettled == 0


def test_every_planted_duplicate_is_found_among_thousands(rng):
    """Recall at distances up to the limit, in dimensions that the search tree does not use."""
    train, valid = rng.normal(size=(20_000, 64)).astype("float32"), rng.normal(size=(5_000, 64)).astype("float32")
    source = rng.permutation(20_000)[:2_000]
    angle = np.arccos(1 - rng.uniform(0, 0.00199, size=(2_000, 1)))
    unit = train[source] / np.linalg.norm(train[source], axis=1, keepdims=True)
    aside = rng.normal(size=unit.shape)
    aside -= np.sum(aside * unit, axis=1, keepdims=True) * unit
    valid[:2_000] = np.cos(angle) * unit + np.sin(angle) * aside / np.linalg.norm(aside, axis=1, keepdims=True)
    x = np.arange(25_000)
    report = check_leakage((x[:20_000], None), (x[20_000:], None), embeddings=(train, valid))
    assert report.near.tolist() == [[int(row), j] for j, row in enumerate(source)]
    np.testing.assert_allclose(report.distances, 1 - np.cos(angle[:, 0]), atol=1e-6)


def test_samples_with_too_many_candidates_are_owned_up_to(rng, monkeypatch):
    """If samples differ only in dimensions that the tree does not use, few candidates cannot settle them."""
    monkeypatch.setattr(leakage, "_PROJECTED", 1)
    monkeypatch.setattr(leakage, "_LOOKED_AT", (2,))
    train, valid = rng.normal(size=(400, 40)), rng.normal(size=(30, 40))
    x = np.arange(430)
    report = check_leakage((x[:400], None), (x[400:], None), embeddings=(train, valid), near=0.05)
    assert report.unsettled > 0
    assert f"{report.unsettled} validation samples unsettled" in str(report)
    monkeypatch.setattr(leakage, "_LOOKED_AT", (2, 400))
    settled = check_leakage((x[:400], None), (x[400:], None), embeddings=(train, valid), near=0.05)
    assert settled.unsettled == 0
    assert_near(settled, nearest_by_loop(train, valid, 0.05))


def test_a_collapsed_encoder_makes_all_nearly_the_same():
    x = np.arange(30)
    report = check_leakage((x[:20], None), (x[20:], None), embeddings=(np.ones((20, 3)), np.ones((10, 3))))
    assert report.near.tolist() == [[0, j] for j in range(10)]


def test_constant_samples_are_compared_exactly_only(rng):
    train, valid = images(rng, 6), images(rng, 4)
    train[1], train[2], valid[0], valid[3] = 0.1, 0.7, 0.7, 0.3
    report = check_leakage((train, None), (valid, None))
    assert report.exact.tolist() == [[2, 0]]
    assert len(report.near) == 0
    assert report.constant == 4


def test_what_is_no_image_is_compared_by_embeddings_only(rng):
    x = rng.random((9, 30))
    report = check_leakage((x[:5], None), (x[5:], None))
    assert report.compared is None
    assert "near-duplicates: not looked for (no images, and no embeddings given)" in str(report)


def test_near_none_looks_for_exact_duplicates_only(rng):
    x = images(rng, 4)
    report = check_leakage((x, None), (2 * x, None), near=None)
    assert not report
    assert report.compared is None
    assert check_leakage((x, None), (2 * x, None)).near.tolist() == [[i, i] for i in range(4)]


# The report, and errors


def test_the_report_reads_well(rng):
    x = images(rng, 30)
    labels = np.repeat(["ada", "bo", "cy"], 10)
    report = check_leakage((x[:20], labels[:20]), (np.concatenate([x[19:], 0.5 * x[:1]]), [*labels[19:], "di"]))
    assert str(report) == (
        "Leakage: 2 of 12 validation samples\n"
        "  shared identities: 1 (bo)\n"
        "  exact duplicates: 1 (train row 19 = valid row 0)\n"
        f"  near-duplicates: 1 (train row 0 ~ valid row 11 at {report.distances[0]:.2g}), by pixels"
    )
    assert str(check_leakage((x[:9], None), (x[9:], None))).startswith("No leakage found\n")


def test_wrong_arguments(rng):
    x = rng.random((4, 3))
    good = (x, None)
    for arguments, options, message in [
        ((x, good), {}, r"`train` must be \(x, labels\).*; got a ndarray"),
        ((good, (x, None, None)), {}, r"`valid` must be \(x, labels\).*; got a tuple of 3"),
        ((good, (x[:, :2], None)), {}, r"samples of the same shapes; got {'x': \(3,\)} and {'x': \(2,\)}"),
        ((good, ({"a": x}, None)), {}, "samples of the same shapes"),
        ((good, (x, [1, 2])), {}, "`valid labels` must have one entry for each of the 4 samples; got 2"),
        ((good, good), {"embeddings": x}, r"`embeddings` must be \(train_embeddings, valid_embeddings\)"),
        ((good, good), {"embeddings": (x, x[:3])}, r"`embeddings\[1\]` must have one row for each of the 4 samples"),
        ((good, good), {"embeddings": (x, x[:, :2])}, "`embeddings` must have the same dimension"),
        ((good, good), {"embeddings": (x, np.nan * x)}, r"`embeddings\[1\]` must be finite"),
        ((good, good), {"near": 0}, r"`near` must be in \(0, 2\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_leakage(*arguments, **options)
