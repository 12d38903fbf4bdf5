"""Which side of a text that is too long is cut off."""

from typing import Literal

Direction = Literal["left", "right"]
