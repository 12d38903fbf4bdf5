"""What tests do with the page: open it, classify, and read what it shows."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page
from tiny_task import Service

OpenPage = Callable[..., Page]


def url_of(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


def classify(page: Page, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Classify", exact=True).click()


def winner(page: Page) -> Locator:
    """The heading with the best label; there once there is an answer."""
    return page.get_by_role("region", name=re.compile("about the")).get_by_role("heading", level=2)


def rows(page: Page, name: str) -> list[list[str]]:
    """The cells of a table, a list a row."""
    table = page.get_by_role("table", name=name)
    found = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
    return [[" ".join(cell.split()) for cell in row] for row in found]
