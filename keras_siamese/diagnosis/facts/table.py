"""The table of facts: what was measured of a run, by name. The causes and the report read nothing else.

facts["eer"], facts.get("train_eer"), "margin" in facts
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Facts:
    """Measured values by name.

    Attributes:
        numbers: name → number.
        words: name → text: what things are called, for advice.
        rows: name → rows of the training data, for advice.
    """

    numbers: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)

    def __getitem__(self, name):
        return self.numbers[name]

    def __contains__(self, name):
        return name in self.numbers

    def get(self, name, default=None):
        return self.numbers.get(name, default)

    def to_dict(self):
        return {"numbers": dict(self.numbers), "words": dict(self.words), "rows": dict(self.rows)}
