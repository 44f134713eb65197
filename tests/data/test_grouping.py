"""Which identities are drawn together: those of a loop over distances, equally often, and once in a batch."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese.data.grouping import draw_near, nearest_identities


def test_the_nearest_identities_are_those_of_a_loop(rng):
    codes = rng.permutation(np.repeat(np.arange(9), rng.integers(1, 6, 9)))
    embeddings = rng.normal(size=(len(codes), 4)).astype("float32") + 100
    means = [embeddings[codes == code].astype("float64").mean(axis=0) for code in range(9)]
    apart = np.array([[np.sum((a - b) ** 2) for b in means] for a in means])
    for code, near in enumerate(nearest_identities(embeddings, codes, (1, 4))):
        others = sorted((other for other in range(9) if other != code), key=lambda other: apart[code, other])
        assert near.tolist() == others[1:4]
    assert nearest_identities(embeddings, codes, (0, 50)).shape == (9, 8)
    assert nearest_identities(embeddings, codes, (8, 50)).shape == (9, 0)


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(2, 14),
    per_batch=st.integers(2, 8),
    batches=st.integers(1, 20),
    near=st.integers(0, 5),
    seed=st.integers(0, 2**40),
)
def test_near_identities_are_drawn_equally_often_and_once_in_a_batch(total, per_batch, batches, near, seed):
    if per_batch > total:
        return
    rng = np.random.default_rng(seed)
    members = np.sort(rng.choice(20, total, replace=False))
    around = np.stack([rng.permutation(members)[: min(near, total)] for _ in range(20)])
    chosen = draw_near(rng, members, around, batches, per_batch)
    assert all(len(set(batch)) == per_batch for batch in chosen.tolist())
    counts = np.bincount(chosen.ravel(), minlength=20)
    assert np.ptp(counts[members]) <= 1
    assert set(np.flatnonzero(counts)) <= set(members.tolist())
