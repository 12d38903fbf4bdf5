#!/usr/bin/env bash
# Tries the compose stack for real, on the store's embedded backend: builds the images, starts the
# stack, puts a release in place, asks for a prediction, kills the store and starts it again.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: deploy/try_stack.sh [options] (--release-from TASK_DIRECTORY | --job CONFIG)

  --release-from DIR    take the live release of a task's directory, such as runs/helpdesk
  --job CONFIG          make the release in the offline container: `retrikt run CONFIG`
  --job-option WORD     added to that command; may be given several times
  --compose COMMAND     default: docker compose (or: podman-compose, 1.4 or newer)
  --engine COMMAND      default: docker (or: podman)
  --builder COMMAND     default: ENGINE build (or: buildah bud --isolation chroot)
  --build-option WORD   added to every build; may be given several times
  --base IMAGE          base of the images; default: python:3.11-slim
  --no-build            use the images that are there
  --text TEXT           what to classify; default: I forgot my password
  --port PORT           of the student on this machine; default: 8000
  --keep                leave the stack running

For example, with podman:
  deploy/try_stack.sh --compose podman-compose --engine podman --release-from runs/helpdesk
TEXT
}

compose="docker compose"
engine=docker
builder=""
build_options=()
base=python:3.11-slim
build=yes
release_from=""
job=""
job_options=()
text="I forgot my password"
port=8000
keep=no
while [ $# -gt 0 ]; do
    case "$1" in
        --release-from) release_from=$2; shift 2 ;;
        --job) job=$2; shift 2 ;;
        --job-option) job_options+=("$2"); shift 2 ;;
        --compose) compose=$2; shift 2 ;;
        --engine) engine=$2; shift 2 ;;
        --builder) builder=$2; shift 2 ;;
        --build-option) build_options+=("$2"); shift 2 ;;
        --base) base=$2; shift 2 ;;
        --no-build) build=no; shift ;;
        --text) text=$2; shift 2 ;;
        --port) port=$2; shift 2 ;;
        --keep) keep=yes; shift ;;
        --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
if [ -z "$release_from$job" ] || { [ -n "$release_from" ] && [ -n "$job" ]; }; then
    usage >&2
    exit 2
fi

if [ -n "$release_from" ]; then
    release_from=$(cd "$release_from" && pwd)
    live=$(sed -n 's/.*"release": *"\(r-[0-9a-f]*\)".*/\1/p' "$release_from/releases/live.json")
    task=$(basename "$release_from")
else
    task=$job
fi

cd "$(dirname "$0")/.."
project=retrikt-try
export RETRIKT_TAG=try RETRIKT_BASE=$base RETRIKT_PORT=$port RETRIKT_TASK=$task
url="http://127.0.0.1:$port"
answer=$(mktemp -d)

# The commands are given as words, such as `docker compose`.
# shellcheck disable=SC2086
stack() { $compose -p "$project" -f docker-compose.yml -f deploy/compose.embedded.yml "$@"; }
say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

finish() {
    status=$?
    rm -rf "$answer"
    if [ $status -ne 0 ]; then
        for service in store student; do
            printf '\n-- last log lines of %s\n' "$service" >&2
            $engine logs --tail 20 "$(container $service)" >&2 || true
        done
    fi
    [ "$keep" = yes ] || stack down --volumes >/dev/null 2>&1 || true
    exit $status
}

container() {
    $engine ps --all --quiet --filter "label=com.docker.compose.project=$project" \
        --filter "label=com.docker.compose.service=$1"
}

