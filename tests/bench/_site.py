"""`python _site.py PORT FOLDER`: a plain web server. ETag, 304 and ranges are aiohttp's own; nothing of Dram runs in it."""

import sys

from aiohttp import web


def main(port: int, folder: str) -> None:
    """Serve until the process ends."""
    app = web.Application()
    app.router.add_static("/", folder)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
