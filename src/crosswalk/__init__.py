"""Text-based person search and person re-identification on PyTorch Lightning.

Trained models are used from here: ``crosswalk.load("runs/<name>")`` returns one that embeds images
and sentences; ``crosswalk.from_pretrained`` is the same by the name that users of the hub expect.
``crosswalk.Gallery`` finds pictures with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crosswalk.gallery.gallery import Gallery
    from crosswalk.use.load import load
    from crosswalk.use.load import load as from_pretrained

__version__ = "0.1.0.dev0"
__all__ = ["Gallery", "from_pretrained", "load"]


def __getattr__(name: str) -> object:
    if name == "Gallery":  # late: importing torch takes seconds, which `--help` does not
        from crosswalk.gallery.gallery import Gallery

        return Gallery
    if name in __all__:
        from crosswalk.use.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
