#!/usr/bin/env bash
# Tries the compose stack for real, on the store's embedded backend: builds the images, starts the stack, puts a
# release in place, asks for a prediction, kills the store and starts it again, rebuilds and rolls back while it
# is asked, and takes everything away again.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: deploy/try_stack.sh [options]

The offline container makes a small release of helpdesk, and then another: minutes, and far too small to be good.

  --release-from DIR    take the live release of a task's directory instead, such as runs/helpdesk, and index its
                        knowledge file anew
  --compose COMMAND     default: docker compose (or: podman-compose, 1.4 or newer)
  --engine COMMAND      default: docker (or: podman)
  --builder COMMAND     default: ENGINE build (or: buildah bud --isolation chroot)
  --build-option WORD   added to every build; may be given several times
  --base IMAGE          base of the images; default: python:3.11-slim
  --no-build            use the images that are there, and leave them there
  --tag TAG             of the images; default: try
  --text TEXT           what to classify; default: I forgot my password
  --port PORT           of the student on this machine; default: 8000
  --keep                leave the stack running, and the images

Exit status: 0 all held; 1 something did not; 2 wrong options.

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
tag=try
release_from=""
text="I forgot my password"
port=8000
keep=no
while [ $# -gt 0 ]; do
    case "$1" in
        --help) usage; exit 0 ;;
        --no-build) build=no; shift; continue ;;
        --keep) keep=yes; shift; continue ;;
    esac
    [ $# -ge 2 ] || { usage >&2; exit 2; }
    case "$1" in
        --release-from) release_from=$2 ;;
        --compose) compose=$2 ;;
        --engine) engine=$2 ;;
        --builder) builder=$2 ;;
        --build-option) build_options+=("$2") ;;
        --base) base=$2 ;;
        --tag) tag=$2 ;;
        --text) text=$2 ;;
        --port) port=$2 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift 2
done

task=helpdesk
if [ -n "$release_from" ]; then
    release_from=$(cd "$release_from" && pwd)
    given=$(sed -n 's/.*"release": *"\(r-[0-9a-f]*\)".*/\1/p' "$release_from/releases/live.json")
    task=$(basename "$release_from")
fi

# Of every stage as little as it takes, and a gate that lets it pass.
small=()
for setting in labeller.strengths=[10.0] labeller.judge.word_features=256 \
    labeller.judge.character_features=256 generator.layers=2 generator.epochs=1 generator.max_tokens=24 \
    generator.unlabelled_texts=0 soft_prompt.epochs=1 ppo.steps=1 ppo.batch_size=32 \
    ppo.evaluation_samples=32 ppo.comparison_samples=32 generate.samples=256 student.shape.coded=500 \
    student.training.steps=20 baselines.fine_tuned_steps=5 \
    baselines.distilled_steps=5 baselines.tfidf.strengths=[10.0] \
    release.accuracy_drop=1.0 release.label_drop=1.0; do
    small+=(--set "$setting")
done

cd "$(dirname "$0")/.."
project=retrikt-try
export RETRIKT_TAG=$tag RETRIKT_BASE=$base RETRIKT_PORT=$port RETRIKT_TASK=$task
url="http://127.0.0.1:$port"
answer=$(mktemp -d)
asker=""

# The commands are given as words, such as `docker compose`.
# shellcheck disable=SC2086
stack() { $compose -p "$project" -f docker-compose.yml -f deploy/compose.embedded.yml "$@"; }
job() { stack --profile jobs run --rm -T offline "$@"; }
say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

finish() {
    status=$?
    trap - EXIT
    [ -z "$asker" ] || kill "$asker" 2>/dev/null || true
    if [ $status -ne 0 ]; then
        status=1
        for service in store student; do
            printf '\n-- last log lines of %s\n' "$service" >&2
            $engine logs --tail 20 "$(container $service)" >&2 || true
        done
    fi
    rm -rf "$answer"
    if [ "$keep" = no ]; then
        # A job under way too, which `down` would leave alone.
        # shellcheck disable=SC2046
        $engine rm --force $(all_containers) >/dev/null 2>&1 || true
        stack --profile jobs down --volumes >/dev/null 2>&1 || true
        if [ "$build" = yes ]; then
            for image in store student offline; do
                $engine rmi --force "retrikt-$image:$tag" >/dev/null 2>&1 || true
            done
        fi
        left=$(all_containers)
        left+=$($engine volume ls --quiet --filter "name=${project}_")
        if [ -n "$left" ]; then
            printf 'FAILED: not everything could be taken away: %s\n' "$left" >&2
            status=1
        fi
    fi
    exit $status
}

