"""The network of a student that starts from a Hugging Face encoder: the encoder's layers, head and query on them.

`offline/student/starting_encoder.py` loads the encoder and cuts it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from offline.student.network import Outputs, StudentNetwork, WeightGroup, bag_of_words, word_weights


class PretrainedStudent(StudentNetwork):
    """An encoder, a masked mean over its last layer, and on it what `Student` has: a head, and a query that
    reads a weighted mean of the token embeddings beside it.

    Tokens are all of the first kind to the encoder, as served ones are, and padding is its own padding
    token, whatever id it comes with: some encoders count positions by it.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: int,
        padding: int,
        labels: int,
        query: int,
        max_tokens: int,
        rate: float,
    ) -> None:
        super().__init__()
        words = word_embeddings(encoder)
        self.hidden, self.vocabulary = hidden, words.num_embeddings
        self.max_tokens = max_tokens
        self.encoder = encoder
        self.padding = padding
        self.rate = rate
        self.importance = nn.Linear(words.embedding_dim, 1)
        self.bag_norm = nn.LayerNorm(words.embedding_dim)
        self.query = nn.Linear(hidden + words.embedding_dim, query, bias=False)
        self.head = nn.Linear(hidden, labels)
        nn.init.zeros_(self.importance.weight)

    def outputs(self, input_ids: Tensor, attention_mask: Tensor) -> Outputs:
        ids = input_ids.masked_fill(attention_mask == 0, self.padding)
        hidden = self.encoder(input_ids=ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask[:, :, None].to(hidden.dtype)
        pooled = (hidden * kept).sum(1) / kept.sum(1)
        embedded = word_embeddings(self.encoder)(ids)
        bag = self.bag_norm(bag_of_words(embedded, word_weights(self.importance(embedded)), kept))
        queries = functional.normalize(self.query(torch.cat([pooled, bag], dim=1)), dim=1)
        return Outputs(pooled, self.head(pooled), queries)

    def weight_groups(self, rate: float, token_rate: float) -> list[WeightGroup]:
        words = word_embeddings(self.encoder).weight
        of_encoder = list(self.encoder.parameters())
        fresh = [
            weight for name, weight in self.named_parameters() if not name.startswith("encoder.")
        ]
        return [
            WeightGroup(fresh, rate, True),
            WeightGroup([weight for weight in of_encoder if weight is not words], self.rate, True),
            # As from scratch: decay would wear away the rows of tokens that few batches hold.
            WeightGroup([weight for weight in of_encoder if weight is words], self.rate, False),
        ]


def word_embeddings(encoder: nn.Module) -> nn.Embedding:
    """The token embeddings of a transformers model."""
    found: nn.Embedding = encoder.get_input_embeddings()  # type: ignore[operator]
    return found
