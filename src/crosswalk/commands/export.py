"""The command ``crosswalk export``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from crosswalk.use.export_check import Settings, check_settings, check_target
from crosswalk.use.source import MODELS, WHICH, check_out, source_of


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.epilog = (
        "safetensors: model.safetensors and config.json, which `crosswalk.load` reads.\n"
        "onnx, torch: image and text encoder as graphs that run without crosswalk, image.onnx and\n"
        "text.onnx or image.pt2 and text.pt2, compared with the model on 50 samples before they\n"
        "are written. README.md, a model card, says how each is called. A folder holds several.\n\n"
        "Examples:\n"
        "  crosswalk export runs/<name> --out model/\n"
        "  crosswalk export runs/<name> --out model/ --format onnx --with-preprocessing --int8\n"
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODELS)
    add("--out", required=True, type=Path, metavar="FOLDER", help="the folder to write")
    add("--which", choices=WHICH, help="of the run; default: the best there is")
    add(
        "--format",
        choices=("safetensors", "onnx", "torch"),
        default="safetensors",
        help="default: safetensors; onnx needs the extra [export]",
    )
    add("--half", action="store_true", help="round the weights to float16 (not torch)")
    add("--int8", action="store_true", help="onnx: files with int8 weights beside, and their R@1")
    add(
        "--with-preprocessing",
        action="store_true",
        help="onnx, torch: images go in as uint8 [N, H, W, 3] and are normalised inside",
    )


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    source = source_of(options.model, options.which)
    settings = Settings(
        options.format, half=options.half, int8=options.int8, inside=options.with_preprocessing
    )
    check_settings(settings)
    check_target(options.out)
    check_out(source.folder, options.out)
    if settings.form == "safetensors":
        from crosswalk.use.export import export

        return export(source, options.out, half=settings.half)
    from crosswalk.use.export_graphs import export_graphs
    from crosswalk.use.load import load

    model = load(options.model, which=options.which)
    return export_graphs(model, source, options.out, settings)
