import pytest


@pytest.fixture
def unpainted(monkeypatch):
    """The pictures in reports are empty: drawing them takes seconds. Other tests look at them."""
    monkeypatch.setattr("keras_siamese.diagnosis.report.page.svg", lambda draw, size=None: "data:,")
