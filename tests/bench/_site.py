"""A plain web server over a folder: `python -m aiohttp.web -H ADDRESS -P PORT tests.bench._site:app FOLDER`.

ETag, 304 and ranges are those of aiohttp's own file responses; nothing of Dram runs in it.
"""

from pathlib import Path

from aiohttp import web


def app(arguments: list[str]) -> web.Application:
    """The application that `aiohttp.web` starts."""
    made = web.Application()
    made.router.add_static("/", Path(arguments[0]))
    return made
