"""Calls of `qdrant-client`: whatever it throws becomes an error of ours."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import grpc  # type: ignore[import-untyped]
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from services.platform.errors import RetriktError, StorageFull, StoreUnavailable, VersionNotFound

P = ParamSpec("P")
T = TypeVar("T")


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the client.

    Raises:
        VersionNotFound: there is no such collection or snapshot.
        StorageFull, StoreUnavailable: whatever else it throws.
    """
    try:
        return function(*args, **kwargs)
    except ResourceExhaustedResponse as error:
        raise StoreUnavailable(f"Qdrant is overloaded: {error}.") from error
    except ResponseHandlingException as error:
        raise StoreUnavailable(
            f"Qdrant does not answer: {error.source or type(error.source).__name__}.",
            hint="Check that it runs and that its URL is right.",
        ) from error
    except UnexpectedResponse as error:
        said = error.content.decode(errors="replace")
        raise reason(error.status_code, said) from error
    except grpc.RpcError as error:
        code, said = error.code(), error.details() or ""
        status = 404 if code == grpc.StatusCode.NOT_FOUND else None
        raise reason(status, f"{code.name}: {said}") from error
    except ValueError as error:
        if str(error).endswith("not found"):  # How the in-memory client says it.
            raise VersionNotFound(str(error)) from error
        raise StoreUnavailable(f"Qdrant gave an answer that is none: {error}.") from error


def reason(status: int | None, said: str) -> RetriktError:
    """The error that a status of Qdrant's and its words are; None as status for gRPC's."""
    if status == 404:
        return VersionNotFound(said[:300])
    if "No space left" in said or "disk space" in said:
        return StorageFull(
            f"Qdrant's disk is full: {said[:300]}.", hint="Make room there and build it again."
        )
    if status in (401, 403):
        return StoreUnavailable(
            "Qdrant refuses this client.", hint="Check the API key (RETRIKT_STORE_QDRANT_API_KEY)."
        )
    return StoreUnavailable(f"Qdrant answered with an error ({status or 'gRPC'}): {said[:300]}.")
