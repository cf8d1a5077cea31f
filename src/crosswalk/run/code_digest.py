"""Which code a run was made by; comments, docstrings and what only looks at runs do not count."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

LOOKS_ONLY = (
    *("lab", "doctor", "diagnostics", "importers", "templates"),
    *("cli.py", "commands", "pages.py", "__main__.py"),
    *("run/processes.py", "run/results.py", "run/code_digest.py"),
    *("run/callbacks/progress.py", "run/callbacks/ranking_lists.py"),
)
"""Parts of the package that no number of a run depends on."""


@cache
def code_digest(package: Path = Path(__file__).parents[1]) -> str:
    """Return 12 hex digits that change when code changes that a run's numbers may depend on.

    The syntax trees of the package are hashed, without docstrings, so that rewording something
    does not make finished runs out of date. Configurations are compared by themselves.

    Args:
        package: Folder of the package.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> def digest(text):
        ...     _ = (folder / "loss.py").write_text(text)
        ...     return code_digest.__wrapped__(folder)
        >>> digest("def f(x): return x") == digest("def f(x): return x  # as it is")
        True
        >>> digest("def f(x): return x") == digest("def f(x): return -x")
        False
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if any(name == part or name.startswith(f"{part}/") for part in LOOKS_ONLY):
            continue
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                node.body = [part for part in node.body if not _is_text(part)]
        digest.update(f"{name}\n{ast.dump(tree)}\n".encode())
    for path in sorted((package / "assets").glob("*")):  # weights that small runs start from
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
