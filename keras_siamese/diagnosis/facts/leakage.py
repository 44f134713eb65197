"""Facts of what training and held-out data share: identities by name, copies of samples."""

import numpy as np

from keras_siamese.data.leakage import check_leakage
from keras_siamese.data.sources import count_samples
from keras_siamese.diagnosis.facts.embeddings import normalised
from keras_siamese.diagnosis.facts.verification import below

MOST_COMPARED = 200_000_000  # bytes of samples that are searched for duplicates


def of_leakage(run):
    """What training and held-out data share."""
    train, valid = run.train, run.valid
    if train is None:
        return {}, {}
    found = {}
    if run.valid_names is not None and run.train_names is not None:
        names = [run.train_names[train.trials.identities], run.valid_names[valid.trials.identities]]
        shared = (
            np.intersect1d(*names)
            if names[0].dtype.kind == names[1].dtype.kind or ({names[0].dtype.kind, names[1].dtype.kind} <= set("iu"))
            else []
        )
        found["shared_names"] = len(shared)
        if len(shared):
            found["shared_auc"] = shared_auc(train.embeddings, names[0], valid.embeddings, names[1])
            found["shared_share"] = np.mean(np.isin(names[1], shared))
    x = run.train_items
    if isinstance(x, dict) or x.shape[1:] != valid.trials.items.shape[1:] or x.dtype.kind not in "fiub":
        return found, {}
    if x.dtype.itemsize * np.prod(x.shape, dtype=float) > MOST_COMPARED:
        x = train.trials.items
    report = check_leakage((x, None), (valid.trials.items, None))
    found["duplicates"] = len(report.exact) / count_samples(valid.trials.items)
    found["near_duplicates"] = len(report.near) / count_samples(valid.trials.items)
    rows = sorted({*report.exact[:, 1].tolist(), *report.near[:, 1].tolist()})
    return found, {"duplicates": rows} if rows else {}


def shared_auc(train, train_names, valid, valid_names):
    """Whether equal names on both sides mean the same: AUC of the cosine between rows of `train` and of `valid`, those
    with one name against those with two. ½ where the sides were numbered each by itself; None without shared names.

    Args:
        train, valid: embeddings `(n, dim)`, `(m, dim)`.
        train_names, valid_names: their identities as they were given.
    """
    train_names, valid_names = np.asarray(train_names), np.asarray(valid_names)
    if train_names.dtype.kind in "US" and valid_names.dtype.kind not in "US":
        return None
    rows = [np.isin(names, np.intersect1d(train_names, valid_names)) for names in (train_names, valid_names)]
    if not rows[0].any() or (valid_names.dtype.kind in "US" and train_names.dtype.kind not in "US"):
        return None
    similarity = normalised(train[rows[0]]) @ normalised(valid[rows[1]]).T
    same = train_names[rows[0]][:, None] == valid_names[rows[1]]
    if same.all() or not same.any():
        return None
    return float(below(np.sort(similarity[~same]), similarity[same]).mean())
