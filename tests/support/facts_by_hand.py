"""Facts of a healthy run, written by hand, and what has to change in them for each cause to be found."""

from dataclasses import replace

from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.facts.table import Facts

WORDS = {"loss": "ContrastiveLoss", "distance": "EuclideanDistance()", "output": "distance"}
HEALTHY = {
    "flagged": 0, "recovered": 0, "verifies_badly": 0, "epochs": 20, "auc": 0.95, "auc_se": 0.01, "eer": 0.12,
    "eer_se": 0.01, "below_chance": -45.0, "below_chance_critical": 3.1, "pairs": 5000, "identities": 60,
    "spread": 0.8, "spacing": 0.9,
    "effective_rank": 14, "embedding_dim": 32, "norm_variation": 0.0, "eer_cosine": 0.12, "eer_euclidean": 0.12,
    "swap_gain": 0.0, "swap_gain_low": 0.0, "train_eer": 0.08, "train_eer_se": 0.005, "train_auc": 0.97,
    "train_below_chance": -80.0, "train_below_chance_critical": 3.1, "gap": 0.04, "train_identities": 150,
    "untrained_eer": 0.35, "untrained_distance": 1.0, "impostor_distance": 1.2, "margin": 1.0, "reach": 2.0,
    "active_impostors": 0.4, "genuine_loss": 0.1, "impostor_loss": 0.07, "weighted_positive_fraction": 0.5,
    "drawn_auc": 0.97, "share_of_two": 0.02, "effective_identities": 148, "drawn_identities": 150, "input_scale": 0.5,
    "drawn_towers": 0.0, "detail": 0.9, "trainable_share": 1.0, "unshared": 0.0, "batch_normalization": 0.0,
    "learning_rate": 1e-3, "update_size_first": 0.15, "update_size_largest": 0.15, "update_size_last": 0.05,
    "impostor_like": 0.0, "impostor_like_se": 0.0, "impostor_like_held_out": 0.0, "impostor_like_held_out_se": 0.0,
    "suspected_labels": 0.0, "duplicates": 0.0, "near_duplicates": 0.0, "shared_names": 0, "loss_similar_label": 1,
    "pairs_similar_label": 1, "batch_identities": 100, "head_is_scalar": 0.0, "learned_head": 0.0, "equal_end": -1.0,
    "wanted_end": -1.0, "output_low": 0.0, "output_high": 4000.0, "out_of_reach": 0.0, "out_of_reach_least": 0.0,
    "out_of_reach_label": 0.0, "loss_falls_for_ever": 0.0, "least_loss": 0.0, "wants_distance": 1.0,
    "wants_probability": 0.0, "cut_off_share": 0.0, "stuck_share": 0.0, "loss_of_package": 1.0,
}  # fmt: skip
BAD = {"eer": 0.35, "train_eer": 0.33, "train_auc": 0.72, "drawn_auc": 0.72, "auc": 0.7, "verifies_badly": 1}
SIGNS = {
    "memorising": {"eer": 0.32, "train_eer": 0.01, "gap": 0.31},
    "weak_features": {**BAD},
    "inverted_labels": {**BAD, "auc": 0.48, "train_auc": 0.42, "below_chance": 1.0, "train_below_chance": 9.0},
    "label_noise": {**BAD, "eer": 0.2, "train_eer": 0.28, "impostor_like": 0.3, "impostor_like_se": 0.02},
    "leakage": {"duplicates": 0.3},
    "collapse": {**BAD, "spread": 0.02, "spacing": 0.02},
    "margin": {**BAD, "margin": 0.01},
    "frozen_part": {**BAD, "trainable_share": 0.05, "own_eer": 0.33, "fresh_eer": 0.34},
    "nan_gradient": {"not_finite": 1, "nan_at_equal": 1.0, "nan_at_zero": 0.0, "equal_pairs": 15, "zero_pairs": 0},
    "learning_rate": {**BAD, "update_size_first": 3e-5, "update_size_largest": 3e-5, "update_size_last": 3e-5},
    "mining": {**BAD, "drawn_auc": 1.0},
    "pair_imbalance": {**BAD, "weighted_positive_fraction": 0.01, "genuine_loss": 0.9},
    "identity_imbalance": {"eer": 0.3, "train_eer": 0.05, "gap": 0.25, "share_of_two": 0.9,
                           "effective_identities": 2.5},
    "input_scale": {**BAD, "input_scale": 110.0},
    "unshared_weights": {**BAD, "unshared": 1.0},
    "batch_norm": {"eer": 0.3, "batch_normalization": 1.0, "mode_gap": 0.2, "mode_eer_training": 0.05,
                   "mode_eer_inference": 0.25},
    "wrong_distance": {"eer": 0.2, "eer_cosine": 0.1, "swap_gain": 0.1, "swap_gain_low": 0.08, "norm_variation": 0.6},
    "unreachable_output": {**BAD, "output_low": 0.5, "output_high": 1.0, "out_of_reach": 1.0},
    "head_sign": {**BAD, "head_is_scalar": 1.0, "learned_head": 1.0, "equal_end": 1.0},
    "loss_mismatch": {"eer": 0.2, "train_eer": 0.15, "wants_distance": 0.0, "wants_probability": 1.0,
                      "cut_off_share": 0.1},
    "preprocessing_mismatch": {"eer": 0.4, "gap": 0.3, "held_out_spread": 1.6, "held_out_shift": 80.0,
                               "held_out_difference": 0.9, "turned": 0.0, "swapped_channels": 0.0},
    "pair_construction": {"eer": 0.4, "identical_genuine": 1.0},
    "threshold": {"threshold": -0.5, "accuracy_lost": 0.2, "best_accuracy": 0.9, "accuracy_se": 0.01},
}  # fmt: skip


def examined(**changes):
    """`(findings, others)` of the healthy facts with `changes`."""
    return causes.examine(facts(**changes))


def facts(**changes):
    """The healthy `Facts` with `changes`; None takes a fact away."""
    numbers = {**HEALTHY, **changes}
    return Facts({name: value for name, value in numbers.items() if value is not None}, WORDS)


def answer(name, rows=None, **changes):
    """What the cause `name` alone answers to the healthy facts with its signs and `changes`, and with `rows` of the
    training data by name.
    """
    cause = next(cause for cause in causes.CAUSES if cause.name == name)
    return cause.examine(replace(facts(**{**SIGNS[name], **changes}), rows=rows or {}))


def severity_and_strength(name, **changes):
    """Of the finding of the cause `name`, rounded; None if it is ruled out."""
    found = answer(name, **changes)
    return (found.severity, round(found.strength, 3)) if isinstance(found, causes.Finding) else None
