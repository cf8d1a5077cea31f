"""The type of an option that counts."""

import argparse


class AtLeast:
    """The type of an option: a whole number from the least one on."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        """Return the number, or let the parser name the option."""
        try:
            if int(text) >= self.least:
                return int(text)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {self.least} on")
