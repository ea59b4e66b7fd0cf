"""The files of the web page: what is served, to whom, with which headers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swapper.front import pages
from swapper.front.keys import ApiKey
from tests.front.conftest import House

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FOLDER = Path(pages.__file__).parent / "ui"
FILES = sorted(str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*") if file.is_file())


async def test_every_file_is_served_with_its_type(house: House) -> None:
    for name in FILES:
        got = await house.ask("GET", f"/ui/{name}")
        assert got.status == 200, name
        assert got.body == (FOLDER / name).read_bytes()
        assert got.headers["content-type"] == pages.TYPES[name.rpartition(".")[2]]
        assert got.headers["x-content-type-options"] == "nosniff"


async def test_the_page_may_load_nothing_from_elsewhere(house: House) -> None:
    got = await house.ask("GET", "/ui/")
    assert got.body == (FOLDER / "index.html").read_bytes()
    policy = dict(
        part.strip().split(" ", 1) for part in got.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    sources = {source for name, source in policy.items() if name.endswith("-src")}
    assert sources == {"'none'", "'self'"}


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host(name: str) -> None:
    found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", (FOLDER / name).read_text())
    assert set(found) <= {"http://www.w3.org"}  # SVG's name, which nobody asks for


async def test_a_browser_that_comes_in_is_led_to_it(house: House) -> None:
    for path in ("/", "/ui"):
        got = await house.ask("GET", path, headers=BROWSER)
        assert (got.status, got.headers["location"]) == (302, "ui/")
    assert b"every model" in (await house.ask("GET", "/")).body  # others are told in words


async def test_what_the_browser_has_is_not_sent_again(house: House) -> None:
    first = await house.ask("GET", "/ui/js/main.js")
    again = await house.ask(
        "GET", "/ui/js/main.js", headers={"if-none-match": first.headers["etag"]}
    )
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    head = await house.ask("HEAD", "/ui/js/main.js")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "../pages.py", "..%2fpages.py", "js/../../pages.py", "%2e%2e/pages.py", "/etc/passwd", "js", "js/",
        "nothing.js", "index.html/", "INDEX.HTML", "%00", "..\\pages.py",
    ],
)  # fmt: skip
async def test_no_path_leads_out_of_the_folder(house: House, path: str) -> None:
    assert (await house.ask("GET", f"/ui/{path}")).status == 404


async def test_only_reading(house: House) -> None:
    assert (await house.post("/ui/index.html", b"")).status == 405


async def test_the_page_needs_no_key_and_its_data_does(bare_house: House) -> None:
    await bare_house.open(api_keys=[ApiKey("me", "secret")])
    assert (await bare_house.ask("GET", "/", headers=BROWSER)).status == 302
    assert (await bare_house.ask("GET", "/ui/")).status == 200
    assert (await bare_house.ask("GET", "/")).status == 401
    assert (await bare_house.ask("GET", "/swapper/v1/state")).status == 401
