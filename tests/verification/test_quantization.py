"""Codes of embeddings against loops over single numbers, and the cost of the codes against their own pairs."""

import json

import numpy as np
import pytest

from keras_siamese.verification import (
    bootstrap,
    dequantize_embeddings,
    eer,
    embedding_ranges,
    quantization_cost,
    quantize_embeddings,
)


def code_of(x, least, largest):
    """The byte of one number as in sentence-transformers: the step that it lies in."""
    step = (np.float32(largest) - np.float32(least)) / np.float32(255)
    step = np.float32(1) if step == 0 else step
    return int(min(max(np.floor((np.float32(x) - np.float32(least)) / step), 0), 255))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", [True, False])
def test_bytes_are_those_of_the_loop(given, dtype, rng):
    z = rng.normal(size=(40, 5))
    z[:, 4] = np.linspace(0, 255, 40).round() / 255 * 2 + 1  # at the ends of steps, where float32 rounds up or down
    z = z.astype(dtype)  # float64 has the codes of float32
    z[:, 3] = 0.25  # a constant
    ranges = np.stack([[-1, -2, -0.5, 0, 1], [1, 0.5, 0.5, 1, 3]]).astype("float32") if given else None
    least, largest = ranges if given else (z.min(axis=0), z.max(axis=0))
    wanted = [[code_of(x, least[d], largest[d]) for d, x in enumerate(row)] for row in z]
    found = quantize_embeddings(z, "uint8", ranges)
    assert found.dtype == np.uint8 and found.tolist() == wanted
    assert {0, 255} <= set(found.ravel().tolist())
    signed = quantize_embeddings(z, "int8", ranges)
    assert signed.dtype == np.int8
    np.testing.assert_array_equal(signed.astype(int), found.astype(int) - 128)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_codes_are_those_that_sentence_transformers_gave(dtype):
    """Version 6.2, with these ranges: values within them, at their ends and outside, and a constant dimension."""
    z = [[-1.2, -1.0, 0.3, 7.0], [-0.6, -0.51, 0.1, 7.5], [-0.2, 0.003, -0.1, 6.0], [2.0, 1.55, 0.7, 9.0]]
    ranges = [[-1, -1, -0.5, 7], [1, 1.55, 0.52, 7]]
    z = np.array(z, dtype)
    wanted = [[-128, -128, 72, -128], [-78, -79, 22, -128], [-27, -28, -28, -128], [127, 127, 127, -126]]
    assert quantize_embeddings(z, "int8", ranges).tolist() == wanted
    assert quantize_embeddings(z, "binary").tolist() == [[-80], [-80], [-48], [112]]


@pytest.mark.parametrize("dim", [3, 8, 13])
def test_bits_are_those_of_the_loop(dim, rng):
    z = rng.normal(size=(20, dim))
    z[0, 0] = 0.0  # no bit
    wanted = []
    for row in z:
        bits = [int(x > 0) for x in row] + [0] * (-dim % 8)
        wanted.append([int("".join(map(str, bits[i : i + 8])), 2) for i in range(0, len(bits), 8)])
    found = quantize_embeddings(z, "ubinary")
    assert found.dtype == np.uint8 and found.tolist() == wanted
    signed = quantize_embeddings(z, "binary")
    assert signed.dtype == np.int8
    np.testing.assert_array_equal(signed.astype(int), found.astype(int) - 128)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_bytes_come_back_within_half_a_step(precision, rng):
    z = rng.normal(size=(60, 4)).astype("float32")
    ranges = embedding_ranges(z)
    back = dequantize_embeddings(quantize_embeddings(z, precision, ranges), precision, ranges)
    step = (ranges[1] - ranges[0]) / 255
    assert back.dtype == np.float32
    assert np.all(np.abs(back - z) <= 0.5001 * step + 1e-6)


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_the_cosine_distance_of_bits_is_the_hamming_distance(precision, rng):
    z = rng.normal(size=(9, 11))
    back = dequantize_embeddings(quantize_embeddings(z, precision), precision, dim=11)
    np.testing.assert_array_equal(back, np.where(z > 0, 1, -1))
    hamming = np.array([[sum((a > 0) != (b > 0) for a, b in zip(x, y, strict=True)) for y in z] for x in z])
    np.testing.assert_allclose(1 - back @ back.T / 11, 2 * hamming / 11, atol=1e-6)


# What it costs


def digits(rng, identities=40, samples=5, dim=24):
    labels = rng.permutation(np.repeat(np.arange(identities), samples))
    return rng.normal(size=(identities, dim))[labels] + 1.3 * rng.normal(size=(len(labels), dim)), labels


def eer_by_hand(z, labels):
    """Of all pairs, by the cosine; by the Hamming distance if `z` holds booleans."""
    left, right = np.triu_indices(len(z), 1)
    if z.dtype == bool:
        return eer(labels[left] == labels[right], -np.sum(z[left] != z[right], axis=1)), left, right
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return eer(labels[left] == labels[right], np.sum(z[left] * z[right], axis=1)), left, right


