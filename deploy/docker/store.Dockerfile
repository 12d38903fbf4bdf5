# The store service: the extra `store`, no torch. Built from the repository's root:
#     docker build -f deploy/docker/store.Dockerfile -t retrikt-store:0.1.0 .
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# A package index of your own: --secret id=pip,src=pip.conf. Without it pip's default is used.
ENV PIP_CONFIG_FILE=/run/secrets/pip PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python3 -m venv /opt/retrikt
# Dependencies first, against an empty package: this layer stays until pyproject.toml changes.
COPY pyproject.toml ./
RUN --mount=type=secret,id=pip \
    mkdir services offline && touch README.md LICENSE services/__init__.py offline/__init__.py \
    && /opt/retrikt/bin/pip install ".[store]" \
    && /opt/retrikt/bin/pip uninstall --yes retrikt
COPY README.md LICENSE ./
COPY services services
COPY offline offline
RUN --mount=type=secret,id=pip /opt/retrikt/bin/pip install --no-deps . \
    && /opt/retrikt/bin/pip check
# What trains has no place in an image that serves; nor has what installs or builds. What is left must load.
COPY deploy/docker/trim.sh ./
RUN /opt/retrikt/bin/python -c "import importlib.util, sys; \
found = [name for name in ('torch', 'transformers') if importlib.util.find_spec(name)]; \
sys.exit(f'{found} in a serving image' if found else 0)" \
    && /opt/retrikt/bin/pip uninstall --yes pip setuptools \
    && ./trim.sh /opt/retrikt \
    && ORT_DISABLE_TELEMETRY=1 /opt/retrikt/bin/python -P -c "import services.store.app, services.store.backends.server, services.store.backends.edge"

FROM ${BASE}
# Numbers, so that an orchestrator can tell that it is not root.
RUN groupadd --gid 10001 retrikt \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin retrikt \
    && install --directory --owner=10001 --group=10001 \
        /srv/retrikt /srv/retrikt/runs /var/lib/retrikt/copies
COPY --from=build /opt/retrikt /opt/retrikt
ENV PATH=/opt/retrikt/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /srv/retrikt
USER 10001:10001
EXPOSE 8001
STOPSIGNAL SIGTERM
# docker-compose.yml has the same; it is here for whoever runs the image alone. Docker reads it, the OCI format
# has no place for it.
HEALTHCHECK --interval=5s --timeout=5s --retries=6 --start-period=15s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/readyz', timeout=2)"]
CMD ["python", "-m", "services.store"]
