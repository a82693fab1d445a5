# The runtime with one engine and one bundle: linux/arm/v7 (32-bit Raspberry Pi OS and others).
#
# "boardfit image BUNDLE --board generic-armv7l -o DIR" writes the folder that this is built in.
#
# numpy and OpenCV have no wheels for this processor, and come from Debian; the engine (ncnn or tflite-runtime) has one.
# Debian's packages are installed by the base's own apt: on another machine that takes an emulator (binfmt_misc), unless
# the base has them already.
#
#   BASE            what the image stands on: Debian 12, since tflite-runtime ends with its Python 3.11
#   BUILD_BASE      where the engine is installed: a Python with pip, of BASE's version
#   BUILD_PLATFORM  of BUILD_BASE: of the machine that builds. BuildKit knows it by itself, podman and buildah do not (1.28):
#                   --build-arg BUILD_PLATFORM=linux/amd64
#   PIP_INDEX_URL, PIP_CERT, PIP_NO_INDEX   as pip knows them; a certificate may lie in wheels/
ARG BASE=debian:bookworm-slim
ARG BUILD_BASE=python:3.11-slim-bookworm
ARG BUILD_PLATFORM=$BUILDPLATFORM

FROM ${BASE} AS base
# Where packages were only unpacked, nothing has linked the alternatives of BLAS and LAPACK.
ENV LD_LIBRARY_PATH=/usr/lib/arm-linux-gnueabihf/blas:/usr/lib/arm-linux-gnueabihf/lapack
RUN test -e /lib/arm-linux-gnueabihf/libc.so.6 \
    || { echo "boardfit image: error: the base is not Debian for armhf" >&2; exit 1; }
RUN python3 -c 'import numpy, cv2' 2>/dev/null || ( \
    apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-numpy python3-opencv \
    && rm -rf /var/lib/apt/lists/* ) \
    || { echo "boardfit image: error: apt cannot install numpy and OpenCV in the base: is there a network?" >&2; exit 1; }

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
