"""The command ``crosswalk config show``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.usage = "crosswalk config show [key=value ...]"
    parser.epilog = (
        "Examples:\n"
        "  crosswalk config show method=rde data=cuhk_pedes\n"
        "  crosswalk config show data.noise_rate=0.8\n"
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.config.check import compose_training
    from crosswalk.config.plain import missing_keys, to_yaml

    config = compose_training(options.overrides)
    print(to_yaml(config), end="", flush=True)
    missing = missing_keys(config)
    if missing:
        print(f"note: still to be set: {', '.join(missing)}", file=sys.stderr)
        return 0
    from crosswalk.config.check import check  # after the print: it imports what is named

    check(config)
    return 0
