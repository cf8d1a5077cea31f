"""Look for a sentence, or a picture, in pictures: with exported files, and without crosswalk.

python onnx_without_crosswalk.py model/ "a woman in a red coat" 1.jpg 2.jpg 3.jpg
needs `crosswalk export RUN --out model/ --format onnx --with-preprocessing` before, and
onnxruntime, Pillow and numpy.
"""

import json
import re
import string
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def opened(folder, what):
    session = onnxruntime.InferenceSession(folder / f"{what}.onnx")
    about = session.get_modelmeta().custom_metadata_map
    return session, json.loads(about["preprocessing" if what == "image" else "tokenizer"])


def as_seen(name):
    """Return a picture upright and on white; one of 16 bits is to be scaled to 8 before."""
    image = ImageOps.exif_transpose(Image.open(name)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def image_embeddings(folder, names):
    session, steps = opened(folder, "image")
    height, width = steps["image_size"]
    how = Image.Resampling[steps["interpolation"].upper()]
    images = [as_seen(name).resize((width, height), how) for name in names]
    return session.run(["embeddings"], {"pixels": np.stack(images)})[0]


def text_embeddings(folder, captions):
    session, how = opened(folder, "text")
    tokens = np.zeros((len(captions), how["context_length"]), dtype=np.int64)
    for row, caption in zip(tokens, captions, strict=True):
        ids = token_ids(folder, how, caption)
        if len(ids) > len(row):  # what ends a caption stays
            ids = [*ids[: len(row) - 1], how["end"] or ids[len(row) - 1]]
        row[: len(ids)] = ids
    return session.run(["embeddings"], {"tokens": tokens})[0]


def token_ids(folder, how, caption):
    known = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    if how["kind"] == "words":
        text = caption.lower() if how["lower_case"] else caption
        words = text.translate(str.maketrans("", "", string.punctuation)).split()
        end = [] if how["end"] is None else [how["end"]]
        return [known.get(word, how["unknown"]) for word in words] + end
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    rank = {tuple(line.split(" ")): number for number, line in enumerate(merges)}
    ids = [how["start"]]  # what follows is for ASCII; CLIP's own code knows other letters
    for word in re.findall(r"'(?:s|t|re|ve|m|ll|d)|[a-z]+|\d|[^\sa-z\d]+", caption.lower()):
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while pairs := [pair for pair in pairwise(parts) if pair in rank]:
            first, second = min(pairs, key=rank.__getitem__)
            text = "\n".join(["", *parts, ""]).replace("\n", "\n\n")
            parts = text.replace(f"\n{first}\n\n{second}\n", f"\n{first}{second}\n").split()
        ids += [known[part] for part in parts]
    return [*ids, how["end"]]


if __name__ == "__main__":
    folder, query, *names = sys.argv[1:]
    is_picture = Path(query).is_file()
    (row,) = (image_embeddings if is_picture else text_embeddings)(Path(folder), [query])
    scores = image_embeddings(Path(folder), names) @ row
    for place in np.argsort(-scores):
        print(f"{scores[place]:.3f} {names[place]}")
