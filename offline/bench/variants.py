"""Ablations: our system with one thing left out or changed, its precision among them.

Some are overrides of the run's configuration, and stages run anew for them. The others ask the same release
in another way: with another k, without a gate, its lexical index or its neighbours, or with fewer items in its store.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from offline.report.evaluation import OURS
from services.platform.errors import InvalidConfig

ORIGINS = ("generated", "unlabelled", "train")

_OVERRIDES = {
    # The samples are then those of the tuned prompt, which the run with PPO has compared.
    "no_ppo": ("ppo.steps=0",),
    "no_retrieval_loss": (
        "student.retrieval.relevance_weight=0",
        "student.retrieval.answer_weight=0",
    ),
    "int8": ("student.precision=int8",),
    **{f"without_{origin}": (f"knowledge.{origin}=false",) for origin in ORIGINS},
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One ablation.

    Attributes:
        name: short; empty for the run as it is.
        overrides: `section.key=value`, over the benchmark's configuration.
        store_items: items that the store holds, drawn at random; None for all of them.
        k: neighbours that are asked for; None for as many as the bundle says.
        gate: whether the store's share may depend on the text.
        lexical: whether the lexical index has a share.
        neighbours: whether the neighbours have.
    """

    name: str = ""
    overrides: tuple[str, ...] = ()
    store_items: int | None = None
    k: int | None = None
    gate: bool = True
    lexical: bool = True
    neighbours: bool = True

    @property
    def system(self) -> str:
        """What the rows of our system in this variant are called."""
        return f"{OURS}/{self.name}" if self.name else OURS


BASE = Variant()

_ASKED = {
    "no_gate": Variant("no_gate", gate=False),
    "no_lexical": Variant("no_lexical", lexical=False),
    "no_neighbours": Variant("no_neighbours", neighbours=False),
}


def variant_of(name: str) -> Variant:
    """The ablation of that name.

    `no_ppo`, `no_retrieval_loss`, `no_gate`, `no_lexical`, `no_neighbours`, `int8`, `without_ORIGIN`, `k=NUMBER` or
    `store=ITEMS`.

    Raises:
        InvalidConfig: there is none of that name.
    """
    if name in _OVERRIDES:
        return Variant(name, _OVERRIDES[name])
    if name in _ASKED:
        return _ASKED[name]
    if found := re.fullmatch(r"k=([1-9]\d*)", name):
        return Variant(name, k=int(found[1]))
    if found := re.fullmatch(r"store=([1-9]\d*)", name):
        return Variant(name, store_items=int(found[1]))
    raise InvalidConfig(
        f"There is no ablation {name!r}.",
        hint=f"Expected {', '.join((*_OVERRIDES, *_ASKED))}, k=NUMBER or store=ITEMS.",
    )


def variants(
    ablations: Sequence[str], without: Sequence[str], k: Sequence[int], store: Sequence[int]
) -> list[Variant]:
    """The ablations that a command line asks for, each once.

    Raises:
        InvalidConfig: one of them does not exist.
    """
    names = [
        *(name.replace("-", "_") for name in ablations),
        *(f"without_{origin}" for origin in without),
        *(f"k={count}" for count in k),
        *(f"store={items}" for items in store),
    ]
    return [variant_of(name) for name in dict.fromkeys(names)]
