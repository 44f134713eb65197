"""A diagnosis in a notebook says what its text says, in well-formed HTML."""

from keras_siamese.diagnosis.diagnosis import Diagnosis
from tests.support.diagnoses import made
from tests.support.fragments import text_of, words


def test_it_says_all_that_the_text_says(tmp_path):
    diagnosis = made()
    shown = text_of(diagnosis._repr_html_())
    assert shown.startswith(diagnosis.verdict)
    for finding in diagnosis.findings:
        assert words(finding.summary) in shown and words(finding.advice) in shown
        assert all(words(signal.line(name)) in shown for name, signal in finding.evidence.items())
    assert all(answer.cause in shown for answer in (*diagnosis.ruled_out, *diagnosis.not_examined))
    again = Diagnosis.from_json(diagnosis.to_json(tmp_path / "run.json"))
    assert text_of(again._repr_html_()).startswith(again.verdict)
