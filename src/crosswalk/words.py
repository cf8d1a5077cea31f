"""Numbers with their nouns, for sentences, and what is said in several rooms."""

from __future__ import annotations

import re

ONE = {
    "are": "is",
    "were": "was",
    "have": "has",
    "do": "does",
    "need": "needs",
    "differ": "differs",
}


def kind_of(value: object) -> str:
    """Return the type of a value with its article.

    Example:
        >>> kind_of(1), kind_of("b")
        ('an int', 'a str')
    """
    return with_article(type(value).__name__)


def with_article(name: str) -> str:
    """Return a name after its article.

    Example:
        >>> with_article("ImageEncoder"), with_article("DualEncoder")
        ('an ImageEncoder', 'a DualEncoder')
    """
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def counted(number: int, noun: str, verb: str = "") -> str:
    """Return a number with what it counts, and perhaps a verb, of which there is one or more.

    Args:
        number: Not negative.
        noun: Of one of them; its last word gets the plural.
        verb: Of more of them; one of `ONE`.

    Example:
        >>> counted(1, "run"), counted(1200, "query"), counted(1, "image", "were")
        ('1 run', '1,200 queries', '1 image was')
        >>> counted(2, "process"), counted(0, "identity")
        ('2 processes', '0 identities')
    """
    many = re.sub(r"(?<=[rt])y$", "ie", noun)
    many += "es" if noun.endswith("ss") else "s"
    words = [
        f"{number:,}",
        noun if number == 1 else many,
        ONE[verb] if number == 1 and verb else verb,
    ]
    return " ".join(filter(None, words))


def no_root(kind: str, own: str = "") -> str:
    """Return what to say where no folder of data is given, and none may be generated here.

    Args:
        kind: Of generated people that would do: ``pairs``, ``images`` or ``transfer``.
        own: What holds data of one's own, where they are to be read; nothing for a data set.

    Example:
        >>> no_root("pairs")[:21]
        'data.root is missing.'
    """
    return (
        f"data.root is missing. Pass data.root=<{own or 'folder of the data set'}>, or take "
        f"generated people with data=synthetic_{kind}."
    )
