import pytest

from keras_siamese.verification.pages import Curves


@pytest.fixture
def unpainted(monkeypatch):
    """The pictures in reports are empty: drawing them takes seconds. Other tests look at them."""
    monkeypatch.setattr("keras_siamese.diagnosis.report.page.curves", lambda draw, size=None: Curves("data:,", []))
