"""The site of the documentation: it is built whole, needs no network, and a fault in a page fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAULTS = {
    "nowhere.md": "[a page](nowhere.md)",
    "no-such-heading": "[a heading](#no-such-heading)",
    "nowhere.svg": "![a picture](nowhere.svg)",
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    done = python("-m", "docs.site", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_page_is_on_it(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert len(pages) > 40
    wanted = {page.with_name("index.html") if page.stem == "README" else page.with_suffix(".html") for page in pages}
    examples = {Path("examples", f"{path.name}.html") for path in (ROOT / "examples").iterdir() if path.is_dir()}
    there = {path.relative_to(site) for path in site.rglob("*.html")}
    assert wanted | examples | {Path("reference/chart.html"), Path("contributing.html")} <= there


def test_every_link_leads_to_something_on_it(site: Path) -> None:
    links = {
        (page, link)
        for page in site.rglob("*.html")
        for link in re.findall(r'(?:href|src)="(?!\w+:)([^"#?]+)', page.read_text())
    }
    assert len(links) > 1000
    lost = {f"{page.relative_to(site)}: {link}" for page, link in links if not (page.parent / link).exists()}
    assert lost == set()


def test_nothing_is_fetched_by_who_reads_it(site: Path) -> None:
    loads = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)="((?:https?:)?//[^"]+)""")
    found = {link for page in site.rglob("*.html") for link in loads.findall(page.read_text())}
    styles = {style.name for style in site.rglob("*.css") if re.search(r"url\([\"']?(?:https?:)?//", style.read_text())}
    assert found | styles == set()


def test_a_fault_in_a_page_fails(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "index.md").write_text("\n\n".join(["# A page", *FAULTS.values()]))
    build = "import sys, pathlib, docs.site.__main__ as site; sys.exit(site.build(pathlib.Path(sys.argv[1])))"

    done = python("-c", build, str(tmp_path))

    assert done.returncode == 1
    assert [told for told in FAULTS if told not in done.stderr] == []
