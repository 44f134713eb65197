"""The order of the findings: stages, from the data to the decision, and which stage explains which.

A run goes through stages: what it is given (data, labels, inputs), what training does with it (the objective, the
optimisation), what comes out (generalisation), and how that is used (decision). A fault of one stage is also visible in
later stages: embeddings collapse because the margin is too small, features look weak because labels are inverted. So a
cause explains every finding of a later stage. However, data, labels and inputs do not depend on each other, so they do
not explain each other. Causes of figures that are wrong (leakage, threshold) explain nothing; nor do the causes of
generalisation, which apply if training itself worked.

    rank([weak_features, margin])       # margin first; weak_features is marked as explained by it, and only "info"
"""

from dataclasses import replace

SEVERITIES = ("info", "warning", "error")
GIVEN = ("data", "labels", "inputs")
TRAINING = ("objective", "optimisation")
STAGES = (*GIVEN, *TRAINING, "generalisation", "decision")
# Causes of one stage explain each other only if one is known to lead to the other:
WITHIN = {
    "pair_imbalance": ("mining",),  # if one kind of pair is rare, few of the pairs shown are hard
    "inverted_labels": ("label_noise",),  # with inverted labels, genuine pairs score as impostors do
    "preprocessing_mismatch": ("input_scale",),  # held-out inputs on another scale than those of training
    "pair_construction": ("label_noise",),  # labels that do not follow the pairs look like noise
    "collapse": ("learning_rate",),  # a step that collapses the embedding is a large one
}
# Causes of the objective that rank pairs worse than chance, which looks like causes of an earlier stage:
LOOKS_LIKE = dict.fromkeys(("unreachable_output", "head_sign", "loss_mismatch"), ("inverted_labels", "label_noise"))


def explains(finding, other):
    """Whether the cause of `finding` also explains `other`."""
    if other.cause in LOOKS_LIKE.get(finding.cause, ()):
        return True
    if finding.cause in LOOKS_LIKE.get(other.cause, ()):
        return False
    if other.cause in WITHIN.get(finding.cause, ()) and finding.stage == other.stage:
        return True
    if not finding.explains_flag or finding.stage not in GIVEN + TRAINING or other.stage in GIVEN:
        return False
    if other.stage == "decision" and other.severity == "error":  # a metric contradicts the scores
        return finding.cause in LOOKS_LIKE or finding.stage == "labels"
    return STAGES.index(finding.stage) < STAGES.index(other.stage)


def rank(findings):
    """Sorts findings: the most severe first, then the strongest. A finding that another one explains comes last, with
    that cause in `explained_by` and the severity "info". What is information only explains nothing.
    """
    findings = sorted(findings, key=lambda finding: (-SEVERITIES.index(finding.severity), -finding.strength))
    ranked = []
    for finding in findings:
        by = next((one.cause for one in findings if one.severity != "info" and explains(one, finding)), None)
        ranked.append(replace(finding, explained_by=by, severity="info") if by else finding)
    return sorted(ranked, key=lambda finding: finding.explained_by is not None)
