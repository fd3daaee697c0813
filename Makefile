# Every target sets up what it needs in .venv; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
# With an NVIDIA GPU the gpu extra, else cpu: onnxruntime and onnxruntime-gpu exclude each other.
ACCELERATOR ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
TENSORRT_BINDINGS := 10.16.1.11 11.4.0.106
CPP_PACKAGES := cmake g++ nlohmann-json3-dev libvalijson-dev libturbojpeg0-dev
INSTALLED := .venv/installed-$(ACCELERATOR)

.PHONY: install demo test test-all cpp cpp-test report-test web-test serve-test check format bench fuzz gpu-check clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("reidexport needs Python 3.11 to 3.13; set PYTHON=" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# One would overwrite the other's files.
	@if [ -n "$(filter-out $(INSTALLED),$(wildcard .venv/installed-*))" ]; then \
		$(BIN)/pip uninstall --quiet --yes onnxruntime onnxruntime-gpu; fi
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[export,$(ACCELERATOR),rtx,milvus,ray,triton,report,web,train,bench,test]"
	@# Bindings only, and of two versions, which no environment can hold: the tests check every call against both.
	for version in $(TENSORRT_BINDINGS); do \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade \
			--target .venv/tensorrt-bindings/$$version tensorrt-cu13-bindings==$$version || exit 1; done
	@rm -f .venv/installed-* && touch $@

demo: install
	$(BIN)/reidexport demo --out demo

test: install
	@# Two processes of one thread each get more out of two cores than one of two.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(SLOW),,-m "not slow") --numprocesses auto --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=90

# The slow tests too. Every expected vector goes through the whole ONNX export, not only five of them: half an hour.
test-all: SLOW = 1
test-all: test

# The C++ library and its programs, into engines/cpp/build/release.
cpp:
	engines/cpp/debian_packages.sh $(CPP_PACKAGES)
	engines/cpp/fetch_headers.sh onnxruntime
	cd engines/cpp && cmake --preset release && cmake --build --preset release --parallel $$(nproc)

# The same under AddressSanitizer and UndefinedBehaviorSanitizer, with the TensorRT backend; its own tests, then those with Python.
cpp-test: install
	engines/cpp/debian_packages.sh $(CPP_PACKAGES) doctest-dev
	engines/cpp/fetch_headers.sh onnxruntime
	engines/cpp/fetch_headers.sh tensorrt $(BIN)/python
	cd engines/cpp && cmake --preset asan && cmake --build --preset asan --parallel $$(nproc) && ctest --preset asan
	REIDEXPORT_CPP_BUILD=engines/cpp/build/asan OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cpp/test_library.py
	@# The sanitizer must be loaded before Python, which has leaks of its own.
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 REIDRUNTIME_LIBRARY=engines/cpp/build/asan/libreidruntime.so OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest tests/reidruntime/images/test_batch_reader.py

# The report in a real browser, light and dark, wide and narrow.
report-test: install
	engines/cpp/debian_packages.sh chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/reidexport/report/test_browser.py

# The page to search with, in the same browser.
web-test: install
	engines/cpp/debian_packages.sh chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/reidexport/gallery/web

# The server, real and under load, in an environment of its own: nvidia-pytriton needs numpy < 2.
serve-test: .venv-serve/installed
	OMP_NUM_THREADS=1 .venv-serve/bin/python -m pytest --noconftest tests/reidexport/serving/triton/test_serving.py

.venv-serve/installed: pyproject.toml
	test -x .venv-serve/bin/python || $(PYTHON) -m venv .venv-serve
	.venv-serve/bin/pip install --quiet --disable-pip-version-check --editable ".[serve,cpu]" "pytest>=8.3"
	@touch $@

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Speed against named peers; ARGUMENTS="--artifact FILE --checkpoint FILE --data ROOT --results DIR" measures yours.
# Images are read by the C++ library where make cpp has built it.
bench: export REIDRUNTIME_LIBRARY ?= $(wildcard engines/cpp/build/release/libreidruntime.so)
bench: install
	$(BIN)/python -m pytest benchmarks -s $(ARGUMENTS)

# The readers of files of others under atheris, a minute each; ARGUMENTS="--seconds 600 image pickle" chooses.
fuzz: install
	$(BIN)/pip install --quiet --disable-pip-version-check "atheris>=3"
	$(BIN)/python -m tests.fuzz $(ARGUMENTS)

# On a machine with an NVIDIA GPU, with whatever of onnxruntime-gpu and TensorRT it has beside torch; installs nothing.
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tests.gpu --json gpu-check.json $(ARGUMENTS)

clean:
	rm -rf .venv .venv-serve demo dist engines/cpp/build .pytest_cache .mypy_cache .ruff_cache .coverage
