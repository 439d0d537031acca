# docker build -t bullmq-exporter . && docker run --rm bullmq-exporter --help

# Tag and digest change together. Another base: --build-arg PYTHON=…, with Python 3.11 or later.
ARG PYTHON=python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

# hadolint ignore=DL3006
FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /source
RUN python -m venv /build \
 && python -m venv --without-pip /opt/bullmq-exporter
# What is installed is named with its hashes (`make pins`), and comes as wheels: nothing is compiled.
COPY config/image config/image
RUN /build/bin/pip install --require-hashes --only-binary :all: \
      --requirement config/image/build-requirements.txt \
 && /build/bin/pip --python /opt/bullmq-exporter/bin/python install --require-hashes --only-binary :all: \
      --requirement config/image/requirements.txt
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /build/bin/pip --python /opt/bullmq-exporter/bin/python install --no-deps /dist/*.whl \
 && /build/bin/pip --python /opt/bullmq-exporter/bin/python check \
 && mkdir /state \
 && mkdir --mode=700 /state/bullmq-exporter

# hadolint ignore=DL3006
FROM ${PYTHON}
LABEL org.opencontainers.image.title="bullmq-exporter" \
      org.opencontainers.image.description="Prometheus exporter and Jobs API for BullMQ queues" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/bullmq-exporter /opt/bullmq-exporter
# For EXPORTER_EVENTS_STATE_FILE: a new volume mounted here gets this owner.
COPY --from=build --chown=65532:65532 /state /var/lib
# Nothing is written but that file: the root file system may be read-only.
ENV PATH=/opt/bullmq-exporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 9538 9539
# Asks the exporter that runs, whatever has configured it: flags, variables or a file.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
  CMD ["python", "-m", "exporter.healthcheck"]
# A SIGTERM that comes before Python has started waits (--block-signal), and is not lost: see
# exporter/__main__.py. Another base needs an env that knows the option: coreutils 8.31 or later.
ENTRYPOINT ["env", "--block-signal=TERM", "bullmq-exporter"]
