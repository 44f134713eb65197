"""Facts of what training and held-out data share: identities by name, copies of samples."""

import numpy as np

from keras_siamese.data.leakage import check_leakage
from keras_siamese.data.sources import count_samples
from keras_siamese.diagnosis.facts.embeddings import normalised
from keras_siamese.diagnosis.facts.verification import below

MOST_COMPARED = 200_000_000  # bytes of training samples; of more, only the scored ones are searched for duplicates


def of_leakage(observed):
    """What training and held-out data share, and the held-out rows that are copies."""
    train, valid = observed.train, observed.valid
    if train is None:
        return {}, {}
    found = {}
    if observed.valid_names is not None and observed.train_names is not None:
        names = [observed.train_names[train.trials.identities], observed.valid_names[valid.trials.identities]]
        shared = shared_names(*names)
        found["shared_names"] = len(shared)
        if len(shared):
            if valid.embeddings.shape[1]:
                found["shared_auc"] = shared_auc(train.embeddings, names[0], valid.embeddings, names[1])
            found["shared_share"] = np.mean(np.isin(names[1], shared))
    x, held_out = observed.train_items, valid.trials.items
    if isinstance(x, dict) or x.shape[1:] != held_out.shape[1:] or x.dtype.kind not in "fiub":
        return found, {}
    if x.dtype.itemsize * np.prod(x.shape, dtype=float) > MOST_COMPARED:
        x = train.trials.items
    report, count = check_leakage((x, None), (held_out, None)), count_samples(held_out)
    found["duplicates"], found["near_duplicates"] = len(report.exact) / count, len(report.near) / count
    rows = sorted({*report.exact[:, 1].tolist(), *report.near[:, 1].tolist()})
    return found, {"duplicates": rows} if rows else {}


def shared_names(train_names, valid_names):
    """The names that both sides have; none if the names of the two sides are of different kinds."""
    kinds = {train_names.dtype.kind, valid_names.dtype.kind}
    return np.intersect1d(train_names, valid_names) if len(kinds) == 1 or kinds <= set("iu") else train_names[:0]


def shared_auc(train, train_names, valid, valid_names):
    """AUC of the cosine between rows of `train` and of `valid`, those with equal names against those with different
    ones. It tells whether a name means the same identity on both sides: about ½ if each side was numbered by itself.
    None if this cannot be measured. `train` and `valid` are embeddings `(n, dim)` and `(m, dim)`, the names their
    identities as the user gave them.
    """
    shared = shared_names(train_names, valid_names)
    if not len(shared):
        return None
    rows = [np.isin(names, shared) for names in (train_names, valid_names)]
    same = train_names[rows[0]][:, None] == valid_names[rows[1]]
    if same.all() or not same.any():
        return None
    similarity = normalised(train[rows[0]]) @ normalised(valid[rows[1]]).T
    return float(below(np.sort(similarity[~same]), similarity[same]).mean())
