"""The doctor behind ``crosswalk data check``: everything that may be wrong with a data set.

Errors (missing, damaged or contradictory data) end with status 1; warnings (odd counts, shared or
cut-off captions, queries without a match) with 0. Each finding says what to do next. Nothing is
written into the data set.
"""

from __future__ import annotations

import json
import shlex
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from crosswalk.config.search import default_method
from crosswalk.config.words import did_you_mean
from crosswalk.data.readers import cuhk_pedes, icfg_pedes, own_images, own_pairs, rstp_reid
from crosswalk.data.readers.annotations import EXPECTED_COUNTS_FILE, PUBLISHED, Layout
from crosswalk.data.readers.camera_names import IMAGE_SUFFIXES
from crosswalk.data.readers.records import (
    SPLITS,
    AnySplits,
    ImageSplits,
    Splits,
    count,
    count_deviations,
    fingerprint,
    image_folder,
    images_outside,
    of_one_person,
    repeated_images,
)
from crosswalk.data.readers.tables import which_table
from crosswalk.doctor.findings import (
    Finding,
    Report,
    found,
    print_report,
    shared_identities,
)
from crosswalk.doctor.images import (
    IMAGE_SOURCES,
    CamStyle,
    Source,
    camera_style_images,
    detect_images,
    image_counts,
    image_set_findings,
    images_by_camera,
    published,
    set_notices,
    table_columns,
)
from crosswalk.doctor.integrity import (
    KINDS,
    ImageProblem,
    by_source,
    damaged_images,
    missing_images,
)
from crosswalk.files import path_meant
from crosswalk.image_files import MAX_PIXELS, TRAITS
from crosswalk.progress import Progress

CONTEXT_LENGTH = 77  # CLIP: captions of more tokens lose their end

TokenLengths = Callable[[Sequence[str]], Iterable[int]]


def _find_pairs(path: Path) -> Layout | None:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in files if file.suffix.lower() in own_pairs.SUFFIXES and file.is_file()]
    return Layout(found[0].parent, (found[0],), "", found[0].name) if len(found) == 1 else None


SOURCES: dict[str, Source] = {
    "cuhk_pedes": published("CUHK-PEDES", cuhk_pedes, cuhk_pedes.read_cuhk_pedes),
    "icfg_pedes": published("ICFG-PEDES", icfg_pedes, icfg_pedes.read_icfg_pedes),
    "rstp_reid": published("RSTPReid", rstp_reid, rstp_reid.read_rstp_reid),
    "own_pairs": Source("own pairs", own_pairs.read_own_pairs, _find_pairs),
    **IMAGE_SOURCES,
}
OWN = ("own_pairs", "own_images")

ALIASES = {
    "synthetic_pairs": "cuhk_pedes",
    "rstpreid": "rstp_reid",
    "market_1501": "market1501",
    "dukemtmc_reid": "dukemtmc",
}


def detect(root: Path) -> list[str]:
    """Return which data sets lie at ``root``, as keys of `SOURCES`.

    Example:
        >>> detect(Path("/nowhere"))
        []
    """
    texts = [key for key in SOURCES if key not in IMAGE_SOURCES and key not in OWN]
    found = {key: SOURCES[key].find(root) for key in texts}
    layouts = {key: layout for key, layout in found.items() if layout is not None}
    cuhk = layouts.get("cuhk_pedes")
    if cuhk is not None and cuhk.form not in ("reid_raw.json", "caption_all.json"):
        # One file per split is how others are stored too: an annotation of its own decides.
        others = [layout.folder for key, layout in layouts.items() if key != "cuhk_pedes"]
        if cuhk.folder in others:
            del layouts["cuhk_pedes"]
    keys = [*layouts, *detect_images(root)]
    if keys:
        return keys
    pairs, images = (SOURCES[key].find(root) for key in OWN)
    if pairs is None or images is None:
        return [key for key, layout in zip(OWN, (pairs, images), strict=True) if layout is not None]
    # A table of captions may lie beside folders of the images that it names.
    return ["own_pairs" if "caption" in table_columns(pairs.files[0]) else "own_images"]


