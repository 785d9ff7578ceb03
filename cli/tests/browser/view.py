"""The page of `mobula view` in a real browser: it loads, follows a session, filters, opens a call, can be used with the
keyboard, is of both colours and any width, and keeps the last state when the session ends.

    python3 cli/tests/browser/view.py MOBULA PROGRAM [PICTURES]

MOBULA is the command; PROGRAM is the example `watched`, a session that always does something. With PICTURES, a
directory, it also writes the pictures of the documentation. Exit code 77: there is no browser.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from chromium import SOON_S, Chromium, find, wait_for

WIDTHS = (1440, 1024, 720, 420)


@contextlib.contextmanager
def watched(program: str, directory: str) -> Iterator[subprocess.Popen[str]]:
    """A session that always does something. It ends when its standard input does."""
    environment = {**os.environ, "MOBULA_EVENTS": "all", "XDG_RUNTIME_DIR": directory}
    process = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(SOON_S)


@contextlib.contextmanager
def view(mobula: str, socket: str) -> Iterator[str]:
    """`mobula view`, and the address of its page."""
    command = [mobula, "view", "--json", "--interval", "0.25", "--socket", socket]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.terminate()
        process.wait(SOON_S)


def rows(page: Chromium, table: str) -> list[list[str]]:
    """The texts of a table's rows."""
    cells = "[...row.cells].map((cell) => cell.innerText.trim())"
    return page.eval(f"[...document.querySelectorAll('#{table} tbody tr')].map((row) => {cells})")


def check_loads_and_follows(page: Chromium, address: str) -> None:
    page.open(address)
    page.until("document.body.dataset.session === 'running'", "the session runs")
    page.until("document.querySelectorAll('#workers-table tbody tr').length >= 3", "there are workers")
    page.until("document.querySelector('#functions-table').innerText.includes('fit')", "functions are counted")
    page.until("/[1-9]/.test(document.querySelector('#figure-calls .value').innerText)", "calls are made")
    page.until("document.querySelector('#actors-table').innerText.includes('scores')", "the actor has a name")
    page.until("document.querySelector('#graph path')", "somebody calls the actor")
    # The figures grow, and the rows keep their elements.
    page.eval(
        "window.row = [...document.querySelectorAll('#functions-table tr')].find((row) => /fit/.test(row.innerText))"
    )
    number = int(page.eval("document.body.dataset.number"))
    finished = page.eval("window.row.innerText")
    page.until(f"document.body.dataset.number > {number + 1}", "more looks come")
    page.until(f"window.row.isConnected && window.row.innerText !== {json.dumps(finished)}", "the figures change")
    # Charts have a line and are told in words.
    page.until("document.querySelector('#figure-calls .line').getAttribute('d').length > 20", "there is a chart")
    page.until("document.querySelector('#figure-calls svg').ariaLabel.includes('calls: ')", "the chart has words")


def check_filters(page: Chromium) -> None:
    everything = len(rows(page, "functions-table"))
    assert everything >= 2, everything
    page.key("/")
    assert page.eval("document.activeElement.id") == "filter"
    page.type("fit")
    page.until(
        "[...document.querySelectorAll('#functions-table tbody tr')].every((row) => /fit/.test(row.innerText))",
        "only rows with the text are left",
    )
    count = page.eval("document.querySelector('#functions .count').innerText")
    assert " of " in count, count
    page.until("/fit/.test(document.querySelector('#calls-table tbody').innerText)", "calls are filtered, too")
    page.type(" no such text")
    page.until("document.querySelector('#functions-table').innerText.includes('no row has')", "nothing is left")
    page.key("Escape")
    page.until(f"document.querySelectorAll('#functions-table tbody tr').length >= {everything}", "all are back")
    # Sorted by a column, as its head says.
    page.eval(
        "[...document.querySelectorAll('#workers-table th button')].find((one) => one.innerText === 'Pid').click()"
    )
    assert page.eval("document.querySelector('#workers-table th').ariaSort") == "descending"
    pids = [int(row[0]) for row in rows(page, "workers-table")]
    assert pids == sorted(pids, reverse=True), pids


def check_calls(page: Chromium) -> None:
    page.eval("document.getElementById('calls').scrollIntoView()")
    choose = "document.getElementById('calls-state').value = '{}';"
    choose += " document.getElementById('calls-state').dispatchEvent(new Event('change'))"
    page.eval(choose.format("failed"))
    page.until(
        "[...document.querySelectorAll('#calls-table tbody tr')]"
        ".every((row) => row.cells[2]?.innerText.startsWith('failed'))",
        "only calls that failed",
    )
    page.eval(choose.format("finished"))
    page.until("document.querySelector('#calls-table tbody tr')?.innerText.includes('finished')", "calls that are over")
    # With the keyboard: to a call, into it, and out of it.
    page.eval("document.querySelector('#calls-table tbody button').focus()")
    page.key("Enter")
    page.until("document.getElementById('call').open", "the call opens")
    page.until("/Function/.test(document.getElementById('call-body').innerText)", "there is something to read")
    text = page.eval("document.getElementById('call-body').innerText")
    for word in ("State", "Made", "Arguments", "What it waits for"):
        assert word in text, text
    page.key("Escape")
    page.until("!document.getElementById('call').open", "the call closes")
    page.eval(choose.format(""))


def check_timeline_and_store(page: Chromium) -> None:
    page.eval("document.getElementById('timeline').scrollIntoView()")
    painted = (
        "(() => { const canvas = document.getElementById('timeline-canvas');"
        " const dots = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        " return new Set(new Uint32Array(dots.buffer)).size > 8; })()"
    )
    page.until(painted, "the timeline is painted")
    page.eval("document.getElementById('timeline-canvas').focus()")
    page.until(
        "(document.getElementById('timeline-canvas').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' })),"
        " /began/.test(document.getElementById('timeline-canvas').ariaLabel))",
        "the keyboard goes through the timeline",
    )
    page.eval("document.getElementById('store').scrollIntoView()")
    page.until("document.querySelector('#map-table svg.map path')?.getAttribute('d').length > 0", "there is a map")


