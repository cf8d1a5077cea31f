"""CLIP's byte pairs, which captions are cut into, and words for CLIP's word vectors."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


@cache
def open_clip_tokenizer() -> Any:  # noqa: ANN401
    """Return open_clip's tokenizer module, without the models of its package.

    Importing the package takes seconds, for vision libraries that no tokenizer needs; the file
    imports nothing of the package.

    Raises:
        ModuleNotFoundError: If open_clip is not installed.

    Example:
        >>> open_clip_tokenizer().SimpleTokenizer()(["a man"], context_length=5)
        tensor([[49406,   320,   786, 49407,     0]])
    """
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("open_clip is missing: pip install open_clip_torch")
    path = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("_crosswalk_open_clip_tokenizer", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def byte_pairs() -> Any:  # noqa: ANN401
    """Return open_clip's tokenizer, whose tables take a moment to read.

    Example:
        >>> byte_pairs().encode("a man")
        [320, 786]
    """
    return open_clip_tokenizer().SimpleTokenizer()