def check(
    root: Path,
    dataset: str | None = None,
    *,
    token_lengths: TokenLengths | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    r"""Return what is wrong with the data set at ``root``.

    Args:
        root: Its folder or the one above; for own pairs and images the file or its folder.
        dataset: A key of `SOURCES`, such as ``cuhk_pedes`` or ``market1501``; None finds out.
        token_lengths: Counts the tokens of captions; None takes CLIP's tokenizer.
        progress: Called with (images checked, images in all).

    Raises:
        FileNotFoundError: If no data set is found.
        ValueError: If ``dataset`` is not known, or several are found.

    Example:
        >>> import tempfile
        >>> rows = "image,caption,person_id,split\n1.jpg,A man.,7,train\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "pairs.csv").write_text(rows)
        ...     report = check(Path(folder), token_lengths=lambda captions: [4] * len(captions))
        >>> report.status, report.findings[0].code, report.images[0].kind
        (1, 'missing', 'missing')
    """
    root = Path(root)
    keys = [_key(dataset)] if dataset is not None else _detected(root)
    if len(keys) > 1:
        raise ValueError(
            f"{root} holds several data sets: {', '.join(keys)}. Choose one with --dataset."
        )
    return _check_one(root, keys[0], token_lengths, progress)


def run_check(root: str, dataset: str | None = None, json_path: str | None = None) -> int:
    """Check every data set at ``root``, print the reports, and return the exit status.

    Args:
        root: Folder or file to check.
        dataset: Name of the data set; None checks all that are found.
        json_path: File to write the report to: an object for one data set, or an object with
            ``status`` and a list ``reports`` for several.

    Raises:
        FileNotFoundError: If there is no data set at ``root``, or no folder for ``json_path``.
        ValueError: If ``dataset`` is not known, or ``json_path`` lies inside the data set.

    Example:
        >>> run_check("/nowhere", dataset="own_pairs")  # doctest: +ELLIPSIS
        own pairs at /nowhere
        <BLANKLINE>
        ERROR  data.root=/nowhere is missing. Pass data.root=<your .csv or .jsonl file>. ...
        1 error, 0 warnings in own pairs.
        1
    """
    start = Path(root)
    keys = [_key(dataset)] if dataset is not None else _detected(start)
    _refuse_inside(start, keys, json_path)
    reports = []
    for key in keys:
        with Progress(f"Checking images of {SOURCES[key].name}") as progress:
            report = _check_one(start, key, None, progress)
        print_report(report)
        reports.append(report)
    status = max(report.status for report in reports)
    if json_path is not None:
        text = reports[0].to_json()
        if len(reports) > 1:
            content = {"status": status, "reports": [report.to_dict() for report in reports]}
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        # half a character of a name that is not UTF-8 becomes what JSON writes it as
        Path(json_path).write_text(text, encoding="utf-8", errors="backslashreplace")
        print(f"Report written to {json_path}.")
    return status


def _key(dataset: str) -> str:
    key = dataset.lower().replace("-", "_").replace(" ", "_")
    key = ALIASES.get(key, key)
    if key not in SOURCES:
        near = did_you_mean(key, [*SOURCES, *ALIASES])
        raise ValueError(
            f"There is no data set {dataset!r}.{near} Choose one of {', '.join(SOURCES)}."
        )
    return key


def _detected(root: Path) -> list[str]:
    keys = detect(root)
    if keys:
        return keys
    if not root.exists():
        raise FileNotFoundError(
            f"{root} does not exist.{path_meant(root)} Give the folder of a data set, or a table "
            f"of pairs or images: {', '.join(own_pairs.SUFFIXES)}."
        )
    if root.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(
            f"{root} is a single picture. Give the folder of its data set, or the table that names "
            "it."
        )
    above = root.absolute().parent
    layouts = {key: source.find(above) for key, source in SOURCES.items()}
    meant = [key for key, layout in layouts.items() if layout and layout.folder == above]
    if not root.is_dir():
        kind = f"a {root.suffix} file" if root.suffix else "a file without an ending"
        nearby = f" ({above} holds {SOURCES[meant[0]].name})" if meant else ""
        raise ValueError(
            f"{root} is {kind}, and no data set is read from one. Give the folder of a data set"
            f"{nearby}, or a table of pairs or images: {', '.join(own_pairs.SUFFIXES)}."
        )
    command = "crosswalk data check "
    columns = (own_pairs.REQUIRED, own_images.REQUIRED)
    below = [
        f"{command}{shlex.quote(str(folder))}"
        for folder in sorted(root.iterdir())
        if folder.is_dir() and any(SOURCES[data].find(folder) for data in PUBLISHED)
    ]
    table = " or ".join(below[:3]) or which_table(root, own_pairs.SUFFIXES, *columns, word=command)
    if meant and not table:
        raise FileNotFoundError(
            f"{root} holds no data set that is known, but the folder above does: did you mean "
            f"{above} ({' or '.join(SOURCES[key].name for key in meant)})?"
        )
    raise FileNotFoundError(
        f"{root} holds no data set that is known. Looked there, and in folders of the name of the "
        "data set, for reid_raw.json, caption_all.json or one file per split (CUHK-PEDES), "
        "ICFG-PEDES.json or ICFG_PEDES.json (ICFG-PEDES), data_captions.json (RSTPReid), "
        "bounding_box_train/ and bounding_box_test/ (Market-1501, DukeMTMC-reID, Occluded-Duke), "
        "list_train.txt (MSMT17), train/, query/ and gallery/ with images (own images), and one "
        ".csv or .jsonl file (own pairs; own images with a column `path`)."
        f"{f' Try: {table}.' if table else ' Give the folder that holds one of these.'}"
    )


def _refuse_inside(root: Path, keys: Sequence[str], json_path: str | None) -> None:
    if json_path is None:
        return
    target = Path(json_path).resolve()
    for key in keys:
        layout = SOURCES[key].find(root)
        # a table in the folder one works in: see `refuse_inside`
        works_there = root.is_file() and target.parent == root.resolve().parent == Path.cwd()
        if (
            layout is not None
            and not works_there
            and target.is_relative_to(layout.folder.resolve())
        ):
            raise ValueError(
                f"--json {json_path} lies inside the data set {layout.folder.resolve()}, where "
                "nothing is ever written. Choose a file elsewhere."
            )
    if not target.parent.is_dir():
        raise FileNotFoundError(f"--json {json_path}: there is no folder {target.parent}.")


def _check_one(
    root: Path,
    key: str,
    token_lengths: TokenLengths | None,
    progress: Callable[[int, int], None] | None,
) -> Report:
    started = time.monotonic()
    source = SOURCES[key]
    try:
        splits: AnySplits = source.read(root)
    except (FileNotFoundError, ValueError) as error:
        layout = source.find(root)
        return Report(
            dataset=source.name,
            root=str(layout.folder if layout else root),
            layout=layout.name if layout else "",
            findings=(Finding("error", "annotation", str(error), ""),),
            seconds=time.monotonic() - started,
        )
    styled = camera_style_images(splits) if isinstance(splits, ImageSplits) else CamStyle()
    outside = {record.image_path for record in images_outside(splits)}  # nobody looks at them
    problems = [problem for problem in missing_images(splits) if problem.path not in outside]
    absent = {problem.path for problem in problems} | outside
    present = [record for _, record in splits if record.image_path not in absent]
    present += styled.records
    total = len({record.image_path for record in present})
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        if progress is not None:
            progress(done, total)

    traits_of: dict[Path, tuple[str, ...]] = {}
    problems += damaged_images(
        present,
        own=splits.own,
        traits_of=traits_of,
        progress=advance,
        ready=lambda: advance(0),
    )
    sources = by_source(splits, problems, more=(record.image_path for record in styled.records))
    findings = [
        *_image_findings(splits, problems, sources),
        *_outside_findings(splits),
        *_trait_findings(splits, traits_of),
        *(Finding("warning", "one_person", text, "") for text in of_one_person(splits)),
        *_count_findings(splits),
    ]
    notices = list(splits.notices)
    if isinstance(splits, ImageSplits):
        findings += [*image_set_findings(splits, key), *styled.findings]
        notices += [*set_notices(splits, key), *styled.notices]
        counts = image_counts(splits)
        trainable = all(counts[name]["images"] for name in counts)
    else:
        captions = [caption for _, record in splits for caption in record.captions]
        people = {name: {record.person_id for record in splits.split(name)} for name in SPLITS}
        findings += [
            # MSMT17, where ICFG-PEDES comes from, numbers the people of each split from 0
            *shared_identities(people, called=splits.person, ids_may_restart=key == "icfg_pedes"),
            *_repeated_image_findings(splits),
            *_caption_findings(splits, list((token_lengths or _clip_lengths)(captions))),
        ]
        counts = {name: count(splits.split(name)) for name in SPLITS}
        if not splits.train_is_labelled:
            counts["train"]["person_ids"] = 0
        trainable = bool(splits.train) and bool(splits.test)
    findings.sort(key=lambda finding: finding.severity != "error")
    deviations = count_deviations(splits)
    own_counts = (splits.root / EXPECTED_COUNTS_FILE).is_file()
    expected = {name: dict(numbers) for name, numbers in (splits.published or {}).items()}
    usable = trainable and all(finding.severity != "error" for finding in findings)
    return Report(
        dataset=splits.dataset,
        root=str(splits.root),
        layout=splits.layout,
        image_folder=str(image_folder(splits)),
        counts=counts,
        expected=expected,
        expected_from=EXPECTED_COUNTS_FILE if own_counts else "published" if expected else "",
        cameras=images_by_camera(splits) if isinstance(splits, ImageSplits) else {},
        sources=sources,
        images=tuple(problems),
        findings=tuple(findings),
        notices=tuple(notice for notice in notices if notice not in deviations),
        command=_training_command(root, key, splits) if usable else "",
        fingerprint=fingerprint(splits),
        seconds=time.monotonic() - started,
    )


def _training_command(root: Path, key: str, splits: AnySplits) -> str:
    # late: methods import torch, for seconds
    from crosswalk.config.data_kinds import methods_without_identities
    from crosswalk.types import ImageBatch, PairBatch

    methods, protocol = [default_method()], list[str]()
    if isinstance(splits, ImageSplits):
        methods = methods_without_identities([ImageBatch])
    elif not splits.train_is_labelled:
        methods = methods_without_identities([PairBatch])
        if not splits.val:  # nobody can be held out of training
            protocol = ["protocol=official"]
    if not methods:
        return ""
    # not make's words: it runs in a clone only, and takes paths from there
    words = [f"method={methods[0]}", f"data={key}", f"data.root={root}", *protocol]
    return shlex.join(["crosswalk", "train", *words])


def _image_findings(
    splits: AnySplits, problems: Sequence[ImageProblem], sources: dict[str, dict[str, int]]
) -> list[Finding]:
    without = "or train without these images: data.allow_missing=true."
    advice = {
        "missing": f"Complete the data set, {without}",
        "empty": f"Copy or unpack these files again, {without}",
        "truncated": f"The copy was cut off: copy or unpack these files again, {without}",
        "corrupt": "Fetch these files again, ask the authors of the data set about them, "
        f"{without}",
        "refused": f"Put plain image files there, of at most {MAX_PIXELS:,} pixels, {without}",
    }
    findings = []
    for kind in KINDS:
        whole = [name for name, row in sources.items() if row["missing"] == row["images"]]
        step = advice[kind]
        folders = [name for name in whole if name != "."]  # one row of a table is no folder
        if kind == "missing" and folders and len(whole) < len(sources):
            step = (
                f"Nothing of {', '.join(folders)} is there: the archive was incomplete, ask for "
                f"the rest. {step}"
            )
        elif kind == "missing" and len(whole) == len(sources):
            step = f"No image is there: unpack the images into {image_folder(splits)}."
        of_kind = [problem for problem in problems if problem.kind == kind]
        if kind == "missing" and all("did you mean" in problem.detail for problem in of_kind):
            step = "Write these names as the disk has them, or rename the files."
        told = {"empty": "without content (zero bytes)", "refused": "no plain file, or too large"}
        what = told.get(kind, kind)
        names = (f"{problem.path} ({problem.origin}): {problem.detail}" for problem in of_kind)
        findings += found("error", kind, "image", f"{what}.", step, names)
    return findings


def _outside_findings(splits: AnySplits) -> list[Finding]:
    return found(
        "error",
        "image_outside",
        "image",
        "outside the folder of the data set.",
        "Copy them or link to them from the folder, or pass data.allow_outside=true in training if "
        "you trust this annotation.",
        [f"{record.image_path} ({record.origin})" for record in images_outside(splits)],
    )


def _trait_findings(splits: AnySplits, traits_of: Mapping[Path, tuple[str, ...]]) -> list[Finding]:
    """Return what is unusual about how images are stored, and how they are read."""
    steps = {
        "turned": ("They are turned upright.", "They are read unturned."),
        "transparent": ("White shows through.", "Their hidden colours are used."),
        "deep": ("16 bits are scaled to 8.", "Values above 255 become white."),
        "animated": ("Remove them if they are no pictures of people.",) * 2,
    }
    as_published = (
        " Published data sets are read as the published codes read them; own ones "
        "(data=own_pairs, data=own_images) as people see them."
    )
    return [
        finding
        for trait, told in TRAITS.items()
        for finding in found(
            "warning",
            f"{trait}_image",
            "image",
            f"{told}.",
            steps[trait][not splits.own] + as_published * (not splits.own),
            [path for path, traits in traits_of.items() if trait in traits],
        )
    ]


def _repeated_image_findings(splits: Splits) -> list[Finding]:
    where: dict[Path, set[str]] = {}
    for name, record in splits:
        where.setdefault(record.image_path, set()).add(name)
    across = [path for path, names in where.items() if len(names) > 1]
    within = [
        path
        for name in SPLITS
        for path in repeated_images(splits.split(name))
        if len(where[path]) == 1
    ]
    return [
        *found(
            "error",
            "image_in_two_splits",
            "image",
            "in two splits.",
            "Give each image one split; fetch the annotation again if it is not your own.",
            [f"{path} ({', '.join(n for n in SPLITS if n in where[path])})" for path in across],
        ),
        *found(
            "warning",
            "repeated_image",
            "image",
            "named by several entries of one split.",
            "It counts several times in the gallery; fetch the annotation again, or put the "
            "captions of one image into one entry.",
            within,
        ),
    ]


def _count_findings(splits: AnySplits) -> list[Finding]:
    deviations = count_deviations(splits)
    if not deviations:
        return []
    own = (splits.root / EXPECTED_COUNTS_FILE).is_file()
    return [
        Finding(
            "warning",
            "counts",
            f"The counts are not {'those of ' + EXPECTED_COUNTS_FILE if own else 'as published'}.",
            "Generate the data set again with `crosswalk data synthesize`."
            if own
            else "Expected for a subset or another version; otherwise fetch the annotation again. "
            "Results are comparable with published ones only for equal counts.",
            tuple(deviations),
        )
    ]


def _caption_findings(splits: Splits, lengths: Sequence[int]) -> list[Finding]:
    people: dict[str, dict[tuple[str, int], None]] = {}
    empty, foreign, long = [], [], []
    numbers = iter(lengths)
    for name, record in splits:
        for caption in record.captions:
            length = next(numbers)
            if not caption.strip():
                empty.append(f"{record.image_path} ({record.origin})")
                continue
            if name != "train" or splits.train_is_labelled:
                people.setdefault(caption.strip(), {})[name, record.person_id] = None
            if not caption.isascii() and any(map(_is_foreign, caption)):
                foreign.append(f"{_short(caption)} ({record.origin})")
            if length > CONTEXT_LENGTH:
                long.append(f"{length} tokens: {_short(caption)} ({record.origin})")
    shared = [
        f"{_short(caption)}: " + ", ".join(f"{name} {splits.person(number)}" for name, number in of)
        for caption, of in people.items()
        if len(of) > 1
    ]
    return [
        *found(
            "error",
            "empty_caption",
            "caption",
            "empty.",
            "Write these captions, or remove them, in a copy of the annotation.",
            empty,
        ),
        *found(
            "warning",
            "shared_caption",
            "caption",
            "attached to several identities.",
            "They cannot tell these people apart, and cost accuracy in training and test; rewrite "
            "them if the data are yours.",
            shared,
        ),
        *found(
            "warning",
            "truncated_caption",
            "caption",
            f"longer than the {CONTEXT_LENGTH} tokens that CLIP reads.",
            "Methods that read CLIP's tokens do not see the end of them, those that read whole "
            "words count otherwise; shorten them if the data are yours.",
            long,
        ),
        *found(
            "warning",
            "foreign_script",
            "caption",
            "with letters of another script.",
            "CLIP was trained on English: correct them if the data are yours.",
            foreign,
        ),
    ]


def _clip_lengths(captions: Sequence[str]) -> Iterable[int]:
    from crosswalk.data.text.tokenizers import ClipTokenizer  # late: it imports torch, for seconds

    return ClipTokenizer(CONTEXT_LENGTH).lengths_untruncated(captions)


def _is_foreign(letter: str) -> bool:
    return letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN")


def _short(caption: str) -> str:
    text = " ".join(caption.split())
    return f'"{text}"' if len(text) <= 60 else f'"{text[:57]}..."'
