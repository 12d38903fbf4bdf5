"""Knowledge items as a table on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offline.knowledge.items import Items


def _highest(soft_label: Mapping[str, float]) -> str:
    label, probability = max(soft_label.items(), key=lambda one: one[1])
    return f"{label} {probability:.2f}"


def print_items(items: Items, found: Sequence[int], limit: int) -> None:
    """Print the first `limit` of the items found, and how many there are."""
    console = Console()
    if not console.is_terminal:
        console.width = 160
    table = Table("id", "label", "soft label", "origin", "text")
    for identity in found[:limit]:
        text, pair = items.texts[identity], items.pairs[identity]
        cells = (
            str(identity),
            items.labels[identity] or "",
            _highest(items.described(identity)["soft_label"]),
            items.origins[identity],
            text if pair is None else f"{text} | {pair}",
        )
        # Texts are data: nothing in them is markup.
        table.add_row(*(Text(" ".join(cell.split())) for cell in cells))
    console.print(table)
    console.print(
        f"{min(limit, len(found))} of {len(found)} items that fit, of {len(items)} of the release "
        f"{items.release.release}",
        highlight=False,
    )