healthy() {
    if [ "$($engine --version | cut -d' ' -f1)" = podman ]; then
        # Runs the check now; podman's own timer needs systemd.
        $engine healthcheck run "$(container "$1")" >/dev/null 2>&1
    else
        [ "$($engine inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]
    fi
}

await() { # await SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "not within the time limit: $what"
        sleep 1
    done
    printf 'ok: %s\n' "$what"
}

predict() { # the answer's body and headers go to $answer
    python3 - "$text" >"$answer/request" <<'PYTHON'
import json, sys
print(json.dumps({"inputs": sys.argv[1]}))
PYTHON
    # Whatever the store does, an answer takes no longer than this.
    curl --silent --show-error --fail --max-time 3 --dump-header "$answer/headers" \
        --output "$answer/body" --header 'content-type: application/json' \
        --write-out 'answered in %{time_total} s\n' --data "@$answer/request" \
        "$url/predict" >"$answer/seconds"
}
degraded() { predict && grep -qi '^x-retrikt-degraded:' "$answer/headers"; }
whole() { predict && ! grep -qi '^x-retrikt-degraded:' "$answer/headers"; }
show() {
    grep -i '^x-retrikt' "$answer/headers"
    head -c 300 "$answer/body"
    echo
    cat "$answer/seconds"
}

build_image() {
    # shellcheck disable=SC2086
    ${builder:-$engine build} --build-arg "BASE=$base" "${build_options[@]}" \
        --file "deploy/docker/$1.Dockerfile" --tag "retrikt-$1:$RETRIKT_TAG" .
}

in_volume() { # a command of the store's image, with the task directories writable
    $engine run --rm --interactive --volume "${project}_runs:/srv/retrikt/runs" \
        "retrikt-store:$RETRIKT_TAG" "$@"
}

trap finish EXIT

if [ "$build" = yes ]; then
    say "building the images on $base"
    build_image store
    build_image student
    [ -z "$job" ] || build_image offline
fi

say "starting the stack"
stack up --detach --no-build store student
await 60 "the store is healthy" healthy store
if healthy student; then fail "the student is healthy before there is a release"; fi

say "hardening"
for service in store student; do
    id=$(container $service)
    [ "$($engine exec "$id" id -u)" = 10001 ] || fail "$service runs as another user"
    if $engine exec "$id" touch /opt/retrikt/written 2>/dev/null; then fail "$service writes its root"; fi
    $engine exec "$id" touch /tmp/written || fail "$service has no /tmp"
    $engine exec "$id" grep -q '^NoNewPrivs:[[:space:]]*1' /proc/1/status || fail "$service may gain rights"
    $engine exec "$id" grep -q '^CapEff:[[:space:]]*0*$' /proc/1/status || fail "$service has capabilities"
    if $engine exec "$id" python -c 'import torch' 2>/dev/null; then fail "$service holds torch"; fi
    echo "ok: $service runs as 10001 on a read-only root, without capabilities and without torch"
done
if $engine exec "$(container student)" touch /srv/retrikt/runs/written 2>/dev/null; then
    fail "the student writes the task directories"
fi

say "a release"
if [ -n "$job" ]; then
    stack --profile jobs run --rm -T offline run "$job" "${job_options[@]}"
else
    in_volume mkdir -p "runs/$task"
    parts=(releases)
    [ ! -d "$release_from/store" ] || parts+=(store)
    tar -C "$release_from" --exclude=live.json --exclude='.lock' -c "${parts[@]}" |
        in_volume tar -C "runs/$task" --no-same-owner -x
    in_volume retrikt release activate "$live" --task-dir "runs/$task"
fi

say "a prediction"
await 60 "the student is healthy" healthy student
await 20 "the student answers with the store" whole
show

say "the store is killed"
$engine kill --signal KILL "$(container store)" >/dev/null
await 20 "the student answers alone and says so" degraded
show

say "the store is started again"
$engine start "$(container store)" >/dev/null
await 60 "the student answers with the store again" whole
show

say "the stack stops"
for service in student store; do
    id=$(container $service)
    $engine stop --time 20 "$id" >/dev/null
    [ "$($engine inspect --format '{{.State.ExitCode}}' "$id")" = 0 ] || fail "$service did not stop cleanly"
    echo "ok: $service stopped with exit status 0"
done
say "all held"
