# The runtime on the GPU of an NVIDIA Jetson with JetPack 6: linux/arm64, on NVIDIA's own base.
#
# NOT RUN ON HARDWARE: written from NVIDIA's documentation.
#
# "boardfit image BUNDLE --board jetson-orin-nano --engine onnxruntime:tensorrt --wheel FILE -o DIR" writes the folder
# that this is built in. FILE is NVIDIA's onnxruntime_gpu for JetPack 6 and the base's Python: the one on PyPI has no CUDA
# for this processor. The board runs the image with NVIDIA's container runtime ("runtime: nvidia" in compose.yaml).
#
# The base is NVIDIA's, under its own licence: build this for your boards, and do not pass the image on before you have
# read it. Its release must be of the board's own JetPack (r36: JetPack 6).
#
#   BASE            what the image stands on: CUDA, cuDNN, TensorRT, and Python 3.10 or newer
#   BUILD_BASE      where the libraries are installed: a Python with pip, of BASE's version
#   BUILD_PLATFORM  of BUILD_BASE: of the machine that builds. BuildKit knows it by itself, podman and buildah do not (1.28):
#                   --build-arg BUILD_PLATFORM=linux/amd64
#   PIP_INDEX_URL, PIP_CERT, PIP_NO_INDEX   as pip knows them; a certificate may lie in wheels/
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
ARG BUILD_BASE=python:3.10-slim-bookworm
ARG BUILD_PLATFORM=$BUILDPLATFORM

FROM ${BASE} AS base
# What a container may use of the GPU, for NVIDIA's container runtime.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all
RUN test -e /lib/aarch64-linux-gnu/libc.so.6 \
    || { echo "boardfit image: error: the base is not Ubuntu for arm64" >&2; exit 1; }
RUN command -v python3 >/dev/null || ( \
    apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* ) \
    || { echo "boardfit image: error: apt cannot install python3 in the base: is there a network?" >&2; exit 1; }

FROM --platform=${BUILD_PLATFORM} ${BUILD_BASE} AS build
ARG TARGETPLATFORM
ARG PIP_INDEX_URL=
ARG PIP_CERT=
ARG PIP_NO_INDEX=
WORKDIR /build
COPY stage.py ./
# Before the long work: is the base of the right processor, and has it what is needed?
RUN --mount=type=bind,from=base,target=/base \
    python3 stage.py check --base /base --platform "${TARGETPLATFORM}"
COPY wheels wheels
COPY libraries.txt engine.txt app.txt ./
RUN --mount=type=bind,from=base,target=/base \
    python3 stage.py install libraries.txt --base /base --wheels wheels --to /out/libraries
RUN --mount=type=bind,from=base,target=/base \
    python3 stage.py install engine.txt --base /base --wheels wheels --to /out/engine
RUN --mount=type=bind,from=base,target=/base \
    python3 stage.py install app.txt --base /base --wheels wheels --to /out/app \
    --beside /out/libraries /out/engine
COPY boardfit.zip ./
RUN --mount=type=bind,from=base,target=/base \
    python3 stage.py unpack boardfit.zip --base /base --to /out/boardfit --command /out/bin/boardfit
RUN python3 stage.py notices /out/libraries /out/engine /out/app /out/boardfit --to /out/notices

# One layer each, the one that changes least first.
FROM base
COPY --from=build /out/libraries /opt/boardfit/site
COPY --from=build /out/engine /opt/boardfit/site
COPY --from=build /out/app /opt/boardfit/site
COPY --from=build /out/boardfit /opt/boardfit/site
COPY --from=build /out/bin /usr/local/bin
COPY --from=build /out/notices /usr/share/doc/boardfit
COPY model.boardfit /opt/boardfit/model.boardfit
# The root file system may be read-only, and there may be no home.
ENV PYTHONPATH=/opt/boardfit/site PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 65534:65534
HEALTHCHECK --interval=5m --timeout=2m --start-period=30s --retries=2 \
    CMD ["boardfit", "verify", "/opt/boardfit/model.boardfit"]
CMD ["boardfit", "watch", "/opt/boardfit/model.boardfit", "0"]