all_containers() {
    $engine ps --all --quiet --filter "label=com.docker.compose.project=$project"
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

ask() { # ask DIRECTORY: the answer's body and headers go there
    # A second longer than a request may take, whatever the store does.
    curl --silent --show-error --fail --max-time 6 --dump-header "$1/headers" --output "$1/body" \
        --header 'content-type: application/json' --write-out 'answered in %{time_total} s\n' \
        --data "@$answer/request" "$url/predict" >"$1/seconds"
}
header() { sed -n "s/^$1: *\([^[:space:]]*\).*/\1/p" "$answer/headers"; }
degraded() { ask "$answer" && [ -n "$(header x-retrikt-degraded)" ]; }
whole() { ask "$answer" && [ -z "$(header x-retrikt-degraded)" ]; }
served_by() { whole && [ "$(header x-retrikt-release)" = "$1" ]; }
show() {
    grep -i '^x-retrikt' "$answer/headers"
    head -c 300 "$answer/body"
    echo
    cat "$answer/seconds"
}

keep_asking() { # until it is stopped; every answer leaves a line
    mkdir -p "$answer/meanwhile"
    while true; do
        ask "$answer/meanwhile" && echo answered || echo failed
        sleep 0.2
    done >>"$answer/told" 2>>"$answer/errors"
}
none_failed() {
    kill "$asker" && asker=""
    if grep -q failed "$answer/told"; then
        cat "$answer/errors" >&2
        fail "$(grep -c failed "$answer/told") requests failed"
    fi
    echo "ok: $(wc -l <"$answer/told") requests meanwhile, none failed"
}

build_image() {
    # shellcheck disable=SC2086
    ${builder:-$engine build} --build-arg "BASE=$base" "${build_options[@]}" \
        --file "deploy/docker/$1.Dockerfile" --tag "retrikt-$1:$tag" .
}

in_volume() { # a command of the store's image, with the task directories writable
    $engine run --rm --interactive --volume "${project}_runs:/srv/retrikt/runs" \
        "retrikt-store:$tag" "$@"
}

rebuild() { # rebuild OPTIONS...: by the offline container; says which release is live then
    job rebuild "$task" "$@" >"$answer/rebuilt"
    sed -n '/^{/,/^}/p' "$answer/rebuilt" >"$answer/summary"
    cat "$answer/summary"
    grep -q '"outcome": "activated"' "$answer/summary" || fail "the rebuild was not activated"
    live=$(sed -n 's/^ *"live": "\(r-[0-9a-f]*\)".*/\1/p' "$answer/summary")
}

trap finish EXIT
python3 - "$text" >"$answer/request" <<'PYTHON'
import json, sys
print(json.dumps({"inputs": sys.argv[1]}))
PYTHON

if [ "$build" = yes ]; then
    say "building the images on $base"
    for image in store student offline; do build_image $image; done
fi
for image in store student offline; do
    size=$($engine image inspect --format '{{.Size}}' "retrikt-$image:$tag")
    echo "retrikt-$image:$tag has $((size / 1000000)) MB, its base included"
done

say "starting the stack"
stack up --detach --no-build store student
await 180 "the store is healthy" healthy store
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
if [ -n "$release_from" ]; then
    in_volume mkdir -p "runs/$task"
    parts=(releases)
    [ ! -d "$release_from/store" ] || parts+=(store)
    tar -C "$release_from" --exclude=live.json --exclude='.lock' -c "${parts[@]}" |
        in_volume tar -C "runs/$task" --no-same-owner -x
    job release activate "$given" --task-dir "runs/$task"
    live=$given
else
    rebuild "${small[@]}"
fi
first=$live

say "a prediction"
await 180 "the student is healthy" healthy student
await 60 "the student answers with the store" served_by "$first"
show

say "the store is killed"
$engine kill --signal KILL "$(container store)" >/dev/null
await 60 "the student answers alone and says so" degraded
show

say "the store is started again"
$engine start "$(container store)" >/dev/null
await 180 "the student answers with the store again" whole
show

say "a rebuild by the offline container, while the student is asked"
keep_asking &
asker=$!
if [ -n "$release_from" ]; then rebuild --store-only; else rebuild "${small[@]}" --seed 1; fi
[ "$live" != "$first" ] || fail "the rebuild made no other release"
await 60 "the student serves what was rebuilt" served_by "$live"
show

say "a rollback"
job release rollback --task-dir "runs/$task"
await 60 "the student serves the release before it" served_by "$first"
job release list --task-dir "runs/$task"
none_failed
show

say "the stack stops"
for service in student store; do
    id=$(container $service)
    $engine stop -t 20 "$id" >/dev/null
    [ "$($engine inspect --format '{{.State.ExitCode}}' "$id")" = 0 ] || fail "$service did not stop cleanly"
    echo "ok: $service stopped with exit status 0"
done
say "all held"
