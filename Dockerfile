# Targets: service (the default), gpu, trainer, loadtest. None of them runs as root.
#
# Package indexes are pip's own business: --build-arg PIP_INDEX_URL=..., PIP_EXTRA_INDEX_URL=... (an index of torch's CPU
# builds keeps several gigabytes of CUDA libraries out of the trainer), PIP_FIND_LINKS=..., PIP_TRUSTED_HOST=...
ARG PYTHON_IMAGE=python:3.11-slim

# -- dependencies: this layer changes with pyproject.toml alone -------------------------------------------------------
# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS dependencies
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/ctrank
ENV PATH=/opt/ctrank/bin:$PATH
WORKDIR /src
COPY pyproject.toml LICENSE ./
RUN touch README.md && pip install ".[onnx]"

# -- the package, and its kernels compiled for the processor levels in deploy/image/levels ------------------------------
FROM dependencies AS package
COPY models_export models_export
COPY service service
RUN pip install --no-deps --force-reinstall . && rm /opt/ctrank/bin/ctrank-train
COPY deploy/image /opt/ctrank/image
RUN /opt/ctrank/image/compile-kernels && pip uninstall --yes setuptools pip

FROM dependencies AS gpu-package
# The CPU and the GPU build of ONNX Runtime cannot stand side by side; this one brings its CUDA libraries with it. Which CUDA
# a release is built for decides which drivers will do: name an older release (from 1.26 on) for older ones.
ARG ONNXRUNTIME_GPU=onnxruntime-gpu[cuda,cudnn]>=1.26
RUN pip uninstall --yes onnxruntime && pip install "$ONNXRUNTIME_GPU"
COPY --from=package /opt/ctrank/image /opt/ctrank/image
COPY --from=package /opt/ctrank/kernels /opt/ctrank/kernels
COPY models_export models_export
COPY service service
RUN pip install --no-deps --force-reinstall . && rm /opt/ctrank/bin/ctrank-train

FROM dependencies AS training-package
ARG TORCH=torch==2.13.0
RUN pip install "$TORCH" && pip install ".[train]"
COPY models_export models_export
COPY service service
COPY training training
RUN pip install --no-deps --force-reinstall .

FROM dependencies AS loadtest-package
# Locust alone: the extra also has what reports and servers of its own take.
RUN pip install "locust>=2.32"
COPY models_export models_export
COPY loadtest loadtest
RUN pip install --no-deps --force-reinstall . && rm /opt/ctrank/bin/ctrank-train /opt/ctrank/bin/ctrank-serve

# -- what all images share: a user, the registry's and the cache's folders ------------------------------------------------
# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS base
RUN groupadd --gid 10001 ctrank \
 && useradd --uid 10001 --gid ctrank --no-create-home --home-dir /tmp --shell /usr/sbin/nologin ctrank \
 && install --directory --owner ctrank --group ctrank /registry /var/cache/ctrank /work
ENV PATH=/opt/ctrank/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
USER 10001:10001

# -- one shot: train the demo's model and publish it, unless the registry has one --------------------------------------
FROM base AS trainer
COPY --from=training-package /opt/ctrank /opt/ctrank
ENV NUMBA_CACHE_DIR=/var/cache/ctrank/kernels MPLCONFIGDIR=/tmp
VOLUME /registry
CMD ["python", "-m", "training.demo", "--out", "/work/demo", "--publish", "/registry"]

FROM base AS loadtest
COPY --from=loadtest-package /opt/ctrank /opt/ctrank
COPY loadtest /work/loadtest
EXPOSE 8089
ENTRYPOINT ["locust", "-f", "/work/loadtest/locustfile.py"]

FROM base AS service-base
ENV CTRANK_HOST=0.0.0.0 \
    CTRANK_PORT=8000 \
    CTRANK_REGISTRY=/registry \
    CTRANK_CACHE_DIR=/var/cache/ctrank \
    NUMBA_CACHE_DIR=/var/cache/ctrank/kernels
EXPOSE 8000
VOLUME /registry
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-I", "-S", "/opt/ctrank/image/healthcheck.py"]
ENTRYPOINT ["/opt/ctrank/image/entrypoint"]
CMD ["ctrank-serve", "run"]

FROM service-base AS gpu
COPY --from=gpu-package /opt/ctrank /opt/ctrank
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility CTRANK_SCORER=onnx CTRANK_ONNX_PROVIDER=cuda

FROM service-base AS service
COPY --from=package /opt/ctrank /opt/ctrank
