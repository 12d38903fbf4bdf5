#!/bin/sh
# Runs `retrikt`. With RETRIKT_JOBS_QDRANT_URL set, `run` and `rebuild` put their store version on that
# Qdrant server.
set -eu
case "${1:-}" in
    run | rebuild)
        if [ -n "${RETRIKT_JOBS_QDRANT_URL:-}" ]; then
            exec retrikt "$@" --set store.backend=server --set "store.url=$RETRIKT_JOBS_QDRANT_URL"
        fi
        ;;
esac
exec retrikt "$@"
