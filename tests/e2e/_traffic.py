"""`python _traffic.py PER_SECOND HOST…`: ask every device at a fixed rate, whatever it answers. Runs in a pod."""

import asyncio
import itertools
import sys

import aiohttp

QUESTIONS = [f"Question {number}: what about my router?" for number in range(16)]
LONGEST_SECONDS = 30.0
TOKENS = 32


async def ask(session: aiohttp.ClientSession, url: str, question: str) -> None:
    """One request; a device that does not answer counts by itself."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, "temperature": 0}
    try:
        async with session.post(url, json=body) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError):
        return


async def stream(session: aiohttp.ClientSession, host: str, per_second: float) -> None:
    """Requests to one device, each at its time, whether the last one was answered or not."""
    url = f"http://{host}:8080/v1/chat/completions"
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for number in itertools.count():
            await asyncio.sleep(began + number / per_second - loop.time())
            tasks.create_task(ask(session, url, QUESTIONS[number % len(QUESTIONS)]))


async def main(per_second: float, hosts: list[str]) -> None:
    """All devices, until the pod ends."""
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=5)
    timeout = aiohttp.ClientTimeout(total=LONGEST_SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as tasks:
        for host in hosts:
            tasks.create_task(stream(session, host, per_second))


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), sys.argv[2:]))
