# The cross-compiling image: Debian's toolchains for ARM, CMake, ncnn as a static library for aarch64 and armhf, and the
# native runner made of it. `make cross-image` builds it; BASE may be any Debian 12 or later of the build machine.
#
#   docker run --rm -v "$PWD":/work -w /work boardfit-cross sh -c 'cmake -B build \
#       -DCMAKE_TOOLCHAIN_FILE=$TOOLCHAINS/aarch64.cmake -Dncnn_DIR=/opt/ncnn/aarch64/lib/cmake/ncnn && cmake --build build'
ARG BASE=docker.io/library/debian:bookworm-slim

FROM $BASE AS toolchains
RUN apt-get update && apt-get install -y --no-install-recommends \
        crossbuild-essential-arm64 crossbuild-essential-armhf cmake ninja-build \
    && rm -rf /var/lib/apt/lists/*
COPY boards/cross/toolchains /opt/boardfit/boards/cross/toolchains
ENV TOOLCHAINS=/opt/boardfit/boards/cross/toolchains

FROM toolchains AS build
# A certificate bundle for pip, where the build machine's network has its own.
ARG PIP_CERT
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip ca-certificates
COPY boards/cross /opt/boardfit/boards/cross
COPY runtime/native /opt/boardfit/runtime/native
RUN /opt/boardfit/boards/cross/build_native.sh aarch64 /opt/ncnn
RUN /opt/boardfit/boards/cross/build_native.sh armhf /opt/ncnn
RUN rm -r /opt/ncnn/*/*-build* /opt/ncnn/ncnn-*

FROM toolchains
COPY --from=build /opt/ncnn /opt/ncnn
