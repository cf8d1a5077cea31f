"""The command ``crosswalk serve``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "Only this machine reaches the page, unless --host says otherwise; then a token is asked\n"
        "for. Nothing is encrypted: on another machine, `ssh -L 8000:localhost:8000` is safer.\n\n"
        "Examples:\n"
        "  crosswalk serve photos.gallery\n"
        "  crosswalk serve photos.gallery --port 0 --log-queries"
    )
    parser.add_argument("gallery", metavar="GALLERY", type=Path, help="of `crosswalk index`")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1"
    )
    parser.add_argument("--port", type=port, default=8000, help="default: 8000; 0 takes a free one")
    parser.add_argument(
        "--token",
        help="without which nothing is answered; or CROSSWALK_TOKEN, which others see less",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="another name by which browsers call this server; may be given several times",
    )
    parser.add_argument(
        "--log-queries", action="store_true", help="print a line of JSON per search on stderr"
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="where the model of the gallery is now; default: where it was",
    )
    parser.add_argument("--device", default="cpu", help="such as cuda; default: cpu")


def port(text: str) -> int:
    """Return a port that can be listened to.

    Raises:
        ValueError: If it is none.
    """
    if not 0 <= int(text) <= 65_535:
        raise ValueError(text)
    return int(text)


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    from crosswalk.gallery.serving import check, serve

    with check(options) as listening:  # before torch is imported
        return serve(options, listening)
