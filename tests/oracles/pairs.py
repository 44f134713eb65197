"""Slow, obvious loops to compare the margin loss and the mining of hard pairs with.

Contract: no NumPy broadcasting, nothing of the package; distances are floats, everything is float64. A `wrong_…` is the
mistake that is easily made: the tests show that the oracle beside it tells the two apart.
"""


def margin_loss(same, d, margin=0.2, beta=1.2):
    """A genuine pair pays beyond β − m, an impostor pair within β + m."""
    return max(d - (beta - margin), 0.0) if same else max((beta + margin) - d, 0.0)


def wrong_margin_loss(same, d, margin=0.2, beta=1.2):
    """The margin on the side on which it does not ask for more."""
    return margin_loss(same, d, -margin, beta)


def online_contrastive(same, distances, margin=0.5):
    """The terms of all pairs, 0 where the pair is already in order."""
    genuine = [d for s, d in zip(same, distances, strict=True) if s]
    impostor = [d for s, d in zip(same, distances, strict=True) if not s]
    closest_impostor = min(impostor) if impostor else sum(genuine) / len(genuine)
    farthest_genuine = max(genuine) if genuine else sum(impostor) / len(impostor)
    terms = []
    for s, d in zip(same, distances, strict=True):
        if s:
            terms.append(d**2 if d > closest_impostor else 0.0)
        else:
            terms.append(max(margin - d, 0.0) ** 2 if d < farthest_genuine else 0.0)
    return terms


def wrong_online_contrastive(same, distances, margin=0.5):
    """Each kind compared with the other's easiest pair in place of its hardest."""
    genuine = [d for s, d in zip(same, distances, strict=True) if s]
    impostor = [d for s, d in zip(same, distances, strict=True) if not s]
    return [
        (d**2 if d > max(impostor) else 0.0) if s else (max(margin - d, 0.0) ** 2 if d < min(genuine) else 0.0)
        for s, d in zip(same, distances, strict=True)
    ]


def sentence_transformers(same, distances, margin=0.5):
    """The sum that sentence-transformers takes, its own mean standing for a single pair of the other kind."""
    genuine = [d for s, d in zip(same, distances, strict=True) if s]
    impostor = [d for s, d in zip(same, distances, strict=True) if not s]
    near = max(genuine) if len(genuine) > 1 else sum(impostor) / len(impostor)
    far = min(impostor) if len(impostor) > 1 else sum(genuine) / len(genuine)
    pulled = sum(d**2 for d in genuine if d > far)
    return pulled + sum(max(margin - d, 0.0) ** 2 for d in impostor if d < near)
