"""A local S3 server in a process of its own: moto's, with a clock that can be set wrong and a door that can be shut.

It is told what to do by lines of JSON on its standard input, and ends with it: `{"down": true}`, `{"ahead_s": 3.5}`,
`{"requests_per_s": 2.0}`. It says `{"port": ...}` when it listens. Objects are in memory.
"""

from __future__ import annotations

import datetime
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from covsim.emulation.dying import die_with_parent
from covsim.world.conditions import RateLimit

BUCKET = "covsim"
_REFUSAL = [("Content-Type", "application/xml"), ("Connection", "close")]

Start = Callable[..., Any]


class Moods:
    """What the server is told to be like."""

    def __init__(self) -> None:
        self.is_down = False
        self.limit: RateLimit | None = None
        self.ahead_s = 0.0

    def hear(self, order: dict[str, Any]) -> None:
        """Obey one order."""
        self.is_down = order.get("down", self.is_down)
        self.ahead_s = order.get("ahead_s", self.ahead_s)
        if "requests_per_s" in order:
            rate = order["requests_per_s"]
            self.limit = None if rate is None else RateLimit(rate, time.monotonic())

    def refuses(self) -> bool:
        """Whether a request that comes now is turned away."""
        return self.is_down or (self.limit is not None and not self.limit.grants(time.monotonic()))

    def utcnow(self) -> datetime.datetime:
        """The time as the server believes it to be, without a zone, as moto wants it."""
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.ahead_s)
        return now.replace(tzinfo=None)


class Gate:
    """A WSGI application before another, which turns requests away while the server is to be down."""

    def __init__(self, application: Any, moods: Moods) -> None:
        self._application, self._moods = application, moods

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if self._moods.refuses():
            start("503 Service Unavailable", _REFUSAL)
            return [b"<Error><Code>ServiceUnavailable</Code></Error>"]
        answer: Iterable[bytes] = self._application(environ, start)
        return answer


def serve(host: str) -> None:
    """Listen on a free port until the standard input ends."""
    import moto.s3.models
    from moto.moto_server.werkzeug_app import create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as by a real store

        def log(self, type: str, message: str, *args: Any) -> None:
            return

    moods = Moods()
    moto.s3.models.__dict__["utcnow"] = moods.utcnow  # by which it stamps objects
    application = Gate(create_backend_app("s3"), moods)
    server = make_server(host, 0, application, threaded=True, request_handler=Quiet)
    s3_backends["123456789012"]["aws"].create_bucket(BUCKET, "us-east-1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_port}), flush=True)
    for line in sys.stdin:
        moods.hear(json.loads(line))


if __name__ == "__main__":
    die_with_parent()
    serve(sys.argv[1])
