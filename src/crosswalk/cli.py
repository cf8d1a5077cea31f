"""The program ``crosswalk``: finds the command, reads its words, runs it, and words its errors."""

from __future__ import annotations

import argparse
import codecs
import gc
import importlib
import io
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple


class Command(NamedTuple):
    """What is known of a command without its module, ``commands/<name>.py``."""

    summary: str
    takes_overrides: bool = False
    opens_others: bool = False
    """Whether it opens what may be somebody else's: a run, a table, a sweep file."""
    ends_itself: bool = False
    """Whether it looks after signals itself, and says how to go on."""
    evaluates: bool = False
    """Whether its overrides are those of an evaluation, which reads few keys."""
    is_short: bool = False
    """Whether it is over before anybody misses the memory of garbage."""


COMMANDS = {
    "train": Command(
        "train a method, evaluate its best epoch",
        takes_overrides=True,
        opens_others=True,
        ends_itself=True,
    ),
    "evaluate": Command(
        "evaluate a finished run again", takes_overrides=True, opens_others=True, evaluates=True
    ),
    "embed": Command("embed images and sentences with a trained model", opens_others=True),
    "export": Command("write a trained model as a folder to give away", opens_others=True),
    "card": Command("write the model card of a run", opens_others=True),
    "index": Command("put pictures into a gallery that can be searched", opens_others=True),
    "search": Command("find pictures of a gallery by a sentence or a picture", opens_others=True),
    "serve": Command("serve a page that searches a gallery", opens_others=True),
    "benchmark": Command("time a trained model, and say how large it is", opens_others=True),
    "calibrate": Command(
        "measure whether scores tell that a person is in a gallery at all",
        takes_overrides=True,
        opens_others=True,
        evaluates=True,
    ),
    "report": Command("write the report of a run again", opens_others=True, is_short=True),
    "compare": Command("compare two runs query by query", opens_others=True, is_short=True),
    "audit": Command(
        "list the training pairs that a run judged wrong", opens_others=True, is_short=True
    ),
    "ablate": Command(
        "run the rows of a table and compare them with the published numbers",
        takes_overrides=True,
        opens_others=True,
        ends_itself=True,
    ),
    "sweep": Command(
        "search hyper-parameters as a W&B sweep file says",
        takes_overrides=True,
        opens_others=True,
        ends_itself=True,
    ),
    "config show": Command(
        "print the configuration of a run, and run nothing", takes_overrides=True, is_short=True
    ),
    "config diff": Command("print where two configurations differ", is_short=True),
    "data check": Command("examine a data set and report what is wrong with it"),
    "data synthesize": Command("write a synthetic data set"),
    "import-weights": Command("turn an official checkpoint into ours"),
    "export-weights": Command("write the encoder of a run as safetensors", opens_others=True),
}
OVERRIDE = re.compile(r"(--)?(\+{1,2})?[A-Za-z_][\w./@]*=|~[A-Za-z_][\w.]*$", re.ASCII)
OVERRIDES_HELP = """
overrides:
  group=file         method=..., data=cuhk_pedes, encoder=..., loss=..., trainer=one_gpu, logger=csv
  dotted.key=value   data.root=/datasets, data.noise_rate=0.5, trainer.max_epochs=3, seed=2
  +encoder.backbone.eps=1e-5   a key that no file has; ~key removes one; --key=value works, too
`crosswalk config show` with the same overrides prints the result and runs nothing.
"""
EVALUATION_HELP = """
overrides:
  group=file         data=cuhk_pedes, reranking=k_reciprocal, trainer=one_gpu, logger=csv
  dotted.key=value   data.root=/datasets, data.eval_batch_size=64, protocol=official
Weights, method and preprocessing stay those of the model; encoder.<key>=... changes how its
layers compute.
"""
PLAIN_SIGNS = {"→": "->", "±": "+-", "–": "-", "…": "...", "×": "x", "≥": ">=", "≤": "<="}  # noqa: RUF001
"""What stands for a sign where the encoding of a terminal or a log lacks it."""
TRUST_HELP = "build whatever the opened files name, even code that crosswalk does not know"
HELP = """usage: crosswalk <command> ...

Text-based person search and person re-identification.

commands:
{commands}

Examples:
  crosswalk train method=rde
  crosswalk train method=rde data=cuhk_pedes data.root=/datasets data.noise_rate=0.5
  crosswalk evaluate runs/<name>

`crosswalk <command> --help` explains each command, `crosswalk --version` prints the version.
--config-dir DIR or CROSSWALK_CONFIG_PATH adds configurations to those of the package.
Errors come as one message; --debug or CROSSWALK_DEBUG=1 shows where they were raised."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for mistakes of the user, 1 for failures.

    Example:
        >>> main(["config", "show", "methd=rde"])
        2
    """
    _print_anywhere()
    _warn_as_notes()
    common = argparse.ArgumentParser(prog="crosswalk", add_help=False, allow_abbrev=False)
    common.add_argument("--debug", action="store_true")
    common.add_argument("--config-dir", action="append", type=os.path.abspath, default=[])
    given, words = common.parse_known_args(arguments)
    debug = given.debug or os.environ.get("CROSSWALK_DEBUG", "") not in ("", "0")
    if given.config_dir:
        from crosswalk.config.search import PATH_VARIABLE  # the environment reaches all processes

        known = os.environ.get(PATH_VARIABLE, "").split(os.pathsep)
        os.environ[PATH_VARIABLE] = os.pathsep.join(filter(None, [*given.config_dir, *known]))
    try:
        if names := _group(word for word in words if word not in ("-h", "--help")):
            print(HELP.format(commands=_listed(names)))
            return 0
        if words == ["--version"]:
            from crosswalk import __version__

            print(f"crosswalk {__version__}")
            return 0
        options = parse(words)
        if options.is_short and arguments is None:  # the program, not a caller that goes on
            gc.disable()  # to look for garbage, at its end too, is a tenth of the time or more
        return int(options.run(options))
    except KeyboardInterrupt:
        print("crosswalk: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        from crosswalk.files import FULL

        mistake = _is_users_mistake(error)
        if debug or not mistake:
            traceback.print_exc()
        else:
            print(f"crosswalk: {_message(error)}", file=sys.stderr)
        is_failure = isinstance(error, RuntimeError) or getattr(error, "errno", None) in FULL
        return 2 if mistake and not is_failure else 1


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command, its ``overrides``, and its ``run``, which takes them all.

    Raises:
        ValueError: If there is no such command.
        SystemExit: If its parser refuses a word, or was asked for help.

    Example:
        >>> options = parse(["sweep", "rde", "--seed=3", "seed=4"])
        >>> options.seed, options.overrides
        (3, ['seed=4'])
    """
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), "")
    if not name:
        raise ValueError(_no_command(words))
    summary, takes_overrides, opens_others, ends_itself, evaluates, is_short = COMMANDS[name]
    file_name = re.sub(r"\W", "_", name)
    module = importlib.import_module(f"crosswalk.commands.{file_name}")
    parser = argparse.ArgumentParser(
        prog=f"crosswalk {name}",
        description=summary[0].upper() + summary[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    if opens_others:
        parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    words = words[len(name.split()) :]
    _check_options(parser, words, takes_overrides=takes_overrides)
    overrides: list[str] = []
    if takes_overrides:
        parser.epilog = f"{parser.epilog}{EVALUATION_HELP if evaluates else OVERRIDES_HELP}"
        words, overrides = _split(parser, words)
    options, strays = parser.parse_known_args(words)
    if strays:
        takes = "; overrides are written key=value" if takes_overrides else ""
        instead = next((f". {HYDRA[word]}" for word in strays if word in HYDRA), "")
        if takes_overrides and not instead:
            instead = _meant(strays, parser)
        if not (takes_overrides or instead) and not strays[0].startswith("-"):
            instead = "; several words stand in quotes"
        parser.error(f"not understood: {' '.join(strays)}{takes}{instead}")
    options.overrides, options.run = overrides, module.run
    options.is_short = is_short
    if getattr(options, "trust", False):
        options.run = _trusting(module.run)
    if not ends_itself:
        options.run = _ended_by_signals(options.run)
    return options


SEVERAL = "`crosswalk sweep <file>` starts a run for each of several values."
SHOWN = "`crosswalk config show method=<method>` prints the configuration and runs nothing."
HYDRA = {"-m": SEVERAL, "--multirun": SEVERAL, "--cfg": SHOWN, "-c": SHOWN}
"""What stands for options of Hydra's programs, whose overrides are those of this one."""


def _check_options(
    parser: argparse.ArgumentParser, words: Sequence[str], *, takes_overrides: bool
) -> None:
    """Refuse options that are misspelt, before they are taken for overrides, or others missed."""
    from crosswalk.config.words import did_you_mean

    options = [*parser._option_string_actions, *HYDRA, "--debug", "--config-dir"]
    known = [option[2:] for option in options if option.startswith("--")]
    for word in words:
        written = re.fullmatch(r"--([A-Za-z][\w-]*)(=.*)?", word, re.DOTALL)
        if word == "--":
            return  # no option follows
        if written is None or written[1] in known:
            continue
        near = did_you_mean(written[1], known).replace("mean ", "mean --")
        if near and not (takes_overrides and written[2] and _is_key(written[1])):
            parser.error(f"there is no option --{written[1]}.{near}")


def _is_key(name: str) -> bool:
    from crosswalk.config.keys import TOP
    from crosswalk.config.search import groups

    return name in TOP or name in groups()


def _meant(words: Iterable[str], parser: argparse.ArgumentParser) -> str:
    """Return what words may stand for: files of groups, and paths that exist."""
    from crosswalk.config.search import group_values

    meant = []
    for word in words:
        groups = [group for group in ("method", "data", "encoder") if word in group_values(group)]
        if os.path.isdir(word) and os.path.exists(os.path.join(word, "config.yaml")):
            meant.append(f"resume={word} (go on with it) or checkpoint={word} (start from it)")
        elif os.path.exists(word):
            key = "checkpoint" if word.endswith((".ckpt", ".safetensors", ".pth")) else "data.root"
            meant.append(f"{key}={word}")
        elif groups:
            option = f"--{groups[0]}"
            is_option = option in parser._option_string_actions
            meant.append(f"{option} {word}" if is_option else f"{groups[0]}={word}")
    return f". Did you mean {' '.join(meant)}?" if meant else ""


def _trusting(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return a command that builds whatever stored configurations name."""

    def trusting_run(options: argparse.Namespace) -> int:
        from crosswalk.config.stored import trusting

        with trusting():
            return int(run(options))

    return trusting_run


def _ended_by_signals(run: Callable[[argparse.Namespace], int]) -> Callable[[Any], int]:
    """Return a command that Ctrl-C and SIGTERM end with one line, whatever they break on the way.

    Its pools and loaders fork processes with the handler: Ctrl-C, which reaches them too, is none
    of theirs.
    """

    def ending_run(options: argparse.Namespace) -> int:
        process, received = os.getpid(), list[int]()

        def end(number: int, frame: FrameType | None) -> None:
            if os.getpid() != process:
                if number == signal.SIGTERM:
                    os._exit(128 + number)
                return
            if received:  # a second time: the user does not want to wait
                os._exit(128 + number)
            received.append(number)
            raise SystemExit(128 + number)

        if threading.current_thread() is not threading.main_thread():
            return int(run(options))
        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return int(run(options))
        except BaseException:
            if not received:
                raise
            name = signal.Signals(received[0]).name
            print(f"crosswalk: interrupted by {name}", file=sys.stderr)
            return 128 + received[0]
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    return ending_run


def _split(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words for the parser, and the overrides: what looks so and is nothing of its.

    Options of the parser, their values, and files where it waits for one may look so.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--row")
        >>> _split(parser, ["--row", "margin=0.1", "--row=a", "trainer=cpu", "--seed=2"])
        (['--row', 'margin=0.1', '--row=a'], ['trainer=cpu', 'seed=2'])
    """
    rest: list[str] = []
    overrides: list[str] = []
    positionals = sum(not action.option_strings for action in parser._actions)
    waits = False
    for word in words:
        option = parser._option_string_actions.get(word.partition("=")[0])
        if waits or option is not None:
            waits = not waits and option is not None and option.nargs != 0 and "=" not in word
            rest.append(word)
        elif OVERRIDE.match(word) and not (positionals and os.path.exists(word)):
            overrides.append(word.removeprefix("--"))
        else:
            positionals -= not word.startswith("-")
            rest.append(word)
    return rest, overrides


def _print_anywhere() -> None:
    """Let output replace the signs that its encoding lacks: no run ends for want of an arrow."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        lacking = error.object[error.start : error.end]
        escaped = [sign.encode("ascii", "backslashreplace").decode() for sign in lacking]
        return "".join(map(PLAIN_SIGNS.get, lacking, escaped)), error.end

    codecs.register_error("crosswalk.plain", replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="crosswalk.plain")


def _warn_as_notes(format_other: Callable[..., str] = warnings.formatwarning) -> None:
    """Let what this package warns of, which is advice, read like its other notes."""

    def formatted(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        is_ours = category is UserWarning and Path(filename).is_relative_to(Path(__file__).parent)
        return (
            f"note: {message}\n"
            if is_ours
            else format_other(message, category, filename, lineno, line)
        )

    warnings.formatwarning = formatted


def _group(words: Iterable[str]) -> list[str]:
    """Return the commands whose names go on after these words; all after none."""
    start = "".join(f"{word} " for word in words)
    return [name for name in COMMANDS if name.startswith(start)]


def _listed(names: Iterable[str]) -> str:
    return "\n".join(f"  {name:16} {COMMANDS[name].summary}" for name in names)


def _no_command(words: Sequence[str]) -> str:
    from crosswalk.config.words import did_you_mean

    names = _group(words[:1])
    word = " ".join(words[:2] if names else words[:1])
    nearest = did_you_mean(word, names or COMMANDS) or did_you_mean(" ".join(words[:2]), COMMANDS)
    return f"there is no command {word!r}.{nearest} `crosswalk --help` lists them."


def _is_users_mistake(error: Exception) -> bool:
    """Return whether the error was raised on purpose, by a line of this package.

    A RuntimeError is then no mistake in the words of the command, but in how the run stands.
    """
    from crosswalk.files import FULL, NO_PATH, READ_ONLY

    if isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
        return True
    if isinstance(error, ImportError) and error.name is not None:
        return False  # raised by an import statement, not by a message that names an extra
    if getattr(error, "errno", None) in (*FULL, *READ_ONLY, *NO_PATH):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    return text
