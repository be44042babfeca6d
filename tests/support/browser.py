"""A real browser for tests: Debian's Chromium without a window, spoken to over its DevTools protocol.

`python -m tests.support.browser URL OUT.png [--dark] [--width 390] [--cookie NAME=VALUE] [--wait CSS]` takes a picture.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Seen:
    """What happened while a page was open."""

    console_errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.seen = Seen()
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol. Raises RuntimeError with the browser's own message."""
        number = next(self._ids)
        reply = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(reply, 60)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:500])
        return result["result"].get("value")

    async def open(self, url: str, ready: str = "document.readyState === 'complete'") -> None:
        """Go there, and wait until the expression holds."""
        await self.call("Page.navigate", url=url)
        await self.until(ready)

    async def until(self, expression: str, timeout_s: float = 30.0) -> None:
        """Wait until a JavaScript expression holds. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not await self.evaluate(f"Boolean({expression})"):
                await asyncio.sleep(0.1)

    async def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """As on a screen of this size, with this colour scheme."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    async def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def _read(self) -> None:
        async for message in self._socket:
            content = message.json()
            if "id" in content and content["id"] in self._answers:
                self._answers.pop(content["id"]).set_result(content)
                continue
            self._note(content.get("method"), content.get("params") or {})

    def _note(self, method: str | None, what: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.seen.console_errors.append(" ".join(str(argument.get("value", "")) for argument in what["args"]))
        elif method == "Runtime.exceptionThrown":
            self.seen.console_errors.append(json.dumps(what["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.seen.console_errors.append(what["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.seen.requests.append(what["request"]["url"][:200])

    async def close(self) -> None:
        """No more of it."""
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A browser with one empty tab; it and all it started are gone afterwards."""
    assert CHROMIUM, "chromium is not installed"
    profile = tempfile.mkdtemp(prefix="tune-gpu-chromium-")
    flags = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run", "--disable-gpu", "--hide-scrollbars",
             "--disable-background-networking", "--disable-component-update", "--no-sandbox", "--disable-dev-shm-usage"]  # fmt: skip
    process = subprocess.Popen(
        [CHROMIUM, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        address = await _address(process, Path(profile) / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/json") as reply:
            tab = next(target for target in await reply.json() if target["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await page.call(f"{domain}.enable")
                yield page
                await page.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _address(process: subprocess.Popen[bytes], written: Path) -> str:
    """`host:port` of its DevTools, which it writes into its profile when it is ready."""
    async with asyncio.timeout(60):
        while process.poll() is None:
            if written.exists() and (lines := written.read_text().split()):
                return f"127.0.0.1:{lines[0]}"
            await asyncio.sleep(0.05)
    raise RuntimeError(f"chromium ended with {process.returncode}")


async def _picture(options: argparse.Namespace) -> None:
    async with browser() as page:
        await page.look(width=options.width, height=options.height, dark=options.dark)
        for cookie in options.cookie:
            name, _, value = cookie.partition("=")
            await page.call("Network.setCookie", name=name, value=value, url=options.url)
        await page.open(options.url)
        if options.wait:
            await page.until(f"document.querySelector({options.wait!r})")
        await asyncio.sleep(options.settle)
        if options.script:
            print(await page.evaluate(options.script))
            await asyncio.sleep(options.settle)
        await page.picture(options.out, whole=not options.viewport)
        print(json.dumps(vars(page.seen)), file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--viewport", action="store_true", help="only what is seen without scrolling")
    parser.add_argument("--cookie", action="append", default=[])
    parser.add_argument("--wait")
    parser.add_argument("--settle", type=float, default=1.0)
    parser.add_argument("--script")
    asyncio.run(_picture(parser.parse_args()))
