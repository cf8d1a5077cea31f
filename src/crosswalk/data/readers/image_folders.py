"""Folders of image re-identification that are laid out like Market-1501."""

from __future__ import annotations

from dataclasses import replace

from crosswalk.data.readers.annotations import Layout, contents, dataset_name, expected_counts
from crosswalk.data.readers.camera_names import list_images
from crosswalk.data.readers.records import IMAGE_SPLITS, Counts, ImageSplits, count_deviations
from crosswalk.words import counted

# Folder of each split where a set is laid out like Market-1501, and what tells that it is.
MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MARKET_FORM = "bounding_box_*"
MARKET_MARKERS = ("bounding_box_train", "bounding_box_test")


def read_market_folders(
    layout: Layout, dataset: str, published: Counts | None, advice: str
) -> ImageSplits:
    """Return the splits of a set laid out like Market-1501, junk left out and counted.

    Args:
        layout: Where it lies.
        dataset: Its name, unless it calls itself otherwise in ``expected_counts.json``.
        published: Its published counts.
        advice: What to do if a folder is missing, whole sentences.

    Raises:
        FileNotFoundError: If one of the three folders is missing, or holds no image.
        ValueError: If names do not follow the grammar of `camera_names`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as name:
        ...     root = Path(name)
        ...     for folder in MARKET_FOLDERS.values():
        ...         (root / folder).mkdir()
        ...         (root / folder / "0002_c6s1_1.jpg").touch()
        ...     layout = Layout(root, (), MARKET_FORM, MARKET_FORM)
        ...     splits = read_market_folders(layout, "Market-1501", None, "Get it.")
        >>> splits.train[0].camera_id, splits.junk
        (6, {'train': 0, 'query': 0, 'gallery': 0})
    """
    folders = {split: layout.folder / name for split, name in MARKET_FOLDERS.items()}
    missing = [folder for folder in folders.values() if not folder.is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(f'{folder}/' for folder in missing)} of {dataset} is missing; "
            f"{layout.folder} holds {contents(layout.folder)}. {advice}"
        )
    listings = {split: list_images(folder) for split, folder in folders.items()}
    notices = [
        f"{folders[split].name} holds {counted(len(listing.others), 'image')} not ending in .jpg, "
        f"e.g. {listing.others[0]}, which {'is' if len(listing.others) == 1 else 'are'} left out."
        for split, listing in listings.items()
        if listing.others
    ]
    return ImageSplits(
        dataset=dataset_name(layout.folder, dataset),
        root=layout.folder,
        layout=layout.name,
        train=listings["train"].records,
        query=listings["query"].records,
        gallery=listings["gallery"].records,
        junk={split: listing.junk for split, listing in listings.items()},
        notices=tuple(notices),
        published=expected_counts(layout.folder, published, IMAGE_SPLITS),
    )


def with_image_notices(splits: ImageSplits) -> ImageSplits:
    """Return ``splits`` with notices of odd counts and of queries that nothing can answer.

    Example:
        >>> from pathlib import Path
        >>> from crosswalk.data.readers.records import Record
        >>> record = Record(Path("a.jpg"), 3)
        >>> with_image_notices(ImageSplits("own", Path(), ".", (), (record,), ())).notices
        ('1 of 1 query identities have no image in the gallery.',)
    """
    notices = count_deviations(splits)
    for prefix in ("", "val_"):
        asked, held = (
            {record.person_id for record in splits.split(f"{prefix}{role}")}
            for role in ("query", "gallery")
        )
        if asked - held:
            notices.append(
                f"{len(asked - held):,} of {len(asked):,} {prefix}query identities have no image "
                f"in the {prefix}gallery."
            )
    return replace(splits, notices=splits.notices + tuple(notices))
