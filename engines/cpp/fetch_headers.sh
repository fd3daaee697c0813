#!/usr/bin/env bash
# Fetches headers that Debian 12 and pip do not install, into build/headers; what is there already stays.
#
#   fetch_headers.sh onnxruntime                 ONNX Runtime's C API, out of Debian 13's libonnxruntime-dev
#   fetch_headers.sh tensorrt PYTHON             TensorRT's and CUDA's, to compile the TensorRT backend in tests
set -euo pipefail

headers="$(cd "$(dirname "$0")" && pwd)/build/headers"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

onnxruntime() {
    [ -e "$headers/onnxruntime/onnxruntime_c_api.h" ] && return
    [ -e /usr/include/onnxruntime/onnxruntime_c_api.h ] && return
    if ! command -v apt-get >/dev/null; then
        echo "onnxruntime_c_api.h (ONNX Runtime 1.21 or later) is needed: put it into $headers/onnxruntime" >&2
        return 1
    fi
    chmod 755 "$work"
    mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial"
    cat >"$work/sources/trixie.sources" <<SOURCES
Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    # A package index of its own: the system's stays as it is.
    local private=(-qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/sources"
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
    apt-get "${private[@]}" update
    (cd "$work" && apt-get "${private[@]}" download libonnxruntime-dev && dpkg -x libonnxruntime-dev_*.deb unpacked)
    install -D --mode 644 --target-directory "$headers/onnxruntime" "$work/unpacked/usr/include/onnxruntime/onnxruntime_c_api.h"
}

# The headers of a wheel of an index, checked; nothing of it is installed.
from_wheel() {
    local python="$1" requirement="$2" sha256="$3" folder="$4" into="$5" wheel="$work/$2"
    [ -e "$headers/$into/.from-$requirement" ] && return
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$wheel" "$requirement"
    echo "$sha256  $(ls "$wheel"/*.whl)" | sha256sum --check --quiet
    "$python" -m zipfile -e "$wheel"/*.whl "$wheel/unpacked"
    mkdir -p "$headers/$into"
    cp -r "$wheel/unpacked/$folder/." "$headers/$into/"
    touch "$headers/$into/.from-$requirement"
}

tensorrt() {
    # TensorRT 10.14; NVIDIA's own packages have no headers.
    from_wheel "$1" kernel-lens==2.0.1 \
        07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0 \
        kernel_lens/include/tensorrt tensorrt
    from_wheel "$1" nvidia-cuda-runtime==13.0.96 \
        7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 \
        nvidia/cu13/include cuda
    from_wheel "$1" nvidia-cuda-crt==13.0.88 \
        2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4 \
        nvidia/cu13/include cuda
}

"$@"
