"""What a run leaves behind besides its results, as sections of its report."""

from __future__ import annotations

from crosswalk.diagnostics import (
    agreement,
    clusters,
    division,
    key_similarity,
    labels,
    token_selection,
)
from crosswalk.pages import Section
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.tracking import read_metrics

MODULES = (division, token_selection, clusters, labels, agreement, key_similarity)
"""Each has ``section(run_folder, history)``, which returns None where there is nothing to show."""


def diagnostic_sections(run_folder: RunFolder) -> list[Section]:
    """Return the sections for which a run left data, whatever its method is called.

    Needs neither the data set nor its images: what is shown was kept with the run.

    Args:
        run_folder: The run, finished or not.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = RunFolder(Path(tempfile.mkdtemp()))
        >>> line = '{"step": 1, "epoch": 0, "train/positive_similarity": 0.5}'
        >>> _ = folder.metrics_file.write_text(line + chr(10))
        >>> [section.title for section in diagnostic_sections(folder)]
        ['Positive and negative similarity']
    """
    history = read_metrics(run_folder.metrics_file)
    found = [module.section(run_folder, history) for module in MODULES]
    return [section for section in found if section is not None]
