"""The pages as Sphinx reads them: those of docs/, one for every folder of examples/, and the chart's."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
CHART = ROOT / "charts" / "dram"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_LANGUAGES = {".yaml": "yaml", ".md": "markdown", ".service": "ini"}
_LONG = 20
"""Lines of a data file that a page shows."""
_MADE = {
    "operations/alerts/index.md": "# Runbooks\n\nA page for each alert: what it means, where to look, what to do.\n",
    "reference/index.md": "# Reference\n\nEvery page here is made from the code.\n",
}
"""Pages that only list those below them."""
_MOVED = {
    **dict.fromkeys((CHART, CHART / "README.md", CHART / "values.yaml"), "reference/chart.md"),
    CONTRIBUTING: "contributing.md",
    EXAMPLES: "examples/index.md",
}


def stage(folder: Path) -> None:
    """Write every page and picture into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for source in sorted(DOCS.rglob("*")):
        inner = source.relative_to(DOCS)
        if source.suffix == ".md" and inner.parts[0] != "site":
            _put(folder / _index(inner), _rewritten(source, _index(inner)))
        elif source.suffix == ".svg":
            _put(folder / inner, source.read_text())
    for example in sorted(path for path in EXAMPLES.iterdir() if path.is_dir()):
        place = Path("examples", f"{example.name}.md")
        _put(folder / place, _example_page(example, place))
    _put(folder / "examples/index.md", _rewritten(EXAMPLES / "README.md", Path("examples/index.md")))
    for name, text in _MADE.items():
        _put(folder / name, text)
    for source, place in ((CHART / "README.md", Path("reference/chart.md")), (CONTRIBUTING, Path("contributing.md"))):
        _put(folder / place, _rewritten(source, place))
    for page in sorted(folder.rglob("index.md")):
        page.write_text(page.read_text() + "\n".join(_trees(page, folder)))


def _put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _index(path: Path) -> Path:
    return path.with_name("index.md") if path.name == "README.md" else path


def _rewritten(source: Path, place: Path) -> str:
    """The text of a page whose links lead to where the site has what they point at; code blocks stay as they are."""

    def target(found: re.Match[str]) -> str:
        there = _on_site((source.parent / found[1]).resolve())
        return found[0] if there is None else os.path.relpath(there, place.parent) + (found[2] or "")

    parts = _FENCE.split(source.read_text())
    return "".join(part if part.startswith("```") else _LINK.sub(target, part) for part in parts)


def _on_site(there: Path) -> Path | None:
    """Where the site has a file or folder of the repository; nothing where it has none."""
    if there in _MOVED:
        return Path(_MOVED[there])
    if there.is_relative_to(EXAMPLES) and there.exists():
        return Path("examples", f"{there.relative_to(EXAMPLES).parts[0]}.md")
    if there.is_relative_to(DOCS) and there.exists():
        return _index(there.relative_to(DOCS) / "README.md" if there.is_dir() else there.relative_to(DOCS))
    return None


def _example_page(folder: Path, place: Path) -> str:
    """The folder's README, or its name, then every other file."""
    readme = folder / "README.md"
    head = _rewritten(readme, place) if readme.exists() else f"# {folder.name}\n"
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != readme]
    return "\n".join([head, *(line for file in files for line in _shown(file, folder))])


def _shown(file: Path, folder: Path) -> Iterator[str]:
    lines = file.read_text().splitlines()
    yield from (f"## `{file.relative_to(folder)}`", "", f"```{_LANGUAGES.get(file.suffix, 'text')}")
    yield from lines[:_LONG] if file.suffix == ".jsonl" else lines
    yield from ("```", "")
    if file.suffix == ".jsonl" and len(lines) > _LONG:
        yield f"The first {_LONG} of {len(lines)} lines.\n"


def _trees(page: Path, folder: Path) -> Iterator[str]:
    """The navigation below a page: the pages that it links to, in its order, under its headings; then the rest."""
    text = _FENCE.sub("", page.read_text())
    first, *parts = _HEADING.split(text)
    seen: set[Path] = {page}
    for caption, body in [("", first), *zip(parts[::2], parts[1::2], strict=True)]:
        targets = [(page.parent / link).resolve() for link, _ in _LINK.findall(body)]
        fresh = [one for one in dict.fromkeys(targets) if one not in seen and _above(one, folder) == page]
        seen |= set(fresh)
        if fresh:
            yield from ("", *_tree(caption, [one.relative_to(page.parent) for one in fresh], "hidden"))
    rest = sorted(one for one in page.parent.rglob("*.md") if one not in seen and _above(one, folder) == page)
    if rest:
        yield from ("", *_tree("", [one.relative_to(page.parent) for one in rest], "maxdepth: 1"))


def _above(page: Path, folder: Path) -> Path:
    """The page under which another stands: the nearest index.md above it."""
    start = page.parent.parent if page.name == "index.md" else page.parent
    while start != folder and not (start / "index.md").exists():
        start = start.parent
    return start / "index.md"


def _tree(caption: str, pages: list[Path], option: str) -> Iterator[str]:
    yield from ("```{toctree}", f":{option}" if " " in option else f":{option}:")
    if caption:
        yield f":caption: {caption}"
    yield from ("", *(str(page.with_suffix("")) for page in pages), "```", "")
