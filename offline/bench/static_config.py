"""The configuration of the static embeddings; apart from them, since model2vec need not be installed."""

from typing import Annotated

from pydantic import Field

from offline.configs.section import Section


class StaticConfig(Section):
    """The static embeddings.

    Attributes:
        encoder: the teacher's, by name or directory.
        dimensions: of an embedding, after PCA.
    """

    encoder: str
    dimensions: Annotated[int, Field(ge=1)] = 256
