"""The command ``crosswalk benchmark``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.commands.at_least import AtLeast
from crosswalk.use.source import MODELS, WHICH, check_out, source_of


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "Image files are JPEGs of twice the model's height and width; captions have 23 words.\n\n"
        "Example:\n  crosswalk benchmark model/ --batch-size 128 --device cuda --precision bf16\n"
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODELS)
    add("--which", choices=WHICH, help="of the run; default: the best there is")
    add("--batch-size", type=AtLeast(1), default=64, help="beside one at a time; default: 64")
    add("--device", default="cpu", help="such as cuda; default: cpu")
    add("--precision", choices=("float32", "bf16"), default="float32", help="default: float32")
    add("--threads", type=AtLeast(1), help="of the CPU; default: as many as there are cores")
    add("--out", type=Path, metavar="FILE.json", help="write the numbers there, too")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    source = source_of(options.model, options.which)
    if options.out is not None:
        from crosswalk.files import check_writable

        check_writable(options.out, "--out")  # before a minute of measuring
        check_out(source.folder, options.out)
    import json

    import torch
    from rich.console import Console
    from rich.table import Table

    from crosswalk.files import write_text
    from crosswalk.terminal import fit
    from crosswalk.use.benchmark import facts_of, speeds
    from crosswalk.use.load import load
    from crosswalk.words import counted

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = load(
        options.model, which=options.which, device=options.device, precision=options.precision
    )
    facts = facts_of(model, source.weights)
    measured = speeds(model, batch_size=options.batch_size)
    height, width = facts["image_size"]
    size = facts["bytes_of_file"]
    on_disk = "" if size is None else f", {size / 1e6:.1f} MB as a file"
    console = Console()
    console.print(
        f"{facts['model']}: {facts['parameters']:,} parameters, "
        f"{facts['bytes_in_memory'] / 1e6:.1f} MB in memory{on_disk}; images of "
        f"{height}x{width}, embeddings of {facts['embedding_size']} numbers.\n"
        f"{facts['precision']} on {facts['device']}, {counted(facts['threads'], 'thread')}, torch "
        f"{facts['torch']}.",
        highlight=False,
    )
    table = Table("what", "at a time", "ms", "±", "per second")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in measured:
        middle, spread = (f"{1000 * seconds:.3g}" for seconds in (row.seconds, row.spread))
        table.add_row(
            row.what,
            str(row.batch),
            middle,
            spread,
            f"{row.per_second:,.{0 if row.per_second >= 10 else 1}f}",
        )
    console.print(fit(table, console, numbers=[1, 2, 3, 4]))
    console.print("ms: median; ±: interquartile range of the repetitions.", highlight=False)
    if options.out is not None:
        rows = [{**row._asdict(), "per_second": row.per_second} for row in measured]
        write_text(options.out, json.dumps({**facts, "speeds": rows}, indent=1) + "\n")
    return 0
