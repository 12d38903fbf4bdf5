"""What the store service counts beside requests."""

from prometheus_client import Gauge, Histogram

from services.platform.metrics import SECONDS_BUCKETS, Metrics


class StoreMetrics:
    """Metrics of the store, registered with those of its requests.

    Attributes:
        requests: requests by route and outcome, see `services.platform.metrics`.
        wait, search: `retrikt_store_stage_seconds{stage}`, once a search: waiting for a thread, and
            searching (with reading the items, where they are asked for).
        vectors: `retrikt_store_search_vectors`: of one search.
        waiting: `retrikt_store_waiting`, read from the queue when it is asked for.
    """

    def __init__(self, max_waiting: int) -> None:
        """Register them; the queue takes `max_waiting` calls."""
        self.requests = Metrics("store")
        registry = self.requests.registry
        stage_seconds = Histogram(
            "retrikt_store_stage_seconds",
            "Seconds of each step of a search.",
            ["stage"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.wait, self.search = stage_seconds.labels("wait"), stage_seconds.labels("search")
        self.vectors = Histogram(
            "retrikt_store_search_vectors",
            "Vectors of one search.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.waiting = Gauge(
            "retrikt_store_waiting", "Calls of the backend that run or wait.", registry=registry
        )
        limit = Gauge(
            "retrikt_store_waiting_limit", "Calls that may run or wait.", registry=registry
        )
        limit.set(max_waiting)
