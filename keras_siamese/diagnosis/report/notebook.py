"""A `Diagnosis` in a notebook: the verdict, and each finding with its evidence and advice.

Contract: a diagnosis in, a fragment of HTML out, without pictures and without the extra `report`. It holds what the
text of the diagnosis holds, and all text is escaped. No package of others.
"""

from html import escape

from keras_siamese.diagnosis.meanings import MEANINGS


def html_of(diagnosis):
    """The fragment of HTML `(str)` of a `Diagnosis`."""
    parts = [f"<p><b>{escape(diagnosis.verdict)}</b></p>"]
    for number, finding in enumerate(diagnosis.findings, 1):
        by = f", explained by {finding.explained_by}" if finding.explained_by else ""
        title = f"{number}. {finding.cause} ({finding.severity}{by}): {finding.summary}"
        test = f"<p>{escape(str(finding.confirmation))}</p>" if finding.confirmation else ""
        evidence = f"{listed(finding.evidence)}{test}<pre>{escape(finding.advice)}</pre>"
        parts.append(folded(title, evidence, is_open=number == 1))
    for suspect in diagnosis.also_possible:
        parts.append(folded(f"Also possible: {suspect.cause}; {suspect.reason}", listed(suspect.evidence)))
    rest = [f"Ruled out: {', '.join(answer.cause for answer in diagnosis.ruled_out)}."] if diagnosis.ruled_out else []
    rest += [f"Not examined: {', '.join(causes)} ({reason})." for reason, causes in diagnosis.unexamined.items()]
    return "".join([*parts, folded("All other causes", "".join(f"<p>{escape(line)}</p>" for line in rest))])


def listed(evidence):
    """`Signal`s by name as a list, each with what it means."""
    lines = [(escape(signal.line(name)), escape(MEANINGS.get(name, ""))) for name, signal in evidence.items()]
    return f"<ul>{''.join(f'<li>{line}<br><small>{meaning}</small></li>' for line, meaning in lines)}</ul>"


def folded(title, inside, is_open=False):
    """A part of the page that a reader opens; `inside` is HTML."""
    return f"<details{' open' * is_open}><summary>{escape(title)}</summary>{inside}</details>"
