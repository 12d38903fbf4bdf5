import sys
from pathlib import Path

from offline.store.config import StoreConfig
from offline.store.version_size import version_bytes
from services.store.backends.layout import Layout

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "student"))

from tiny_release import write_release


def test_a_version_s_size_is_told_whatever_serves_it_and_nothing_stays_behind(
    tmp_path: Path,
) -> None:
    """No server is asked: the embedded store builds the version aside, by its own layout."""
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    write_release(candidate, seed=0)
    cluster = StoreConfig(backend="server", layout=Layout(shards=3, replicas=2))
    sizes = [version_bytes(candidate, store) for store in (StoreConfig(), cluster)]
    assert min(sizes) > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["candidate"]
