"""The command ``crosswalk embed``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.at_least import AtLeast
from crosswalk.use.source import MODELS, WHICH, reads_captions, source_of


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "A CSV has a column `path` (or `image`), and `caption` if there are sentences.\n\n"
        "Examples:\n"
        "  crosswalk embed runs/<name> photos/ --out features.npz\n"
        "  crosswalk embed best.ckpt pairs.csv --out features.npz --device cuda\n\n"
        "The file holds `path` and `embedding`, a row per image; where the table has sentences,\n"
        "`caption`, `caption_embedding` and `caption_path`; `broken`, what was left out; the name\n"
        "and the fingerprint of the model. The product of two rows is the score of the evaluation."
    )
    parser.add_argument("model", metavar="MODEL", help=MODELS)
    parser.add_argument("images", metavar="FOLDER|CSV", type=Path, help="what is embedded")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.npz")
    parser.add_argument("--which", choices=WHICH, help="of the run; default: the best there is")
    parser.add_argument("--batch-size", type=AtLeast(1), default=64, help="default: 64")
    parser.add_argument("--device", default="cpu", help="such as cuda; default: cpu")
    parser.add_argument(
        "--precision", choices=("float32", "bf16"), default="float32", help="default: float32"
    )
    parser.add_argument(
        "--on-error",
        choices=("skip", "raise"),
        default="skip",
        help="leave out images that cannot be read and list them, or end there; default: skip",
    )
    parser.add_argument(
        "--allow-outside", action="store_true", help="a CSV may name images outside its folder"
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    source = source_of(options.model, options.which)  # before torch is imported
    from crosswalk.use.embed import check_target, embed_files
    from crosswalk.use.inputs import inputs_of

    check_target(options.out, options.images)
    inputs = inputs_of(options.images, allow_outside=options.allow_outside)
    if inputs.captions and reads_captions(source) is False:
        raise ValueError(_reads_no_sentences(options.images, source.name))
    from crosswalk.use.load import load

    model = load(
        options.model, which=options.which, device=options.device, precision=options.precision
    )
    if inputs.captions and model.tokenizer is None:
        raise ValueError(_reads_no_sentences(options.images, model.name))
    skip = options.on_error == "skip"
    embed_files(model, inputs, options.out, batch_size=options.batch_size, skip=skip)
    return 0


def _reads_no_sentences(table: Path, name: str) -> str:
    return (
        f"{table} has a column `caption`, and {name} is a model of images alone that reads no "
        "sentences. Leave the column out, or name a run of text-based search."
    )
