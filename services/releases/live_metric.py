"""Which release is live, as a metric that is read from the pointer when it is asked for."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.platform.errors import RetriktError
from services.releases.directory import ReleaseDirectory


class LiveReleaseMetric(Collector):
    """`retrikt_<service>_live_release_info{release}`: 1 for the release that the pointer names.

    Beside the release that a student serves it shows who does not follow. Without a pointer, or with
    one that cannot be read, there is no such sample.
    """

    def __init__(
        self, service: str, releases: ReleaseDirectory, registry: CollectorRegistry
    ) -> None:
        self._name = f"retrikt_{service}_live_release_info"
        self._releases = releases
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        try:
            live = self._releases.live()
        except RetriktError:
            live = None
        if live is not None:
            family.add_metric([live.release], 1.0)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            self._name, "1 for the release that the live pointer names.", labels=["release"]
        )
