"""Every error that RetriKT raises on purpose, in one tree.

    RetriktError
    ├── InvalidInput            what the caller sent cannot be used
    │   ├── InvalidConfig       a configuration file or command-line value
    │   ├── InvalidData         a data file or one of its rows
    │   └── InvalidRequest      the body of an HTTP request
    │       ├── BatchTooLarge
    │       ├── BodyTooLarge
    │       └── TextTooLong
    ├── AccessDenied            what the caller may not do
    │   ├── NotAuthenticated    no key, or an unknown one
    │   └── PermissionDenied    a key that does not reach so far
    ├── NotFound                a model, release, version or item that is not there
    │   ├── ModelNotFound
    │   ├── ReleaseNotFound
    │   │   ├── ReleasePurged   its knowledge was deleted on request
    │   │   └── ReleasePruned   a clean-up took its files
    │   ├── VersionNotFound
    │   └── SnapshotNotFound
    ├── IncompatibleArtifacts   parts that do not belong together (encoder fingerprints, labels)
    ├── CorruptArtifact         a file whose content is not what its manifest says
    ├── Unavailable             a part that should answer does not
    │   ├── StoreUnavailable
    │   ├── TimedOut            it took longer than it may
    │   └── NotReady
    ├── Overloaded              more work than the queue takes
    ├── StorageFull             the disk has no room left
    ├── AddressInUse            the port is taken
    └── AlreadyRunning          another process holds the lock

An error is raised once, where the fault is seen, with what was wrong, what was expected and what to
do. It is turned into an exit status in `offline.cli` and into an HTTP answer in
`services.platform.http`, and nowhere else.
"""

from typing import ClassVar


class RetriktError(Exception):
    """Base of the tree.

    Attributes:
        code: stable identifier, safe to match on.
        status: HTTP status when the error reaches a client.
        exit_code: exit status when the error ends a command.
        error_type: the `error_type` of Text Embeddings Inference that it answers with.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    error_type: ClassVar[str] = "Backend"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class InvalidInput(RetriktError):
    code = "invalid_input"
    status = 422
    exit_code = 2
    error_type = "Validation"


class InvalidConfig(InvalidInput):
    code = "invalid_config"


class InvalidData(InvalidInput):
    code = "invalid_data"


class InvalidRequest(InvalidInput):
    code = "invalid_request"


class BatchTooLarge(InvalidRequest):
    code = "batch_too_large"
    status = 413


class BodyTooLarge(InvalidRequest):
    code = "body_too_large"
    status = 413


class TextTooLong(InvalidRequest):
    code = "text_too_long"
    status = 413


class AccessDenied(RetriktError):
    code = "access_denied"
    status = 403
    exit_code = 2
    error_type = "Validation"


class NotAuthenticated(AccessDenied):
    code = "not_authenticated"
    status = 401


class PermissionDenied(AccessDenied):
    code = "permission_denied"


class NotFound(RetriktError):
    code = "not_found"
    status = 404
    exit_code = 3
    error_type = "Validation"


class ModelNotFound(NotFound):
    code = "model_not_found"


class ReleaseNotFound(NotFound):
    code = "release_not_found"


class ReleasePurged(ReleaseNotFound):
    code = "release_purged"
    status = 410


class ReleasePruned(ReleaseNotFound):
    code = "release_pruned"
    status = 410


class VersionNotFound(NotFound):
    code = "version_not_found"


class SnapshotNotFound(NotFound):
    code = "snapshot_not_found"


class IncompatibleArtifacts(RetriktError):
    code = "incompatible_artifacts"
    status = 409
    exit_code = 4


class CorruptArtifact(RetriktError):
    code = "corrupt_artifact"
    exit_code = 4


class Unavailable(RetriktError):
    code = "unavailable"
    status = 503
    exit_code = 5
    error_type = "Unhealthy"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class TimedOut(Unavailable):
    code = "timed_out"


class NotReady(Unavailable):
    code = "not_ready"


class Overloaded(RetriktError):
    """`retry_after`: whole seconds after which it makes sense to try again."""

    code = "overloaded"
    status = 429
    exit_code = 5
    error_type = "Overloaded"

    def __init__(self, message: str, *, hint: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class StorageFull(RetriktError):
    code = "storage_full"
    status = 507
    exit_code = 6


class AddressInUse(RetriktError):
    code = "address_in_use"
    exit_code = 7


class AlreadyRunning(RetriktError):
    code = "already_running"
    status = 409
    exit_code = 8