def test_each_row_is_the_eer_of_what_is_stored(rng):
    z, labels = digits(rng)
    ranges = embedding_ranges(z + 0.1)
    report = quantization_cost(z, [f"id {label}" for label in labels], dims=[24, 8], ranges=ranges, samples=20)
    found = {(row.precision, row.dim): row for row in report.rows}
    assert list(found) == [(one, dim) for dim in (24, 8) for one in ("float32", "int8", "binary")]
    assert [row.size for row in report.rows] == [96, 24, 3, 32, 8, 1]
    whole = eer_by_hand(z, labels)[0]
    for (precision, dim), row in found.items():
        stored = z[:, :dim]
        if precision == "int8":
            least, largest = ranges[:, :dim]
            codes = np.array([[code_of(x, least[d], largest[d]) for d, x in enumerate(one)] for one in stored])
            stored = (codes + 0.5) * (largest - least) / 255 + least
        elif precision == "binary":
            stored = stored > 0
        wanted = eer_by_hand(stored, labels)[0]
        assert row.eer.estimate == pytest.approx(wanted, abs=1e-4)
        assert row.difference.estimate == pytest.approx(wanted - whole, abs=1e-4)
    assert (report.genuines, report.impostors, report.identities) == (400, 19_500, 40)


def test_the_interval_of_a_difference_is_paired(rng):
    z, labels = digits(rng)
    report = quantization_cost(z, labels, samples=60)
    whole, small, bits = report.rows
    assert np.all(whole.difference.replicates == 0)
    assert small.difference.standard_error < 0.2 * np.hypot(whole.eer.standard_error, small.eer.standard_error)
    assert bits.difference.low > 0.01 > small.difference.high
    _, left, right = eer_by_hand(z, labels)
    order = np.lexsort((right, left))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    scores = np.sum(unit[left] * unit[right], axis=1)[order]
    left, right = left[order], right[order]
    own = bootstrap(["eer"], labels[left] == labels[right], scores, labels[left], labels[right], samples=60)["eer"]
    assert (whole.eer.low, whole.eer.high) == pytest.approx((own.low, own.high), abs=1e-6)


def test_many_pairs_are_drawn(rng, monkeypatch):
    monkeypatch.setattr("keras_siamese.verification.quantization.MAX_PAIRS", 2000)
    report = quantization_cost(*digits(rng), ["int8"], samples=5)
    assert (report.genuines, report.impostors) == (400, 1600)


def test_cut_embeddings_are_compared_with_whole_ones(rng):
    report = quantization_cost(*digits(rng), ["binary"], dims=[4], samples=20)
    assert [(row.precision, row.dim) for row in report.rows] == [("float32", 24), ("float32", 4), ("binary", 4)]
    assert report.rows[1].difference.low > 0


def test_the_table_and_json(rng):
    report = quantization_cost(*digits(rng), samples=20)
    lines = str(report).splitlines()
    assert lines[0].split() == ["dim", "bytes", "EER", "more", "than", "float32", "95%", "interval"]
    assert "99.5% interval" in str(quantization_cost(*digits(rng), confidence=0.995, samples=2))
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["float32", "24", "96"],
        ["int8", "24", "24"],
        ["binary", "24", "3"],
    ]
    assert lines[-1] == "400 genuine and 19,500 impostor pairs of 40 identities"
    written = json.loads(json.dumps(report.to_dict()))
    assert written[2]["difference"]["low"] == report.rows[2].difference.low
    assert set(written[0]) == {"precision", "dim", "bytes", "eer", "difference"}


# Bad input

Z = np.eye(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantize_embeddings(Z, "int4"), ValueError, "`precision` must be one of 'int8', 'uint8', 'binary'"),
        (lambda: quantize_embeddings(Z, "binary", [[0] * 3, [1] * 3]), ValueError, "`ranges` must be None with"),
        (lambda: quantize_embeddings(Z, ranges=[[0] * 2, [1] * 2]), ValueError, "one column for each of the 3 dim"),
        (lambda: quantize_embeddings(Z, ranges=[0, 1]), ValueError, r"`ranges` must have shape \(2, dim\)"),
        (lambda: quantize_embeddings(Z, ranges=[[1] * 3, [0] * 3]), ValueError, "`ranges` must hold the least values"),
        (lambda: quantize_embeddings(Z[:1]), ValueError, "`embeddings` must be at least 2 for their ranges; got 1"),
        (lambda: dequantize_embeddings(Z, "int8", [[0] * 3, [1] * 3]), ValueError, "`codes` must be int8 of shape"),
        (lambda: dequantize_embeddings(Z.astype("int8")), ValueError, "`ranges` must be those with which"),
        (lambda: dequantize_embeddings(Z.astype("int8"), "binary", dim=16), ValueError, "`dim` must be at least 17"),
        (lambda: quantization_cost(Z, [0, 0, 1, 1], ["uint8"]), ValueError, "`precisions` must be one of 'int8', 'bin"),
        (lambda: quantization_cost(Z, [0, 0, 1, 1], "int8"), ValueError, "`precisions` must be a list or tuple"),
        (lambda: quantization_cost(Z, [0, 0, 1, 1], dims=[4]), ValueError, "`dims` must be at most 3; got 4"),
        (lambda: quantization_cost(Z, [0, 1, 2, 3]), ValueError, "`labels` must give pairs of both classes; got 0 gen"),
        (lambda: quantization_cost(Z, [0, 0, 1]), ValueError, "`labels` must have one entry for each of the 4"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_dimension_that_never_varies_keeps_its_value():
    """As after a ReLU that is never active; half a step more would make all embeddings alike."""
    z = np.random.default_rng(0).uniform(size=(30, 4)).astype("float32")
    z[:, 1], z[:, 3] = 0.0, -0.25
    ranges = embedding_ranges(z)
    back = dequantize_embeddings(quantize_embeddings(z, "uint8", ranges), "uint8", ranges)
    np.testing.assert_array_equal(back[:, [1, 3]], z[:, [1, 3]])
    np.testing.assert_allclose(back, z, atol=1 / 510 + 1e-6)
