"""Labels of a task as people write them."""

from typing import Any

from offline.tasks.config import TaskConfig

DATA = {"train": "train.jsonl", "test": "test.jsonl"}


def labels(given: Any) -> dict[str, str]:
    return TaskConfig.model_validate({"name": "toy", "labels": given, "data": DATA}).labels


def test_a_list_of_labels_is_described_by_its_words() -> None:
    assert labels(["card_lost", "top-up"]) == {"card_lost": "card lost", "top-up": "top up"}


def test_truth_values_are_the_labels_that_rows_with_truth_values_have() -> None:
    assert labels([True, False]) == {"true": "true", "false": "false"}


def test_descriptions_are_kept() -> None:
    assert labels({"a": "first thing", "b": "second thing"})["a"] == "first thing"


def test_where_the_store_is_kept_does_not_count_and_neither_does_the_data_directory() -> None:
    from offline.pipeline.chain import as_json
    from offline.store.config import StoreConfig

    assert as_json(StoreConfig(backend="server", url="http://qdrant:6333")) == as_json(
        StoreConfig()
    )


def test_the_parameters_of_the_graph_count() -> None:
    from offline.pipeline.chain import as_json
    from offline.store.config import StoreConfig
    from services.store.backends.base import HnswParameters

    assert as_json(StoreConfig(hnsw=HnswParameters(m=8))) != as_json(StoreConfig())
