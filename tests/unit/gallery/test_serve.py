"""The search page and its API: what they answer, and whom they do not."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

import crosswalk
from crosswalk import Gallery
from crosswalk.gallery import web_guard
from crosswalk.gallery.gallery import Hit
from crosswalk.gallery.serve import app_of
from crosswalk.gallery.web_guard import HEADERS, MAX_BYTES, Access
from crosswalk.use.model import SentenceError
from tests.unit.gallery.drawn import HOSTILE, NUMBER, SENTENCE, drawn, picture

HOME = "http://127.0.0.1:8000"
HERE = Access(frozenset({"127.0.0.1", "localhost", "::1"}))
TOKEN = "a-token-of-many-signs"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with drawn(tmp_path_factory.mktemp("page"), crosswalk.load("tiny:rde")) as built:
        yield built


@pytest.fixture
def client(gallery: Gallery) -> TestClient:
    return TestClient(app_of(gallery, HERE), base_url=HOME)


@pytest.fixture
def guarded(gallery: Gallery) -> TestClient:
    return TestClient(app_of(gallery, HERE._replace(token=TOKEN)), base_url=HOME)


def sent(image: Image.Image, form: str = "PNG", **options: object) -> dict[str, Any]:
    content = io.BytesIO()
    image.save(content, form, **options)
    return {"picture": ("q.png", content.getvalue())}


def ranking(answer: Any) -> list[tuple[int, float]]:  # noqa: ANN401
    assert answer.status_code == 200, answer.text
    return [
        (int(hit["id"]), pytest.approx(hit["score"], abs=1e-6)) for hit in answer.json()["hits"]
    ]


def expected(hits: list[Hit]) -> list[tuple[int, float]]:
    return [(hit.id, hit.score) for hit in hits]


def test_the_api_finds_what_the_gallery_finds(client: TestClient, gallery: Gallery) -> None:
    hits = gallery.search(SENTENCE, 5)
    file = gallery.path.parent / "photos" / "3.png"

    by_address = client.get("/api/search", params={"sentence": SENTENCE, "k": 5})
    by_form = client.post("/api/search", data={"sentence": SENTENCE, "k": 5})
    by_picture = client.post("/api/search", files=sent(picture(3)), data={"k": 4})
    similar = client.get(f"/api/similar/{hits[0].id}", params={"k": 3})

    assert ranking(by_address) == ranking(by_form) == expected(hits)
    assert ranking(by_picture) == expected(gallery.search(file, 4))
    assert ranking(similar) == expected(gallery.similar(hits[0].id, 3))
    first = by_address.json()["hits"][0]
    assert first == {
        **{"id": str(hits[0].id), "score": pytest.approx(hits[0].score, abs=1e-6), "count": 1},
        "probability": pytest.approx(hits[0].probability),
        **{"name": hits[0].path.name, "path": str(hits[0].path), "camera": hits[0].camera},
        **{"time": str(hits[0].time).replace(" ", "T"), "own_id": hits[0].own_id},
        "columns": {"place": hits[0].columns["place"]},
    }


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ({"camera": ["0", "2"]}, {"where": "camera in (0, 2)"}),
        ({"since": "2026-11-04", "until": "2026-11-06"}, {
            "where": "time >= '2026-11-04' and time <= '2026-11-06'"}),
        ({"until": "2026-11-06 11:59", "where": "place == 'gate'"}, {
            "where": "time <= '2026-11-06 11:59' and place = 'gate'"}),
        ({"group": "true"}, {"group": True}),
        ({"rerank": "true"}, {"rerank": True}),
    ],
)  # fmt: skip
def test_filters_are_those_of_the_gallery(
    client: TestClient, gallery: Gallery, asked: dict[str, Any], same: dict[str, Any]
) -> None:
    hits = gallery.search(SENTENCE, 20, **same)

    by_address = client.get("/api/search", params={"sentence": SENTENCE, **asked})
    by_form = client.post("/api/search", data={"sentence": SENTENCE, **asked})

    assert ranking(by_address) == ranking(by_form) == expected(hits)
    assert [hit["count"] for hit in by_form.json()["hits"]] == [hit.count for hit in hits]
    assert 0 < len(hits) < NUMBER or "rerank" in asked


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"sentence": " "}, "search by a sentence or by a picture, one of them"),
        ({}, "sentence: field required"),
        ({"sentence": "a" * 3000}, "sentence: string should have at most 2000 characters"),
        ({"sentence": "a", "k": "0"}, "k: input should be greater than or equal to 1"),
        ({"sentence": "a", "k": "1001"}, "k: input should be less than or equal to 1000"),
        ({"sentence": "a", "kk": "3"}, "kk: extra inputs are not permitted"),
        ({"sentence": "a", "where": "camera > 1 or 1"}, "joins by or: join comparisons by `and`"),
        ({"sentence": "a", "where": "colour == 'red'"}, "asks for colour, which the gallery does"),
        ({"sentence": "a", "where": "camera == 1; drop table rows"}, "is no comparison of columns"),
        ({"sentence": "a", "since": "yesterday"}, "it holds a time, such as '2026-11-01'"),
        ({"sentence": "a", "until": "' or '1'='1"}, "it holds a time, such as '2026-11-01'"),
        ({"sentence": "a", "camera": ["1", "front"]}, "cameras are numbers here, not 1, front"),
        ({"sentence": "a", "camera": ["nan"]}, "cameras are numbers here, not nan"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_by_a_sentence(
    client: TestClient, asked: dict[str, Any], said: str
) -> None:
    answer = client.get("/api/search", params=asked)

    assert answer.status_code == 422
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no picture at all", "the picture cannot be read: it is cut off, or none"),
        (b"", "the picture cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "the picture cannot be read"),
        (sent(picture(1), "PPM")["picture"][1], "the picture cannot be read"),
        (sent(picture(1))["picture"][1][:80], "the picture cannot be read"),
        (sent(Image.new("1", (9_500, 9_500)))["picture"][1], "it states 9,500 x 9,500 pixels"),
    ],
    ids=["text", "nothing", "PostScript", "unusual", "cut off", "pixels"],
)
def test_what_is_no_picture_is_refused(client: TestClient, content: bytes, said: str) -> None:
    answer = client.post("/api/search", files={"picture": ("a.png", content)})

    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_a_sentence_and_a_picture_are_not_searched_together(client: TestClient) -> None:
    both = client.post("/api/search", files=sent(picture(1)), data={"sentence": SENTENCE})
    neither = client.post("/api/search", data={"k": 3})

    assert "not both" in both.json()["detail"]
    assert "one of them" in neither.json()["detail"]


def statuses(app: Any, receive: Any, **scope: object) -> list[Any]:  # noqa: ANN401
    """Return the status and the body of the answer to a request made by hand."""
    answered: list[Any] = []

    async def send(message: Any) -> None:  # noqa: ANN401
        answered.append(message.get("status") or message["body"])

    form = (b"content-type", b"multipart/form-data; boundary=x")
    given = {
        **{"type": "http", "method": "POST", "path": "/api/search", "query_string": b""},
        **{"root_path": "", "http_version": "1.1", "scheme": "http"},
        **{"headers": [(b"host", b"localhost"), form], **scope},
    }
    asyncio.run(app(given, receive, send))
    return answered


def test_too_much_is_refused_before_it_is_read(client: TestClient, gallery: Gallery) -> None:
    begin = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
    read: list[int] = []

    async def endless() -> Any:  # noqa: ANN401
        read.append(0)
        body = bytes(1_000_000) if read[1:] else begin
        return {"type": "http.request", "body": body, "more_body": True}

    stated = client.post("/api/search", content=b"x", headers={"content-length": str(10**9)})
    status, body = statuses(app_of(gallery, HERE), endless)

    assert (stated.status_code, status) == (413, 413)
    assert stated.json() == json.loads(body)
    assert "the picture is too large: at most 20 MB are read." in stated.text
    assert len(read) == 2 + MAX_BYTES // 1_000_000


def test_whoever_sends_too_slowly_is_told_so(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_guard, "SECONDS", 0.01)

    status, body = statuses(app_of(gallery, HERE), asyncio.Event().wait)

    assert status == 408
    assert b"took over" in body


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/gallery", {}, 200),
        ("/api/gallery", {"host": "localhost:9000"}, 200),
        ("/api/gallery", {"host": "[::1]"}, 200),
        ("/api/gallery", {"host": "LOCALHOST"}, 200),
        ("/", {"host": "evil.example"}, 421),
        ("/", {"host": "127.0.0.1.evil.example"}, 421),
        ("/", {"host": "evil.example:8000"}, 421),
        ("/", {"host": "127.0.0.1@evil.example"}, 421),
        ("/", {"host": "evil.example#127.0.0.1"}, 421),
        ("/", {"host": "192.168.1.1"}, 421),
        ("/", {"host": ""}, 421),
        ("/api/gallery", {"origin": HOME}, 200),
        ("/api/gallery", {"host": "localhost", "origin": "https://localhost"}, 200),
        ("/api/gallery", {"origin": "null"}, 403),
        ("/api/gallery", {"origin": "http://127.0.0.1:3000"}, 403),
        ("/api/gallery", {"origin": "http://evil.example"}, 403),
        ("/api/gallery", {"sec-fetch-site": "same-origin"}, 200),
        ("/api/gallery", {"sec-fetch-site": "none"}, 200),
        ("/api/gallery", {"sec-fetch-site": "same-site"}, 403),
        ("/api/gallery", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
    ],
)
def test_other_pages_and_other_names_are_refused(
    client: TestClient, path: str, headers: dict[str, str], status: int
) -> None:
    answer = client.get(path, headers=headers)

    assert answer.status_code == status
    assert (
        dict(answer.headers).items()
        >= {name: value for name, value in HEADERS.items() if "policy" not in name}.items()
    )


@pytest.mark.parametrize("hosts", [[], [b"localhost", b"evil.example"]])
def test_a_request_names_one_host(gallery: Gallery, hosts: list[bytes]) -> None:
    headers = [(b"host", host) for host in hosts]

    status, _ = statuses(app_of(gallery, HERE), None, headers=headers)

    assert status == 421


def test_a_server_on_all_addresses_is_called_by_any_address_and_its_names() -> None:
    access = Access(frozenset({"myhost"}), any_address=True)

    known = [access.knows(host) for host in ("10.0.0.7:8000", "[fe80::1]", "MyHost", "evil.net")]

    assert known == [True, True, True, False]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/api/gallery", "/nowhere"])
def test_nothing_is_answered_without_the_token(guarded: TestClient, path: str) -> None:
    wrong = {"authorization": f"Bearer {TOKEN}x"}
    basic = {"authorization": f"Basic {TOKEN}"}
    cookie = {"cookie": "crosswalk=x; " + TOKEN}

    answers = [guarded.get(path, headers=headers) for headers in ({}, wrong, basic, cookie)]
    answers.append(guarded.get(path, params={"token": TOKEN[:-1]}))

    for answer in answers:
        assert answer.status_code == 401
        assert "photos.gallery" not in answer.text
        assert ("<form" in answer.text) == (path in ("/", "/docs"))
    assert guarded.get("/api/gallery", headers={"authorization": f"bearer {TOKEN}"}).is_success


def test_the_token_in_the_address_becomes_a_cookie_that_no_script_reads(
    guarded: TestClient,
) -> None:
    signed_in = guarded.get("/", params={"token": TOKEN})

    assert signed_in.headers["refresh"] == "0; url=/"
    cookie = signed_in.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert "photos.gallery" in guarded.get("/").text
    assert guarded.get("/api/gallery").is_success


def test_visitors_by_a_token_are_not_told_folders(
    guarded: TestClient, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError(f"{gallery.path}/rows.sqlite is damaged")

    guarded.headers["authorization"] = f"Bearer {TOKEN}"
    found = guarded.get("/api/search", params={"sentence": SENTENCE})
    monkeypatch.setattr(gallery, "search", broken)
    failed = guarded.get("/api/search", params={"sentence": SENTENCE})

    assert found.json()["hits"][0]["path"] is None
    assert failed.status_code == 500
    for answer in (found, failed, guarded.get("/"), guarded.get("/api/gallery")):
        assert str(gallery.path.parent) not in answer.text


def test_a_damaged_gallery_is_named_to_its_owner(
    client: TestClient, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("rows.sqlite is damaged")

    monkeypatch.setattr(gallery, "search", broken)
    answer = client.get("/api/search", params={"sentence": SENTENCE})

    assert answer.status_code == 500
    assert answer.json()["detail"] == "the gallery cannot be searched: rows.sqlite is damaged"


@pytest.mark.parametrize(
    "id", ["..%2F..%2Fetc%2Fpasswd", "../photos/3.png", "%2Fetc%2Fpasswd", "-1", "1e3", "0", "5",
           str(2**64 - 1), str(2**64), "3.png", "null", "%00"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/pictures/", "/api/similar/"])
def test_no_address_leads_to_anything_but_a_picture_of_the_gallery(
    client: TestClient, path: str, id: str
) -> None:
    answer = client.get(path + id)

    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/json"


def test_pictures_are_sent_small_and_without_what_their_files_say(
    client: TestClient, gallery: Gallery
) -> None:
    file = gallery.path.parent / "photos" / "7.png"
    before = file.read_bytes()
    hit = gallery.search(file, 1)[0]
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    content = sent(picture(7).resize((3000, 4000)), "JPEG", comment=b"a secret", exif=exif)
    try:
        file.write_bytes(content["picture"][1])
        answers = [
            client.get(f"/api/pictures/{hit.id}", params={"size": size})
            for size in ("small", "large")
        ]
        file.write_text("root:x:0:0")
        text = client.get(f"/api/pictures/{hit.id}")
        file.unlink()
        gone = client.get(f"/api/pictures/{hit.id}")
    finally:
        file.write_bytes(before)

    images = [Image.open(io.BytesIO(answer.content)) for answer in answers]
    assert [(image.format, image.size) for image in images] == [
        ("JPEG", (192, 256)),
        ("JPEG", (1000, 1333)),
    ]
    for answer in answers:
        assert answer.headers["content-type"] == "image/jpeg"
        assert b"secret" not in answer.content
    assert client.get(f"/api/pictures/{hit.id}?size=huge").status_code == 422
    assert text.json() == {"detail": "the file 7.png is no picture any more."}
    assert gone.json() == {"detail": "the file 7.png is gone."}
    assert (text.status_code, gone.status_code) == (404, 404)


def test_what_pictures_are_called_is_escaped(client: TestClient, gallery: Gallery) -> None:
    answer = client.get("/api/search", params={"sentence": SENTENCE})
    page = client.get("/")

    assert f"{HOSTILE}.png" in [hit["name"] for hit in answer.json()["hits"]]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert page.headers["content-type"] == "text/html; charset=utf-8"


def test_cameras_and_the_name_of_the_gallery_are_escaped_on_the_page(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "path", Path(f"/{HOSTILE}.gallery"))
    monkeypatch.setattr(gallery, "values", lambda *_: [HOSTILE])
    monkeypatch.setattr(gallery, "built_with", HOSTILE)

    page = TestClient(app_of(gallery, HERE), base_url=HOME).get("/").text

    assert HOSTILE not in page
    assert page.count("&lt;img src=x") == 5


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_run_their_own_scripts_alone_and_fetch_nothing(client: TestClient, path: str) -> None:
    first, second = client.get(path), client.get(path)

    policy = first.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce is not None
    assert nonce[1] not in second.text
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in re.findall(r"<(?:script|style)\b[^>]*>", first.text):
        assert f'nonce="{nonce[1]}"' in tag
    assert not re.search(r"\son\w+=|style=|javascript:", first.text)
    assert set(re.findall(r"(?:src|href|action)=\"([^\"]*)\"", first.text)) <= {
        *("/", "/docs", "/openapi.json", "data:,"),
        *("#About", "#Answer", "#Found", "#Problem", "#HTTPValidationError"),
    }


def test_the_schema_and_its_page_tell_every_address(client: TestClient) -> None:
    schema, page = client.get("/openapi.json").json(), client.get("/docs").text

    assert list(schema["paths"]) == [
        *("/api/gallery", "/api/search", "/api/similar/{id}", "/api/pictures/{id}"),
    ]
    for path in schema["paths"]:
        assert path in page
    for name in ("sentence", "picture", "camera", "since", "until", "where", "group", "rerank"):
        assert f"<code>{name}</code>" in page
    assert client.get("/redoc").status_code == 404


@pytest.mark.parametrize("log_queries", [False, True])
def test_queries_are_logged_only_if_somebody_asks_for_it(
    gallery: Gallery, log_queries: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    client = TestClient(app_of(gallery, HERE, log_queries=log_queries), base_url=HOME)

    client.get("/api/search", params={"sentence": f"{SENTENCE}\n\x1b[2J", "k": 3, "camera": 1})
    client.post("/api/search", data={"sentence": SENTENCE, "where": "camera > "})

    out, err = capfd.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    for line in lines:
        del line["time"]
    told = {
        "query": "sentence",
        "sentence": f"{SENTENCE}\n\x1b[2J",
        "k": 3,
        "camera": ["1"],
        "hits": 3,
    }
    assert lines == ([{**told, "hits": 3}] if log_queries else [])
    assert out == ""


def test_a_mistake_of_ours_is_told_without_the_query(
    client: TestClient,
    gallery: Gallery,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError(SENTENCE)

    monkeypatch.setattr(gallery, "embed", fails)
    answer = client.get("/api/search", params={"sentence": SENTENCE})

    log = capfd.readouterr().err
    assert answer.status_code == 500
    assert "mistake of the program" in answer.json()["detail"]
    assert dict(answer.headers).items() >= HEADERS.items()
    assert "ZeroDivisionError" in log
    assert "test_serve.py" in log
    assert SENTENCE not in log + answer.text


def test_the_note_of_the_gallery_is_told_of_sentences_and_pictures(
    client: TestClient, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "note", lambda hits, query: f"{len(hits)} by a {query}")

    notes = [
        client.get("/api/search", params={"sentence": SENTENCE, "k": 3}),
        client.post("/api/search", files=sent(picture(1)), data={"k": 2}),
        client.get(f"/api/similar/{gallery.search(SENTENCE, 1)[0].id}"),
    ]

    assert [answer.json()["note"] for answer in notes] == [
        *("3 by a sentence", "2 by a picture", "")
    ]


def test_a_sentence_without_words_is_told_so(
    client: TestClient, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_words(sentence: str) -> None:
        raise SentenceError(0, sentence)

    monkeypatch.setattr(gallery, "embed", no_words)
    answer = client.get("/api/search", params={"sentence": "?"})

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("'?' has no words. Write what is to be seen")


def test_a_gallery_of_pictures_alone_asks_for_pictures(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "reads_captions", False)
    client = TestClient(app_of(gallery, HERE), base_url=HOME)

    answer = client.get("/api/search", params={"sentence": SENTENCE})

    assert "a model of images alone: search by a picture" in answer.json()["detail"]
    assert 'id="sentence"' not in client.get("/").text
