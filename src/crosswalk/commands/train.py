"""The command ``crosswalk train``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.usage = "crosswalk train [key=value ...]"
    parser.epilog = (
        "Examples:\n"
        "  crosswalk train method=rde\n"
        "  crosswalk train method=rde data=cuhk_pedes data.root=/datasets data.noise_rate=0.5\n"
        "  crosswalk train method=rde data=cuhk_pedes data.root=/datasets trainer=ddp\n"
        "  crosswalk train method=rde resume=true\n"
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.config.compose import compose

    config = compose(options.overrides)  # what is wrong with it is said before the slow imports
    from crosswalk.run.train import train

    return train(config)
