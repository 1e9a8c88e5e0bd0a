"""`python _polls.py PLAN`: polls at their times whether earlier ones were answered or not, each on a connection of its own.

The plan is JSON: where, how many a second, for how long, how they jitter, and the requests of one poll. One line of JSON comes back.
Latency counts from the time at which a poll was due, so that a server that stalls cannot hide it (an open loop).
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tally:
    """What came of the polls."""

    seconds: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """How long after it was due each poll was begun: the generator's own fault."""
    statuses: dict[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    failed: int = 0


async def request(host: str, port: int, text: bytes, tally: Tally) -> None:
    """One request on a new connection, read to its end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(text)
        answer = await reader.read(-1)
    finally:
        writer.close()
    status = answer[9:12].decode()
    tally.statuses[status] = tally.statuses.get(status, 0) + 1
    tally.bytes_in += len(answer)
    tally.bytes_out += len(text)


async def poll(due: float, host: str, port: int, requests: list[bytes], tally: Tally) -> None:
    """The requests of one poll, one after the other."""
    tally.late.append(time.monotonic() - due)
    try:
        async with asyncio.timeout(30):
            for text in requests:
                await request(host, port, text, tally)
    except (OSError, TimeoutError):
        tally.failed += 1
        return
    tally.seconds.append(time.monotonic() - due)


async def main(plan: dict[str, float | str | int | list[list[str]]]) -> Tally:
    """All polls of the plan."""
    tally, dice = Tally(), random.Random(1)
    host, port = str(plan["host"]), int(str(plan["port"]))
    listed = plan["requests"]
    assert isinstance(listed, list)
    requests = [
        f"GET /{path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: dram\r\nAccept-Encoding: identity\r\n"
        f"{header}Connection: close\r\n\r\n".encode()
        for path, header in listed
    ]
    seconds, rate = float(str(plan["seconds"])), float(str(plan["per_second"]))
    # Independent devices with their own jitter ask at random times: the gaps between polls are exponential.
    began, due = time.monotonic(), 0.0
    async with asyncio.TaskGroup() as tasks:
        while due < seconds:
            await asyncio.sleep(began + due - time.monotonic())
            tasks.create_task(poll(began + due, host, port, requests, tally))
            due += dice.expovariate(rate)
    return tally


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()))).__dict__))
