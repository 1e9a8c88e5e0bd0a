"""The HTTP server that tests put their handlers behind."""

import sys
from http.server import ThreadingHTTPServer


class HttpServer(ThreadingHTTPServer):
    """One that is silent about clients that hang up: on stderr it would stand in the output of whichever test runs then."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Tell of a handler's error, unless the client is the reason."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
