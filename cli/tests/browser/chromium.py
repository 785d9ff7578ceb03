"""A headless Chromium, driven over the DevTools protocol through a pair of pipes: no library and no port."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The longest wait for an expected event.
SOON_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The program, if there is one: MOBULA_CHROMIUM names it, or the path has it."""
    named = os.environ.get("MOBULA_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A browser with one page. Ends with the `with` block, and leaves nothing behind."""

    def __init__(self, program: str, width: int = 1280, height: int = 900) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mobula-chromium-", ignore_cleanup_errors=True)
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        # The browser reads descriptor 3 and writes descriptor 4.
        command = [
            "sh", "-c", f'exec 3<&{to_read} 4>&{to_write} && exec "$@"', "sh",
            program,
            "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-extensions",
            "--disable-dev-shm-usage", "--force-color-profile=srgb", "--no-default-browser-check",
            f"--window-size={width},{height}", f"--user-data-dir={self._directory.name}",
        ]  # fmt: skip
        if os.geteuid() == 0:
            # Its sandbox cannot be made by root.
            command.append("--no-sandbox")
        self._log = Path(self._directory.name) / "log"
        self._process = subprocess.Popen(
            [*command, "about:blank"],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log.open("wb"),
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._number = 0
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._receive, daemon=True).start()
        targets = wait_for(
            lambda: [one for one in self._ask("Target.getTargets")["targetInfos"] if one["type"] == "page"],
            "the browser has a page",
        )
        attached = self._ask("Target.attachToTarget", {"targetId": targets[0]["targetId"], "flatten": True})
        self._session = attached["sessionId"]
        for part in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{part}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("Browser.close")
        except (OSError, TimeoutError):
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        self._directory.cleanup()

    # ---- the protocol ----

    def _receive(self) -> None:
        rest = b""
        with os.fdopen(self._from, "rb", buffering=0) as stream:
            while chunk := stream.read(1 << 16):
                *messages, rest = (rest + chunk).split(b"\0")
                for message in map(json.loads, messages):
                    if answers := self._answers.pop(message.get("id", 0), None):
                        answers.put(message)
                    else:
                        self.events.append(message)

    def _ask(self, method: str, words: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": words or {}}
        if session:
            message["sessionId"] = session
        answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answers[self._number] = answers
        os.write(self._to, json.dumps(message).encode() + b"\0")
        try:
            answer = answers.get(timeout=SOON_S)
        except queue.Empty:
            log = self._log.read_text(errors="replace")[-2000:]
            raise TimeoutError(f"no answer to {method} within {SOON_S} s; the browser's log ends: {log}") from None
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def ask(self, method: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        """Asks the page."""
        return self._ask(method, words, self._session)

    # ---- the page ----

    def open(self, address: str) -> None:
        """Opens an address, and waits until the page is there."""
        self.ask("Page.navigate", {"url": address})
        self.until("document.readyState === 'complete' && location.protocol === 'http:'", f"{address} is there")

    def eval(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        words = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.ask("Runtime.evaluate", words)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression: str, what: str) -> Any:
        """Waits until an expression is true in the page; while a page loads, it may have no value."""

        def holds() -> Any:
            try:
                return self.eval(f"Boolean({expression})")
            except RuntimeError:
                return False

        return wait_for(holds, what, lambda: self.eval("document.body.innerText"))

    def key(self, key: str) -> None:
        """Presses a key."""
        words = {"key": key, "code": key, "text": key} if len(key) == 1 else {"key": key, "code": key}
        if key == "Enter":
            words["text"] = "\r"
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        words["windowsVirtualKeyCode"] = codes.get(key, 0)  # type: ignore[assignment]
        self.ask("Input.dispatchKeyEvent", {"type": "keyDown", **words})
        self.ask("Input.dispatchKeyEvent", {"type": "keyUp", **words})

    def type(self, text: str) -> None:
        """Types a text into the element with the focus."""
        self.ask("Input.insertText", {"text": text})

    def look(self, width: int, height: int, dark: bool = False, scale: float = 1) -> None:
        """Sets the size of the window, and light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self, path: Path, clip: dict[str, float] | None = None) -> None:
        """Writes a picture of the page, or of a part of it."""
        words: dict[str, Any] = {"format": "png", "captureBeyondViewport": clip is not None}
        if clip is not None:
            words["clip"] = {**clip, "scale": 1}
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", words)["data"]))

    def errors(self) -> list[str]:
        """The errors and warnings of the page."""
        found = []
        for event in self.events:
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]["exceptionDetails"])[:500])
            elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(f"{event['params']['entry']['text']} {event['params']['entry'].get('url', '')}")
        return found


def wait_for(condition: Callable[[], Any], what: str, more: Callable[[], Any] | None = None) -> Any:
    """Waits until a condition holds; returns its value."""
    end = time.monotonic() + SOON_S
    while not (value := condition()):
        if time.monotonic() > end:
            seen = f"; the page: {str(more())[:3000]}" if more else ""
            raise TimeoutError(f"not within {SOON_S} s: {what}{seen}")
        time.sleep(0.02)
    return value
