"""Headless Chromium for tests, over the DevTools protocol's pipe: no driver, no port, the standard library only.

Contract: `Chromium.find()` is the program's path or None; inside `with Chromium(program) as browser`,
`browser.open(url, width)` loads a page in a window `width` CSS pixels wide and returns a `Page`. The value of `script`,
an expression, is its `result`. With `dark=True` the page is told that the reader prefers dark colours. The screenshot
is that of the `whole` page or, which is faster, of the window. The protocol's messages are JSON, ended by a zero byte,
written to the browser's file descriptor 3 and read from its 4.

    with Chromium(Chromium.find()) as browser:
        page = browser.open("file:///tmp/report.html", 390)
        assert page.errors == [] and page.requests == []
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--hide-scrollbars",  # as on a telephone; a screenshot of the whole page is laid out without them
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-pipe",
)
HEIGHT = 900
SECONDS = 60
# In the browser's process, before it becomes one: the pipe's ends become descriptors 3 and 4.
BECOME = "import os, sys; _, r, w, *run = sys.argv; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execv(run[0], run)"


@dataclass
class Page:
    """What one page did while it loaded, and how it lies.

    Attributes:
        text: what a reader sees.
        result: value of the script that was run in it.
        errors: lines that the console would show in red, uncaught exceptions among them.
        requests: addresses it asked for, without its own and without `data:`.
        scroll_width, client_width: CSS pixels that the page needs, and has.
        images: `(source, natural width in pixels)` of each image; 0 where it could not be shown.
        background: colour behind the text, as CSS has it.
        screenshot: PNG of the whole page, or of what the window shows.
    """

    text: str = ""
    result: object = None
    errors: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    scroll_width: int = 0
    client_width: int = 0
    images: list = field(default_factory=list)
    background: str = ""
    screenshot: bytes = b""


class Chromium:
    def __init__(self, program):
        self.program = program

    @staticmethod
    def find():
        return next((path for path in map(shutil.which, NAMES) if path), None)

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self.out = (high(end) for end in os.pipe())
        self.into, theirs_out = (high(end) for end in os.pipe())
        command = [self.program, *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", BECOME, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer, self.events, self.number = b"", [], 0
        return self

    def __exit__(self, *exception):
        try:
            self.call("Browser.close")
            self.process.wait(SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        finally:
            os.close(self.out)
            os.close(self.into)
            self.profile.cleanup()

    def open(self, url, width, script=None, dark=False, whole=True):
        """Loads `url` in a window `width` CSS pixels wide, and runs `script` in it; returns the `Page`."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

        def call(method, **parameters):
            return self.call(method, session, **parameters)

        self.events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            call(f"{domain}.enable")
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        call("Emulation.setEmulatedMedia", features=[scheme])
        call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")
        settle = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 200))))"
        call("Runtime.evaluate", expression=settle, awaitPromise=True)

        def value(expression):
            options = {"returnByValue": True, "awaitPromise": True}
            return call("Runtime.evaluate", expression=expression, **options)["result"]["value"]

        result = value(script) if script else None
        page = Page(
            result=result,
            text=value("document.body.innerText"),
            scroll_width=value("document.documentElement.scrollWidth"),
            client_width=value("document.documentElement.clientWidth"),
            images=value("Array.from(document.images, image => [image.src.slice(0, 80), image.naturalWidth])"),
            background=value("getComputedStyle(document.body).backgroundColor"),
            screenshot=base64.b64decode(call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]),
        )
        page.errors = [line for event in self.events if (line := error_line(event))]
        sent = (e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent")
        page.requests = [address for address in sent if address != url and not address.startswith("data:")]
        self.call("Target.closeTarget", targetId=target)
        return page

    def call(self, method, session=None, **parameters):
        """Sends one command and returns its result; events that come meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())

    def receive(self):
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self.buffer:
            if not select.select([self.into], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"{self.program} said nothing for {SECONDS} s")
            part = os.read(self.into, 1 << 20)
            if not part:
                raise ConnectionError(f"{self.program} ended with status {self.process.wait()}")
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)


def high(descriptor):
    """The descriptor at a number that 3 and 4 cannot collide with."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return copy


def error_line(event):
    """What the console would show in red for a protocol event, or None."""
    parameters = event.get("params", {})
    match event.get("method"):
        case "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            return details.get("exception", {}).get("description") or details["text"]
        case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
            return " ".join(str(part.get("value", part.get("description"))) for part in parameters["args"])
        case "Log.entryAdded" if parameters["entry"]["level"] == "error":
            return f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}".strip()
    return None
