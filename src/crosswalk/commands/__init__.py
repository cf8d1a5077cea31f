"""The commands of the program, one module each: ``configure(parser)`` and ``run(options)``.

Both are cheap to import; what a command needs is imported when it runs.
"""


class AtLeast:
    """The type of an option: a whole number from the least one on."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        """Return the number, or let the parser name the option."""
        if int(text) < self.least:
            raise ValueError(text)
        return int(text)

    def __repr__(self) -> str:
        """Return what the parser's message says."""
        return f"whole number from {self.least} on"
