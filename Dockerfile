# The compiler stays behind in `build`; the final image is Debian slim, Python and one virtual environment.
#
#   make image                                               # podman or docker: for any x86-64-v3 or ARM processor
#   make image TARGET=cuda                                   # for NVIDIA's GPUs: docker run --gpus all
#   make image AUDIO=1                                       # with speech, transcription and realtime sessions
#   make image DRAW=1                                        # with drawing: compiles for some minutes more
#   docker run --read-only --tmpfs /tmp -p 8000:8000 -v llm-data:/data -e LLM_BACKEND_API_KEYS=sk-mine llm-backend:0.1.0
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG CUDA_IMAGE=docker.io/nvidia/cuda:12.8.1-devel-ubuntu22.04

FROM ${PYTHON_IMAGE} AS build
# hadolint ignore=DL3008  # Debian keeps one version of a package: a pinned one is gone with its first fix
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src

# llama.cpp first: it takes minutes to compile and changes least, so its layer is kept longest.
COPY requirements/build.lock requirements/llama.lock requirements/
COPY scripts/build_llama.py scripts/
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r requirements/build.lock
RUN PATH=/opt/build/bin:$PATH python scripts/build_llama.py --portable --wheel-dir /wheels

# The library that draws, for the same processors.
COPY requirements/draw.lock requirements/
ARG DRAW=
RUN mkdir /draw-wheels \
    && if [ "${DRAW}" ]; then PATH=/opt/build/bin:$PATH CMAKE_ARGS="$(python scripts/build_llama.py --portable --flags)" \
    pip wheel --no-deps --no-build-isolation --require-hashes --wheel-dir /draw-wheels -r requirements/draw.lock; fi

# No pip in the environment, and not the second copies of native libraries that wheels have in lib/.
COPY requirements/deploy.lock requirements/audio.lock requirements/
ARG AUDIO=
RUN python -m venv --without-pip /opt/llm-backend \
    && /opt/build/bin/pip --python /opt/llm-backend install --require-hashes -r requirements/deploy.lock \
    ${AUDIO:+-r requirements/audio.lock} \
    && /opt/build/bin/pip --python /opt/llm-backend install --no-deps --no-index /wheels/llama_cpp_python-*.whl \
    ${DRAW:+/draw-wheels/*.whl} \
    && rm -rf /opt/llm-backend/lib/python3.11/site-packages/lib /opt/llm-backend/lib/python3.11/site-packages/include


# The package in a layer of its own; openapi/ is compiled into it and is not needed afterwards.
FROM build AS package
COPY pyproject.toml hatch_build.py README.md ./
COPY openapi/ openapi/
COPY llm_backend/ llm_backend/
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /package-wheel . \
    && /opt/build/bin/pip --python /opt/llm-backend install --no-deps --no-index --root /package /package-wheel/*.whl


FROM ${PYTHON_IMAGE} AS base
ARG AUDIO=
# hadolint ignore=DL3008  # as above
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 ${AUDIO:+espeak-ng} \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 llm \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin llm \
    && install --directory --owner=10001 --group=10001 /data /models
COPY --from=build /opt/llm-backend /opt/llm-backend
COPY --from=package /package/ /
ENV PATH=/opt/llm-backend/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# As variables, which others override, and which hold for `docker exec ... llm-backend keys create`, too.
ENV LLM_BACKEND_HOST=0.0.0.0 LLM_BACKEND_DATA_DIR=/data
WORKDIR /data
VOLUME ["/data", "/models"]
EXPOSE 8000
# It checks that the server answers, not its identity: the certificate is for its name, and this is loopback.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, os, ssl, sys; \
place = ('127.0.0.1', int(os.getenv('LLM_BACKEND_PORT') or '8000')); \
is_tls = bool(os.getenv('LLM_BACKEND_TLS_CERTIFICATE')); \
server = http.client.HTTPSConnection(*place, timeout=4, context=ssl._create_unverified_context()) \
if is_tls else http.client.HTTPConnection(*place, timeout=4); \
server.request('GET', '/healthz'); \
sys.exit(server.getresponse().status != 200)"]
USER 10001:10001
ENTRYPOINT ["llm-backend"]
CMD ["serve"]


# llama.cpp with CUDA. This release's C library is older than that of `base`, so the build runs there.
FROM ${CUDA_IMAGE} AS build-cuda
# hadolint ignore=DL3008  # as above
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements/build.lock requirements/llama.lock requirements/
COPY scripts/build_llama.py scripts/
RUN python3.11 -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r requirements/build.lock
# The driver itself is the host's: here is only its stub to link with.
RUN PATH=/opt/build/bin:$PATH CMAKE_ARGS=-DGGML_CUDA=ON LIBRARY_PATH=/usr/local/cuda/lib64/stubs \
    python scripts/build_llama.py --portable --wheel-dir /wheels
RUN python3.11 -m venv --without-pip /opt/llm-backend \
    && /opt/build/bin/pip --python /opt/llm-backend install --no-deps --no-index --root /engine /wheels/llama_cpp_python-*.whl \
    && rm -rf /engine/opt/llm-backend/lib/python3.11/site-packages/lib


FROM base AS cuda
USER 0:0
COPY --from=build-cuda \
    /usr/local/cuda/lib64/libcudart.so.12 \
    /usr/local/cuda/lib64/libcublas.so.12 \
    /usr/local/cuda/lib64/libcublasLt.so.12 \
    /usr/local/lib/
COPY --from=build-cuda /engine/ /
RUN ldconfig
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001


# For Tilt: the package may be written to, and the server restarts when it changes.
FROM base AS dev
USER 0:0
RUN chown -R 10001:10001 /opt/llm-backend/lib/python3.11/site-packages/llm_backend
USER 10001:10001
ENTRYPOINT ["watchfiles", "--sigint-timeout", "30", "llm-backend serve", "/opt/llm-backend/lib/python3.11/site-packages/llm_backend"]
CMD []


FROM base AS runtime
