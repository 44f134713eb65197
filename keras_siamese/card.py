"""The model card of a verifier: what it is for and what was measured, in the format of the Hugging Face Hub.

Contract: a `Verifier`, and reports of its tests if there are any, in; Markdown with a YAML head out. Every number is
one that was measured. What was not measured is named. `verifier` imports this module.

    text = card_of(verifier, report=verifier.evaluate(x_test, labels_test), dataset="Omniglot, evaluation alphabets")
"""

import json
import math

from keras_siamese.scoring import negated
from keras_siamese.verification.evidence import in_words, of_negatives

METRICS = {"eer": "EER", "auc": "AUC", "fmr": "FMR", "fnmr": "FNMR", "balanced_accuracy": "Balanced accuracy"}
FIGURES = {"eer": "EER", "fmr": "FMR at the threshold", "fnmr": "FNMR at the threshold"}
USE = """```python
import keras_siamese as ks

verifier = ks.Verifier.load("verifier.keras")
verifier.verify(left, right)  # whether each pair is of the same identity, (n,) bool
verifier.probability(left, right)  # probability of the same identity, (n,)
```"""


def card_of(verifier, report=None, groups=None, *, name="Verifier", dataset=None, description=None, license=None):
    """The card as text; the arguments are those of `Verifier.card`."""
    parts = [head(report, name, dataset, license), f"# {name}", *([description] if description else [])]
    parts += [purpose(verifier), "## Use", USE, "## Threshold", *threshold_of(verifier), "## Evaluation"]
    if report is None:
        parts.append("This verifier was not evaluated on identities that calibration did not see.")
    else:
        on = f" on {dataset}" if dataset else ""
        text = f"Measured{on}, on identities that were used neither for training nor for the threshold:"
        parts += [text, f"```\n{report}\n```"]
    parts += ["## Groups", "Error rates by group were not measured." if groups is None else f"```\n{groups}\n```"]
    parts += ["## Limits", "\n".join(f"- {limit}" for limit in limits(verifier.evidence, report, groups))]
    found = verifier.evidence
    if "keras" in found:
        made = f"keras_siamese {found['keras_siamese']}, Keras {found['keras']} on {found['backend']}"
        parts.append(f"Made with {made}.")
    return "\n\n".join(parts) + "\n"


def head(report, name, dataset, license):
    """The YAML head; strings are written as JSON, which YAML reads."""
    lines = ["---", "library_name: keras", "tags:", "- keras-siamese", "- siamese-network", "- verification"]
    if license is not None:
        lines.append(f"license: {json.dumps(license)}")
    if report is not None:
        dataset = dataset or "held-out identities"
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:", "  - task:"]
        lines += ["      type: verification", "      name: Verification", "    dataset:"]
        lines += [f"      type: {json.dumps(dataset)}", f"      name: {json.dumps(dataset)}", "    metrics:"]
        for key, title in METRICS.items():
            value = getattr(report, key)
            if value is not None and math.isfinite(value):
                lines += [f"    - type: {key}", f"      name: {title}", f"      value: {value:.6g}"]
    return "\n".join([*lines, "---"])


def purpose(verifier):
    """What the model takes and decides."""
    distance = verifier.siamese.distance
    compared = f"the distance {distance!r}" if distance is not None else "its own comparison"
    negative = negated(verifier.parts)
    return (
        "A siamese network that decides whether two samples belong to the same identity. It compares two embeddings "
        f"with {compared}, and accepts a pair if its score is at least {verifier.threshold:.6g}."
        + ("" if negative is None else f" {of_negatives(verifier.threshold, negative)}")
    )


def threshold_of(verifier):
    """The paragraphs on how the threshold was chosen, and what it does."""
    found = verifier.evidence
    if not found:
        return ["How the threshold was chosen is not known."]
    of = "" if found["identities"] is None else f" of {found['identities']:,} identities"
    pairs = f"{found['genuine_pairs']:,} genuine and {found['impostor_pairs']:,} impostor pairs{of}"
    rows = ["| figure | value | 95 % interval |", "| --- | ---: | --- |"]
    for key, title in FIGURES.items():
        ends = found["intervals"].get(key)
        between = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
        rows.append(f"| {title} | {found[key]:.4f} | {between} |")
    chosen = f"Chosen by the rule `{found['criterion']}` on {pairs}."
    meaning = in_words(verifier.threshold, found["fmr"], found["fnmr"])
    return [f"{chosen} {meaning}", "\n".join(rows)]


def limits(evidence, report, groups):
    """What a reader must not conclude, as sentences that follow from what was measured."""
    yield "The threshold holds for samples like those that it was chosen on; for others, calibrate again."
    identities = evidence.get("identities")
    if identities is not None and identities < 100:
        yield f"The threshold rests on {identities} identities only."
    if report is None:
        yield "The error rates above are those of the data that the threshold was chosen on, so they are optimistic."
    else:
        for figure in report.tar:
            if figure.mark != "plain":
                state = "not given" if figure.mark == "withheld" else "uncertain"
                yield f"The TAR at a FMR of {figure.far:g} is {state}: it needs {figure.needed:,} impostor pairs."
    if groups is None:
        yield "Nothing is known of differences between groups of people, devices or sites."
    else:
        for rate, gap in groups.gaps.items():
            if gap is not None and gap.low > 0:
                higher = f'it is higher for "{gap.highest}" than for "{gap.lowest}"'
                yield f"The {rate.upper()} differs between groups: {higher}."
