"""The order of the findings: stages, from the data to the decision, and which stage explains which.

A run goes through stages: what it is given (data, labels, inputs), what training does with it (the objective, the
optimisation), what comes out (generalisation), and how that is used (decision). A fault of a stage shows in the stages
after it: embeddings collapse since the margin is too small, features look weak since labels are inverted. So a cause
explains every finding of a later stage. It explains nothing in the other stages of what is given, which do not depend
on each other. A cause that is about figures alone (leakage, threshold) explains nothing, and neither do the causes
of generalisation, which say what is left when training itself did its part.

    rank([weak_features, margin])       # margin first; weak_features is marked as explained by it, and only "info"
"""

from dataclasses import replace

SEVERITIES = ("info", "warning", "error")
GIVEN = ("data", "labels", "inputs")
TRAINING = ("objective", "optimisation")
STAGES = (*GIVEN, *TRAINING, "generalisation", "decision")
# Causes of one stage explain each other only where one is known to bring the other about:
WITHIN = {
    "pair_imbalance": ("mining",),  # where one kind of pair is rare, few of the pairs shown are hard
    "inverted_labels": ("label_noise",),  # of inverted pairs, the genuine ones score as impostors do
    "collapse": ("learning_rate",),  # a step that collapses the embedding is a large one
}


def explains(finding, other):
    """Whether `finding` explains `other` as well."""
    if other.cause in WITHIN.get(finding.cause, ()):
        return True
    if not finding.explains_flag or finding.stage not in GIVEN + TRAINING or other.stage in GIVEN:
        return False
    return STAGES.index(finding.stage) < STAGES.index(other.stage)


def rank(findings):
    """Sorts findings: most severe first, then strongest. A finding that another one explains comes last, marked with
    that cause and only "info".
    """
    findings = sorted(findings, key=lambda finding: (-SEVERITIES.index(finding.severity), -finding.strength))
    ranked = []
    for finding in findings:
        by = next((other.cause for other in findings if explains(other, finding)), None)
        ranked.append(replace(finding, explained_by=by, severity="info") if by else finding)
    return sorted(ranked, key=lambda finding: finding.explained_by is not None)
