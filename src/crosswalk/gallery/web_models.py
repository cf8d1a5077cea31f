"""What the API of the search page is asked, and what it answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import File, UploadFile
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from crosswalk.gallery.where import LONGEST

MOST = 1_000
"""Hits of an answer."""

LONGEST_SENTENCE = 2_000

Size = Literal["small", "large"]
Id = Annotated[int, InPath(ge=0, lt=1 << 64, description="of a hit")]


class Filters(BaseModel, extra="forbid"):
    """How many pictures are looked for, and which."""

    k: int = Field(20, ge=1, le=MOST, description="hits at most")
    camera: list[str] = Field([], description="any of these cameras")
    since: str = Field(
        "", description="taken then or later, such as 2026-11-01 or 2026-11-01 18:30"
    )
    until: str = Field("", description="taken then or before; a day alone is the whole day")
    where: str = Field(
        "", max_length=LONGEST, description="a filter, that of crosswalk search --where"
    )
    group: bool = Field(False, description="show near-duplicates as one hit with their number")
    rerank: bool = Field(False, description="order the first 200 by the neighbours they share")


class BySentence(Filters):
    """A sentence to search by."""

    sentence: str = Field(max_length=LONGEST_SENTENCE, description="what is to be seen")


class ByEither(Filters):
    """A sentence or a picture to search by."""

    sentence: str = Field("", max_length=LONGEST_SENTENCE, description="what is to be seen")
    picture: Annotated[UploadFile | None, File(description="or a picture")] = None


class Found(BaseModel):
    """A picture that was found."""

    id: str = Field(description="for the other addresses; 64 bits, which JavaScript rounds")
    score: float = Field(description="cosine of query and picture, from -1 to 1")
    probability: float | None = Field(description="that the person is in the gallery")
    count: int = Field(description="pictures that it stands for, where near-duplicates are one")
    name: str = Field(description="of the file")
    path: str | None = Field(description="of the file; null where a token is asked for")
    camera: int | float | str | None
    time: datetime | None
    own_id: str | None
    columns: dict[str, int | float | str | datetime] = Field(description="what else is known")


class Answer(BaseModel):
    """What was found, most similar first."""

    hits: list[Found]
    note: str = Field(description="what the scores say of the query; empty if nothing")


class About(BaseModel):
    """What can be searched."""

    name: str
    pictures: int
    model: str
    reads_captions: bool = Field(description="whether sentences can be searched by")
    columns: dict[str, str] = Field(description="kind of each: number, text or time")
    cameras: list[int | float | str] = Field(description="the first thousand")
    has_times: bool = Field(description="whether it is known when pictures were taken")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "the token is missing"},
    403: {"model": Problem, "description": "another page asks"},
    422: {"model": Problem, "description": "the question makes no sense"},
}
GONE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "there is no such picture, or it cannot be shown"}
}
