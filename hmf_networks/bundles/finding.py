"""One thing in a bundle that is not known to be harmless."""

from typing import NamedTuple


class Finding(NamedTuple):
    """Where, which rule, and what there is.

    Attributes:
        file: name in the bundle.
        key: place in it, as MONAI's configs are addressed; empty for the whole file.
        rule: a word or two.
        what: the text in question.
    """

    file: str
    key: str
    rule: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}" if self.key else self.file
        return f"{place}: {self.rule}: {self.what}"
