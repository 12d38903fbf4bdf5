#!/bin/sh
# Runs `retrikt`. With RETRIKT_JOBS_QDRANT_URL set, `run` puts its store version on that Qdrant server.
set -eu
if [ "${1:-}" = run ] && [ -n "${RETRIKT_JOBS_QDRANT_URL:-}" ]; then
    exec retrikt "$@" --set store.backend=server --set "store.url=$RETRIKT_JOBS_QDRANT_URL"
fi
exec retrikt "$@"
