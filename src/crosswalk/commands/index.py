"""The command ``crosswalk index``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.at_least import AtLeast
from crosswalk.gallery.store import Stats
from crosswalk.use.source import MODELS, WHICH, source_of


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "A CSV has a column `path` (or `image`); `camera`, `time` and `own_id` are shown, and all\n"
        "other columns can be asked for, too. Only pictures that are new, or whose content has\n"
        "changed, are embedded: the same command brings a gallery up to date.\n\n"
        "Examples:\n"
        "  crosswalk index runs/<name> photos/ --out photos.gallery\n"
        "  crosswalk index tiny:rde cameras.csv --out cameras.gallery --prune\n"
        "  crosswalk index runs/<name> photos/old --out photos.gallery --remove"
    )
    parser.add_argument("model", metavar="MODEL", help=MODELS)
    parser.add_argument("source", metavar="FOLDER|CSV", type=Path, help="the pictures")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="GALLERY", help="its folder, new or not"
    )
    parser.add_argument("--which", choices=WHICH, help="of the run; default: the best there is")
    parser.add_argument("--batch-size", type=AtLeast(1), default=64, help="default: 64")
    parser.add_argument("--device", default="cpu", help="such as cuda; default: cpu")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--prune", action="store_true", help="remove pictures of this folder that are gone"
    )
    what.add_argument(
        "--remove", action="store_true", help="take these pictures out of the gallery instead"
    )
    parser.add_argument(
        "--store",
        metavar="qdrant://HOST:PORT/NAME",
        help="keep rows and vectors of a new gallery on a Qdrant server",
    )
    parser.add_argument(
        "--thresholds",
        type=Path,
        metavar="FILE",
        help="of `crosswalk calibrate`; default: those that the model has of itself",
    )
    parser.add_argument(
        "--allow-outside", action="store_true", help="a CSV may name images outside its folder"
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    source_of(options.model, options.which)  # before torch is imported
    from crosswalk.gallery.description import check_new_or_gallery, read_gallery
    from crosswalk.use.inputs import listed_images
    from crosswalk.words import counted

    gallery, source = options.out, options.source
    if options.remove:
        from crosswalk.gallery.gallery import Gallery

        removed = Gallery.remove(gallery, source, allow_outside=options.allow_outside)
        if not (removed or source.exists()):
            raise ValueError(f"{gallery} holds no pictures of {source}, and it does not exist.")
        print(f"{counted(removed, 'picture', 'were')} taken out of {gallery}.")
        return 0
    if check_new_or_gallery(gallery):
        read_gallery(gallery).check_store(options.store)
    check_target(gallery, source)
    if options.thresholds is not None:
        from crosswalk.use.thresholds import read_thresholds

        read_thresholds(options.thresholds)
    listed_images(source, allow_outside=options.allow_outside, nothing="nothing was indexed")
    from crosswalk.gallery.gallery import Gallery
    from crosswalk.use.load import load

    built = Gallery.build(
        gallery,
        load(options.model, which=options.which, device=options.device),
        source,
        store=options.store,
        batch_size=options.batch_size,
        allow_outside=options.allow_outside,
        prune=options.prune,
        thresholds=options.thresholds,
    )
    with built:
        print(f"In {gallery}: {counted(len(built), 'picture')} ({built.changes}).")
        assert built.changes is not None  # it was built
        for problem in built.changes.broken.values():
            print(f"left out: {problem}")
        if options.thresholds is not None:
            print(f"Searches are judged by the thresholds in {options.thresholds}.")
        for line in _index(built.stats):
            print(line)
    return 0


def _index(stats: Stats | None) -> list[str]:
    """Return what there is to say of the index; nothing where every picture is compared."""
    if stats is None:
        return []
    lines = [stats.notice] if stats.notice else []
    if stats.indexed:
        recalls = {
            "sentences": stats.recall_at_10,
            "pictures": stats.recall_at_10_of_rows,
        }
        told = ", ".join(
            f"{recall:.3f} for {what}" for what, recall in recalls.items() if recall is not None
        )
        lines.append(
            f"Approximate index of {stats.indexed:,} pictures, {stats.probes} lists a query; "
            f"recall@10 beside exact search (--exact): {told}."
        )
    return lines


def check_target(gallery: Path, source: Path) -> None:
    """Refuse a gallery among the pictures that are read."""
    from crosswalk.files import check_writable, refuse_inside

    check_writable(gallery / "gallery.json", "--out")
    if source.is_dir():
        refuse_inside(gallery, source, (), "--out", given=source)
