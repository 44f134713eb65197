"""Every function of `verification` with unusual arrays."""

import inspect

import numpy as np
import pytest

from keras_siamese import verification
from tests.support.unusual import Room, arguments, taking

N = 40
RNG = np.random.default_rng(0)
SAME = np.arange(N) % 2 == 0
GIVEN = {
    "same": SAME,
    "scores": (RNG.normal(size=N) + SAME).astype("float32"),
    "embeddings": RNG.normal(size=(N, 4)).astype("float32"),
    "labels": np.arange(N) // 4,
    "quality": RNG.normal(size=N).astype("float32"),
    "ranges": np.array([[-2.0] * 4, [2.0] * 4], "float32"),
    "far": 0.1,
    "threshold": 0.3,
}


def calls():
    """The functions whose arguments are known here, with these arguments alone."""
    found = {}
    for name in verification.__all__:
        function = getattr(verification, name)
        if not inspect.isclass(function) and not name.startswith("plot"):
            wanted = arguments(function)
            if set(wanted) <= set(GIVEN) and any(isinstance(GIVEN[one], np.ndarray) for one in wanted):
                found[name] = taking(wanted, function)
    return found


def counted(same, scores):
    histogram = verification.ScoreHistogram(-10, 10)
    histogram.add(same, scores)
    return histogram.eer()


def spread(embeddings, labels):
    return verification.compare_shards(embeddings, labels, progress=False).eer()


def rates_of_groups(same, scores, labels):
    report = verification.compare_groups(same, scores, labels, threshold=0.3, samples=10)
    return float(np.mean([one.fnmr.estimate for one in report.groups if one.fnmr is not None]))


def searched(embeddings, labels):
    """Searches of a gallery in which the first half of the identities is enrolled."""
    labels = np.asarray(labels)
    return verification.evaluate_open_set(embeddings, labels, GIVEN["embeddings"][:20], GIVEN["labels"][:20]).missed


CODES = verification.quantize_embeddings(GIVEN["embeddings"])
OTHERS = {
    "compare_groups": rates_of_groups,
    "evaluate_open_set": searched,
    "error_versus_discard": lambda same, scores, quality: verification.error_versus_discard(
        same, scores, quality, far=0.1
    ).fnmr[-1],
    "dequantize_embeddings": lambda ranges: verification.dequantize_embeddings(CODES, ranges=ranges),
    "quantize_embeddings.ranges": lambda embeddings, ranges: verification.quantize_embeddings(
        embeddings, ranges=ranges
    ),
    "quantization_cost": lambda embeddings, labels: verification.quantization_cost(
        embeddings, labels, samples=4
    ).to_dict(),
    "compare_shards": spread,
    "search_embeddings": lambda embeddings: float(verification.search_embeddings(embeddings).scores.mean()),
    "ScoreHistogram": counted,
    "bootstrap": lambda same, scores: verification.bootstrap(["eer"], same, scores, samples=20),
}
ROOMS = {
    "verification": Room(
        calls() | OTHERS, GIVEN, also=("files", "groups", "probes", "probe_labels", "queries", "distance")
    )
}


@pytest.mark.parametrize("name", ROOMS["verification"].calls)
def test_each_case_is_answered_or_refused_by_name(name):
    assert ROOMS["verification"].wrong(name) == {}


def test_there_are_many_cases():
    assert len(list(ROOMS["verification"].cases())) >= 300
