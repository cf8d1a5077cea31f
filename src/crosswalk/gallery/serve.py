"""The page to search a gallery with, and its API: the routes of `crosswalk serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from crosswalk import __version__
from crosswalk.gallery.answers import THREADS, Answers, QuestionError
from crosswalk.gallery.gallery import Gallery
from crosswalk.gallery.web_guard import MAX_BYTES, Access, Guard, page
from crosswalk.gallery.web_models import (
    GONE,
    LONGEST_SENTENCE,
    MOST,
    PROBLEMS,
    About,
    Answer,
    ByEither,
    BySentence,
    Filters,
    Id,
    Size,
)

T = TypeVar("T")

JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
}


def app_of(gallery: Gallery, access: Access, *, log_queries: bool = False) -> FastAPI:
    """Return what answers to requests for the page and its API.

    Args:
        gallery: Is searched.
        access: Who may ask. Where a token is asked for, visitors are not told folders.
        log_queries: Whether a line on stderr tells of each search.
    """
    answers = Answers(gallery, tells_folders=access.token is None, log_queries=log_queries)
    app = FastAPI(
        title=f"crosswalk serve: {answers.name}",
        version=__version__,
        description="Pictures of one gallery, found by a sentence or by a picture.",
        docs_url=None,  # they would fetch scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(Guard, access=access)
    searches, pictures = ThreadPoolExecutor(THREADS), ThreadPoolExecutor(THREADS)

    async def in_turn(pool: ThreadPoolExecutor, function: Callable[..., T], *values: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *values)

    @app.get("/", include_in_schema=False)
    async def search_page() -> HTMLResponse:
        about = await in_turn(searches, answers.about)
        limits = {"most": MOST, "longest": LONGEST_SENTENCE, "max_bytes": MAX_BYTES}
        return page("search.html.j2", about=about, **limits)

    @app.get("/docs", include_in_schema=False)
    async def api_page(request: Request) -> HTMLResponse:
        address = str(request.base_url).rstrip("/")
        return page("api.html.j2", schema=app.openapi(), address=address)

    @app.get("/api/gallery", responses=PROBLEMS, summary="What can be searched")
    async def about() -> About:
        return await in_turn(searches, answers.about)

    @app.get("/api/search", responses=PROBLEMS, summary="Search by a sentence")
    async def search(asked: Annotated[BySentence, Query()]) -> Answer:
        return await in_turn(searches, answers.search, asked)

    @app.post("/api/search", responses=PROBLEMS, summary="Search by a sentence or a picture")
    async def search_by_either(
        asked: Annotated[ByEither, Form(media_type="multipart/form-data")],
    ) -> Answer:
        sent = None if asked.picture is None else asked.picture.file
        return await in_turn(searches, answers.search, asked, sent)

    @app.get("/api/similar/{id}", responses=PROBLEMS | GONE, summary="More like one that was found")
    async def similar(id: Id, asked: Annotated[Filters, Query()]) -> Answer:
        return await in_turn(searches, answers.similar, id, asked)

    @app.get(
        "/api/pictures/{id}",
        responses=JPEG | PROBLEMS | GONE,
        response_class=Response,
        summary="A picture, made small, as a JPEG without what its file says beside pixels",
    )
    async def picture(id: Id, size: Size = "small") -> Response:
        return Response(await in_turn(pictures, answers.picture, id, size), media_type="image/jpeg")

    @app.exception_handler(RequestValidationError)
    async def misspelt(request: Request, error: RequestValidationError) -> JSONResponse:
        told = "; ".join(f"{each['loc'][-1]}: {each['msg'].lower()}" for each in error.errors())
        return JSONResponse({"detail": f"{told}. /docs lists what can be asked."}, 422)

    @app.exception_handler(QuestionError)
    async def no_question(request: Request, error: QuestionError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, error.status)

    return app
