from pathlib import Path

from markupsafe import Markup

from crosswalk.pages import Section, render_page, table_tag
from tests.end_to_end.browser import measure


def test_a_name_of_200_letters_is_broken_and_widens_no_page(tmp_path: Path) -> None:
    name = "x" * 200
    parts = (
        *("<h3>{}</h3>", "<p>{}</p>", "<p><b>{}</b></p>", "<ul><li>{}</li></ul>"),
        *("<dl><dt>{0}</dt><dd>{0}</dd></dl>", "<details open><summary>{}</summary></details>"),
        '<div class="headline"><div><b>{0}</b><span>{0}</span></div></div>',
        '<div class="pictures"><div><span>{}</span></div></div>',
    )
    body = Markup("").join(Markup(part).format(name) for part in parts)
    table = table_tag(["name", "R@1"], [[name, "12.34"]])
    page = tmp_path / "page.html"
    sections = [Section("one", name, body + table)]
    page.write_text(render_page(name, sections, subtitle=name), encoding="utf-8")

    for width in (400, 1280):
        assert measure(page, tmp_path, width=width)["content_width"] <= width
