"""A real Chromium, started once; every page that a test opens is watched for what must never happen."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "services" / "student"))

from page_under_test import OpenPage
from tiny_task import TinyTask, build_task

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "No Chromium on the PATH: `apt-get install chromium` on Debian, or name one in RETRIKT_CHROMIUM."
PATIENCE_MS = 15_000
"""For a machine that has other things to do; a test that passes does not wait for it."""

DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, of this module alone: Playwright's event loop would stop other tests from running theirs."""
    named = os.environ.get("RETRIKT_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        # The sandbox takes rights that containers and root do not have; every page here is our own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages of a service; afterwards none may have broken its policy, thrown, or asked elsewhere."""
    expect.set_options(timeout=PATIENCE_MS)
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_one(url: str, *, path: str = "/", **settings: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **settings})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"thrown: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text) if "policy" in message.text.lower() else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((url, "blob:", "data:"))
                else faults.append(f"asked elsewhere: {request.url}")
            ),
        )
        page.goto(url + path)
        expect(page.locator("#health")).not_to_have_attribute("data-state", "unknown")
        expect(page.locator("#release-facts")).not_to_be_empty()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not faults, faults


@pytest.fixture(scope="session")
def built_task(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    """Two releases, the first one live, with examples. Not to be changed."""
    task = build_task(tmp_path_factory.mktemp("browser") / "tiny", lexical=True)
    (task.directory / "examples.json").write_text('["wifi slow again", "my printer jam"]')
    return task


@pytest.fixture
def task(built_task: TinyTask, tmp_path: Path) -> TinyTask:
    """A copy of that, for a test that changes it."""
    return built_task.copy(tmp_path / "tiny")
