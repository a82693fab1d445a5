# The runtime with one engine and one bundle: linux/arm64 (Raspberry Pi and others) and linux/amd64.
#
# "boardfit image BUNDLE --board NAME -o DIR" writes the folder that this is built in, with the arguments of that board.
#
# Only files are copied into the image, and nothing runs in it while it is built: the libraries are installed on the
# machine that builds, for the base's processor, Python and C library. No emulator is needed.
#
#   BASE            what the image stands on: glibc, libstdc++ and Python 3.10 or newer
#   BUILD_BASE      where the libraries are installed: a Python with pip, of BASE's version (else what is compiled here
#                   cannot be used there, and the start takes longer)
#   BUILD_PLATFORM  of BUILD_BASE: of the machine that builds. BuildKit knows it by itself, podman and buildah do not (1.28):
#                   --build-arg BUILD_PLATFORM=linux/amd64. Where there is nothing but BASE: BUILD_BASE=$BASE and BASE's
#                   platform, with an emulator (binfmt_misc)
#   PIP_INDEX_URL, PIP_CERT, PIP_NO_INDEX   as pip knows them; a certificate may lie in wheels/
ARG BASE=python:3.11-slim-bookworm
ARG BUILD_BASE=python:3.11-slim-bookworm
ARG BUILD_PLATFORM=$BUILDPLATFORM

FROM ${BASE} AS base

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
