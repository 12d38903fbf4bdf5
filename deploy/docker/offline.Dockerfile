# The offline jobs: the extra `offline` and the command `retrikt`. Built from the repository's root:
#     docker build -f deploy/docker/offline.Dockerfile -t retrikt-offline:0.1.0 .
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# PyTorch's own index of builds for CPUs; empty takes what pip's index has (on x86, the CUDA build).
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# A package index of your own: --secret id=pip,src=pip.conf. Without it pip's default is used.
ENV PIP_CONFIG_FILE=/run/secrets/pip PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python3 -m venv /opt/retrikt
# torch comes first and by version, so that nothing that depends on it picks another build.
RUN --mount=type=secret,id=pip \
    /opt/retrikt/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
# Dependencies next, against an empty package: this layer stays until pyproject.toml changes.
COPY pyproject.toml ./
RUN --mount=type=secret,id=pip \
    mkdir services offline && touch README.md LICENSE services/__init__.py offline/__init__.py \
    && /opt/retrikt/bin/pip install ".[offline]" \
    && /opt/retrikt/bin/pip uninstall --yes retrikt
COPY README.md LICENSE ./
COPY services services
COPY offline offline
RUN --mount=type=secret,id=pip /opt/retrikt/bin/pip install --no-deps . \
    && /opt/retrikt/bin/pip check
# What installs or builds has no place in an image that runs (setuptools stays: TensorBoard asks for it). What
# is left must load.
COPY deploy/docker/trim.sh ./
RUN /opt/retrikt/bin/pip uninstall --yes pip \
    && ./trim.sh /opt/retrikt \
    && /opt/retrikt/bin/python -P -c "import offline.run, offline.rebuild, offline.quickstart, datasets, \
peft, sklearn, transformers"

FROM ${BASE}
# Numbers, so that an orchestrator can tell that it is not root.
RUN groupadd --gid 10001 retrikt \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin retrikt \
    && install --directory --owner=10001 --group=10001 \
        /srv/retrikt /srv/retrikt/runs /var/cache/retrikt
COPY --from=build /opt/retrikt /opt/retrikt
COPY --chmod=755 deploy/docker/offline-entrypoint.sh /usr/local/bin/offline-entrypoint
# Models from a hub and the libraries' own caches go where there is a volume for them; ONNX Runtime
# and the hub's client report to their makers unless told not to.
ENV PATH=/opt/retrikt/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/var/cache/retrikt HF_HOME=/var/cache/retrikt/huggingface \
    MPLCONFIGDIR=/var/cache/retrikt/matplotlib \
    ORT_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /srv/retrikt
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["offline-entrypoint"]
CMD ["--help"]