def check_logs(page: Chromium) -> None:
    page.eval("document.getElementById('logs').scrollIntoView()")
    page.until("/round [0-9]+ is checked/.test(document.getElementById('log').innerText)", "what workers print")


def check_accessible(page: Chromium) -> None:
    assert page.eval("document.documentElement.lang") == "en"
    levels = page.eval("[...document.querySelectorAll('main h2, h1')].map((one) => one.tagName)")
    assert levels[0] == "H1" and levels.count("H1") == 1, levels
    nameless = page.eval(
        "[...document.querySelectorAll('button, input, select, canvas, svg[role=img], section')].filter((one) =>"
        " one.checkVisibility() && !(one.innerText || one.ariaLabel || one.getAttribute('aria-labelledby')"
        " || one.labels?.length || one.title))"
        ".map((one) => one.outerHTML.slice(0, 120))"
    )
    assert nameless == [], nameless
    assert page.eval("document.querySelectorAll('[aria-live]').length") == 1, "little is read aloud"
    # The focus can be seen.
    page.eval("document.getElementById('pause').focus()")
    page.key("Tab")
    assert page.eval("getComputedStyle(document.activeElement).outlineStyle") != "none"


def check_looks(page: Chromium, pictures: Path | None) -> None:
    ground = {}
    for dark in (False, True):
        for width in WIDTHS:
            page.look(width, 900, dark)
            page.until(f"innerWidth === {width}", "the window has its size")
            spare = page.eval("document.documentElement.scrollWidth - innerWidth")
            assert spare <= 0, f"the page is {spare} pixels wider than a window of {width}"
        ground[dark] = page.eval("getComputedStyle(document.documentElement).backgroundColor")
    assert ground[False] != ground[True], ground
    if pictures:
        take_pictures(page, pictures)
    page.look(1440, 900)


def take_pictures(page: Chromium, pictures: Path) -> None:
    page.eval("location.reload()")
    # Charts and timeline need some seconds to have something to show.
    time.sleep(20)
    # A paused page can be measured and painted.
    still = "if (document.getElementById('pause').ariaPressed !== '{}') document.getElementById('pause').click()"
    part = "(() => { const box = document.querySelector('%s').getBoundingClientRect();"
    part += " return { x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height }; })()"
    for name, dark in (("light", False), ("dark", True)):
        page.look(1200, 900, dark)
        page.eval("scrollTo(0, 0)")
        time.sleep(1.5)
        page.picture(pictures / f"view-{name}.png")
    page.look(1200, 900)
    page.eval("document.getElementById('timeline-seconds').value = '5'")
    page.eval("document.getElementById('timeline-seconds').dispatchEvent(new Event('change'))")
    page.eval("document.getElementById('timeline-arrows').click()")
    for name in ("timeline", "store"):
        page.eval(still.format("false"))
        page.eval(f"document.getElementById('{name}').scrollIntoView()")
        time.sleep(2.5)
        page.eval(still.format("true"))
        time.sleep(1)
        page.picture(pictures / f"view-{name}.png", page.eval(part % f"#{name}"))


def check_end(page: Chromium) -> None:
    page.until("document.body.dataset.session === 'ended'", "the session's end is told")
    assert "last state" in page.eval("document.getElementById('session').innerText")
    assert len(rows(page, "workers-table")) >= 3 and len(rows(page, "functions-table")) >= 2
    # Also for a page that is opened afterwards.
    page.eval("location.reload()")
    page.until("document.body.dataset.session === 'ended'", "the end is told again")
    page.until("document.querySelectorAll('#functions-table tbody tr').length >= 2", "the last state is there")


def check_refused(address: str) -> None:
    """Without the token, and under another name, there is nothing to see."""
    origin, token = address.rstrip("/").rsplit("/", 1)
    for request in (
        urllib.request.Request(f"{origin}/"),
        urllib.request.Request(f"{origin}/{'0' * len(token)}/"),
        urllib.request.Request(address, headers={"Host": "example.com"}),
        urllib.request.Request(f"{address}events", headers={"Origin": "http://example.com"}),
    ):
        try:
            urllib.request.urlopen(request, timeout=SOON_S)
        except urllib.error.HTTPError as error:
            assert error.code in (403, 404), error
        else:
            raise AssertionError(f"{request.full_url} was answered")


def main() -> int:
    mobula, program, *more = sys.argv[1:]
    pictures = Path(more[0]) if more else None
    browser = find()
    if browser is None:
        print("SKIP: there is no Chromium; `apt-get install chromium` brings one, or MOBULA_CHROMIUM names it")
        return 77
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="mobula-view-") as directory,
        watched(program, directory) as session,
        Chromium(browser) as page,
    ):
        assert session.stdout
        socket = session.stdout.readline().strip()
        # The output of workers comes there, too.
        threading.Thread(target=session.stdout.read, daemon=True).start()
        with view(mobula, socket) as address:
            page.look(1440, 900)
            check_refused(address)
            check_loads_and_follows(page, address)
            check_filters(page)
            check_calls(page)
            check_timeline_and_store(page)
            check_logs(page)
            check_accessible(page)
            check_looks(page, pictures)
            assert session.stdin
            session.stdin.close()
            wait_for(lambda: session.poll() is not None, "the program ends")
            check_end(page)
            errors = [error for error in page.errors() if "favicon" not in error]
            assert errors == [], errors
    print(f"the page loads, follows, filters, and survives the session's end: {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
