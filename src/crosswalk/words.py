"""Numbers with their nouns, for sentences."""

from __future__ import annotations

ONE = {
    "are": "is",
    "were": "was",
    "have": "has",
    "do": "does",
    "need": "needs",
    "differ": "differs",
}


def counted(number: int, noun: str, verb: str = "") -> str:
    """Return a number with what it counts, and perhaps a verb, of which there is one or more.

    Args:
        number: Not negative.
        noun: Of one of them; its last word gets the plural.
        verb: Of more of them; one of `ONE`.

    Example:
        >>> counted(1, "run"), counted(1200, "query"), counted(1, "image", "were")
        ('1 run', '1,200 queries', '1 image was')
    """
    many = f"{noun[:-1]}ies" if noun.endswith(("ry", "ty")) else f"{noun}s"
    words = [
        f"{number:,}",
        noun if number == 1 else many,
        ONE[verb] if number == 1 and verb else verb,
    ]
    return " ".join(filter(None, words))
