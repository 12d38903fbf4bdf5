"""HTTP calls of the store service that end within their time limit, whatever takes the time."""

import time
from collections.abc import Sequence

import httpcore
import httpx

from services.platform.errors import StoreUnavailable
from services.store.name_resolution import NameTimeout, TimelyConnections

IDLE_SECONDS = 5.0
"""A connection that has not been used for that long is closed, long before the service would do so."""


class TimelyHttp:
    """A pool of connections to one service that stay open; may be called from several threads.

    Args:
        url: of the service; what is before the paths of its routes.
        connections: how many calls may be under way at a time.
        key: sent as a bearer token; None sends none.
    """

    def __init__(self, url: str, *, connections: int, key: str | None = None) -> None:
        self._url = url
        self._base = httpx.URL(url)
        secure = self._base.scheme == "https"
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False) if secure else None,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=TimelyConnections(),
        )
        self._headers = [
            (b"host", self._base.netloc),
            (b"content-type", b"application/json"),
            (b"accept-encoding", b"identity"),
            *([(b"authorization", f"Bearer {key}".encode())] if key else []),
        ]

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        seconds: float,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> tuple[int, bytes]:
        """Status and body of an answer.

        Args:
            seconds: that this may take: waiting for a connection, resolving the name, connecting, sending
                and receiving together.
            headers: sent beside those that every call has.

        Raises:
            StoreUnavailable: nothing answers in time, or what does speaks no HTTP.
        """
        limit = _TimeLimit(seconds)
        url = httpcore.URL(
            scheme=self._base.raw_scheme,
            host=self._base.raw_host,
            port=self._base.port,
            target=self._base.raw_path.rstrip(b"/") + path.encode(),
        )
        late = f"The store at {self._url} has not answered within {seconds:.3g} s"
        try:
            with self._pool.stream(
                method,
                url,
                headers=[*self._headers, *headers],
                content=body,
                extensions={"timeout": limit},
            ) as response:
                content = b""
                for chunk in response.iter_stream():
                    content += chunk
                    # Each wait has its limit; this one is for an answer that trickles in.
                    if limit.left <= 0:
                        raise httpcore.ReadTimeout
            return response.status, content
        except NameTimeout as error:
            raise StoreUnavailable(
                f"{late}: {error}.", hint="Check the host in its URL, and the name server."
            ) from error
        except httpcore.TimeoutException as error:
            raise StoreUnavailable(f"{late}.") from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise StoreUnavailable(
                f"The store at {self._url} does not answer: {str(error) or type(error).__name__}.",
                hint="Check that it runs and that its URL is right.",
            ) from error

    def close(self) -> None:
        self._pool.close()


class _TimeLimit:
    """httpcore's time limits for one call: whatever it waits for next may take what is left of the whole."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._deadline - time.monotonic()

    def get(self, _: str, default: float | None = None) -> float:
        return max(self.left, 0.001)
