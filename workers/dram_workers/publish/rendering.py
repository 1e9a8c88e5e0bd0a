"""Templates for pages. Everything put into HTML is escaped."""

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

SHARED = "dram_workers.publish"
"""The package with the style that all pages have."""


def render(template: str, /, package: str = SHARED, **values: object) -> str:
    """Fill a template of a package; a name that it uses and nobody gave is an error."""
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates"), PackageLoader(SHARED, "templates")]),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
