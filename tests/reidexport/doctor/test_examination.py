"""The doctor judges machines that are described to it, and this one without importing anything heavy."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reidexport.cli.doctor import doctor
from reidexport.doctor import Finding, examine, examine_this_machine
from reidexport.doctor.examination import (
    dataset_findings,
    environment_findings,
    gpu_findings,
    system_findings,
)
from reidexport.doctor.hardware import DetectedGpu, NvidiaDriver, cpu_features, nvidia_driver
from reidexport.doctor.packages import (
    conflicts,
    extra_of,
    importable_versions,
    own_requirements,
    package_findings,
    parse_requirements,
    within,
)
from reidexport.machine import MachineInfo, installed_versions

REQUIREMENTS = parse_requirements(
    [
        "numpy>=1.26",
        "rich>=13.7; extra == 'cli'",
        "rich>=13.7; extra == 'cpu'",
        "onnxruntime>=1.22; extra == 'cpu'",
        "openvino>=2025.2; extra == 'cpu'",
        "rich>=13.7; extra == 'gpu'",
        "onnxruntime-gpu[cuda,cudnn]>=1.28; extra == 'gpu'",
        "rich>=13.7; extra == 'export'",
        "torch<2.15,>=2.11; extra == 'export'",
        "torchvision>=0.26; extra == 'export'",
        "colorama; sys_platform == 'win32'",
    ]
)
MACHINE = MachineInfo(
    cpu="A CPU",
    cpu_mhz=3000,
    governor=None,
    cores=8,
    memory_mib=16384,
    gpus=[],
    system="Linux 6 x86_64",
    load_average=0.0,
)
H200 = NvidiaDriver("580.95.05", "13.0", (DetectedGpu("NVIDIA H200", "9.0", 143771),))
CPU_PACKAGES = {
    "numpy": "2.4.6",
    "rich": "15.0.0",
    "onnxruntime": "1.32.0",
    "openvino": "2026.4.1",
    "torch": "2.14.1",
    "torchvision": "0.29.2",
}


def _levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_a_working_cpu_machine_has_nothing_to_note() -> None:
    """Everything installed, no GPU: versions and nothing else."""
    found = package_findings(CPU_PACKAGES, REQUIREMENTS, "13.0", 0) + conflicts(CPU_PACKAGES, 0)
    assert set(_levels(found)) == {"ok"}
    assert Finding("ok", "torch", "2.14.1 (built for CUDA 13.0, runs on the CPU here)") in found


def test_what_an_extra_lacks_is_named_with_the_command() -> None:
    """Without torch and openvino, the two extras that bring them are advised."""
    packages = {"numpy": "2.4.6", "rich": "15.0.0", "onnxruntime": "1.32.0"}
    notes = [each for each in package_findings(packages, REQUIREMENTS, None, 0) if each.level == "note"]
    assert [each.advice for each in notes] == [
        'pip install "reidexport[export]"',
        'pip install "reidexport[cpu]"',
    ]
    assert "torch, torchvision" in notes[0].text
    assert "openvino" in notes[1].text


def test_on_a_gpu_the_cpu_onnxruntime_is_to_be_replaced_not_joined() -> None:
    """Advising a plain install would bring about the conflict."""
    notes = [each for each in package_findings(CPU_PACKAGES, REQUIREMENTS, "13.0", 1) if each.level == "note"]
    assert [each.advice for each in notes] == [
        'pip uninstall -y onnxruntime && pip install "reidexport[gpu]"'
    ]


@pytest.mark.parametrize(("num_gpus", "extra"), [(0, "cpu"), (1, "gpu")])
def test_two_onnxruntimes_are_a_problem(num_gpus: int, extra: str) -> None:
    """They overwrite each other's files; the machine decides which one stays."""
    (finding,) = conflicts({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, num_gpus)
    assert finding.level == "problem"
    assert finding.advice.endswith(f'pip install "reidexport[{extra}]"')


def test_onnxruntime_gpu_without_a_gpu_is_noted() -> None:
    """It works, on the CPU; the cpu extra is faster."""
    (finding,) = conflicts({"onnxruntime-gpu": "1.31.1"}, 0)
    assert finding.level == "note"
    assert "no GPU" in finding.text


@pytest.mark.parametrize(("tensorrt", "noted"), [("10.16.1.11", False), ("11.4.0.106", True)])
def test_onnxruntime_gpu_beside_tensorrt_11_is_noted(tensorrt: str, noted: bool) -> None:
    """Its TensorRT provider links the libraries of TensorRT 10."""
    found = conflicts({"onnxruntime-gpu": "1.31.1", "tensorrt-cu13": tensorrt}, 1)
    assert [("libnvinfer.so.10" in each.text) for each in found] == [True] * noted


@pytest.mark.parametrize(
    ("torch", "torchvision", "is_problem"),
    [
        ("2.14.1", None, True),
        ("2.14.1", "0.29.2", False),
        ("2.14.1+cu130", "0.29.2", False),
        ("2.14.1+cpu", "0.29.2+cpu", False),
        ("2.14.1+cpu", "0.29.2", True),
    ],
)
def test_torch_and_torchvision_must_be_of_one_build(
    torch: str, torchvision: str | None, is_problem: bool
) -> None:
    """A CPU torch under a CUDA torchvision breaks its import, and so does a missing torchvision its use."""
    packages = {"torch": torch} | ({"torchvision": torchvision} if torchvision else {})
    assert _levels(conflicts(packages, 0)) == ["problem"] * is_problem


def test_a_version_out_of_bounds_is_a_problem() -> None:
    """The bounds come from reidexport's own metadata."""
    found = package_findings({**CPU_PACKAGES, "torch": "2.15.0"}, REQUIREMENTS, None, 0)
    (problem,) = [each for each in found if each.level == "problem"]
    assert problem.text == "2.15.0 is not supported, expected <2.15,>=2.11 (built without CUDA)"
    assert problem.advice == 'pip install "reidexport[export]"'


@pytest.mark.parametrize(
    ("version", "bounds", "inside"),
    [
        ("2.14.1+cu130", "<2.15,>=2.11", True),
        ("2.11", ">=2.11", True),
        ("2.11.0", "<2.11", False),
        ("2.9", ">=2.11", False),
        ("13.0.0rc1", ">=10.3", True),
        ("1", "", True),
    ],
)
def test_bounds_compare_numbers_not_text(version: str, bounds: str, inside: bool) -> None:
    """2.9 is older than 2.11, and suffixes do not count."""
    assert within(version, bounds) is inside


def test_requirements_are_those_of_the_installed_package() -> None:
    """The extra that is advised for a package is the smallest that brings it."""
    requirements = own_requirements()
    assert extra_of("numba", requirements) == "cli"
    assert extra_of("torch", requirements) == "export"
    assert extra_of("onnxruntime-gpu", requirements) == "gpu"
    assert extra_of("colorama", requirements) is None
    assert set(installed_versions(["numpy", "no-such-package"])) == {"numpy"}


def test_what_can_be_imported_is_not_called_missing() -> None:
    """Every package that the extras ask for is looked up, PyYAML too, which is imported as yaml."""
    assert importlib.util.find_spec("yaml")
    examined = examine_this_machine({})
    assert "pyyaml" in examined.packages
    missing = [each.text for each in examined.findings if each.text.startswith("not installed")]
    assert not [text for text in missing if "pyyaml" in text]


def test_a_module_of_another_distribution_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is there when its module is, in the version of whatever brought it; others are left out."""
    for module, distribution in (("PIL", "pillow_simd"), ("tensorrt", "tensorrt_cu99_bindings")):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").touch()
        info = tmp_path / f"{distribution}-9.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.5\n")
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert importable_versions(("pillow", "tensorrt", "numpy")) == {"pillow": "9.5", "tensorrt": "9.5"}


def test_cpu_features_of_both_kinds_of_processor() -> None:
    """x86-64 calls the line flags, ARM Features."""
    assert cpu_features(
        "model name\t: X\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_tile\n"
    ) == (
        "AVX2",
        "AVX-512",
        "VNNI",
        "bf16",
        "AMX",
    )
    assert cpu_features("Features\t: fp asimd bf16 i8mm sve\n") == ("bf16", "NEON", "SVE", "I8MM")
    assert cpu_features("") == ()


def test_an_old_processor_is_noted() -> None:
    """One without AVX2; one whose features are not known is not."""
    assert _levels(system_findings(MACHINE, ("AVX2",), "3.11.7")) == ["ok", "ok", "ok"]
    assert _levels(system_findings(MACHINE, ("bf16",), "3.11.7"))[-1] == "note"
    assert _levels(system_findings(MACHINE, (), "3.11.7")) == ["ok", "ok", "ok"]


def test_gpus_and_their_absence() -> None:
    """No driver is fine; a driver without GPUs is noted; one that does not start is a problem."""
    assert _levels(gpu_findings(None)) == ["ok"]
    assert [each.text for each in gpu_findings(H200)] == [
        "NVIDIA driver 580.95.05, CUDA up to 13.0",
        "NVIDIA H200, compute capability 9.0, 143771 MiB",
    ]
    assert _levels(gpu_findings(NvidiaDriver(None, "13.0", ()))) == ["note"]
    assert _levels(gpu_findings(NvidiaDriver("580", "13.0", (), "CUDA does not start"))) == ["problem"]


def test_no_driver_library_means_no_driver() -> None:
    """As on a machine without an NVIDIA GPU."""
    assert nvidia_driver("libno-such-cuda.so.1") is None


DRIVER_C = """
#include <string.h>
#include <stddef.h>
int cuDriverGetVersion(int *v) { *v = 13010; return 0; }
int cuInit(unsigned f) { return STATUS; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *d, int i) { *d = 100 + i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, d == 101 ? "Second" : "First", n); return 0; }
int cuDeviceTotalMem_v2(size_t *m, int d) { *m = (size_t)141 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : a == 76 ? 1 : -1; return 0; }
int cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "590.48.01", n); return 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler to build a driver")
@pytest.mark.parametrize("status", [0, 803])
def test_the_driver_is_asked_through_its_c_interface(tmp_path: Path, status: int) -> None:
    """With a library that has the driver's own signatures."""
    (tmp_path / "driver.c").write_text(DRIVER_C)
    library = str(tmp_path / "libdriver.so")
    command = ["cc", f"-DSTATUS={status}", "-shared", "-fPIC", "-o", library, str(tmp_path / "driver.c")]
    subprocess.run(command, check=True)
    driver = nvidia_driver(library, library)
    gpus = (DetectedGpu("First", "9.1", 144384), DetectedGpu("Second", "9.1", 144384))
    problem = "CUDA does not start (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"
    expected = NvidiaDriver("590.48.01", "13.1", gpus)
    assert driver == (NvidiaDriver("590.48.01", "13.1", (), problem) if status else expected)
    without_nvml = nvidia_driver(library, "libno-such-nvml.so.1")
    assert without_nvml is not None
    assert without_nvml.version is None


def test_variables_that_slow_things_down_are_noted() -> None:
    """Fewer threads than cores, and a forced kind of kernel; enough threads are fine."""
    env = {"OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "8", "PATH": "/bin"}
    assert [each.advice for each in environment_findings(env, 8)] == [
        "unset OPENBLAS_CORETYPE",
        "unset OMP_NUM_THREADS",
    ]


def test_data_sets_are_listed_with_their_sizes(tmp_path: Path) -> None:
    """Also two levels down; one that cannot be read is a problem, and so is a missing folder."""
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        folder = tmp_path / "all" / "market1501" / name
        folder.mkdir(parents=True)
        (folder / "0001_c1s1_000001_00.jpg").touch()
    (found,) = dataset_findings(str(tmp_path))
    assert found.level == "ok"
    assert found.text.startswith("market1501: 1 train, 1 query and 1 gallery images in ")
    (tmp_path / "all" / "market1501" / "query" / "0001_c1s1_000001_00.jpg").unlink()
    assert _levels(dataset_findings(str(tmp_path))) == ["problem"]
    assert _levels(dataset_findings(str(tmp_path / "missing"))) == ["problem"]
    (tmp_path / "empty").mkdir()
    assert _levels(dataset_findings(str(tmp_path / "empty"))) == ["note"]
    assert _levels(dataset_findings(None)) == ["ok"]


def test_an_examination_gathers_everything() -> None:
    """And is healthy as long as nothing is a problem."""
    described = examine(MACHINE, ("AVX2",), "3.11.7", H200, {}, None, REQUIREMENTS, {})
    assert {"system", "processor", "memory", "GPU", "for gpu", "backend", "data sets"} <= {
        finding.topic for finding in described.findings
    }
    packages = {"torch": "2.14.1"}
    assert not examine(MACHINE, (), "3.11.7", None, packages, None, REQUIREMENTS, {}).healthy


def test_this_machine_is_examined_without_importing_frameworks() -> None:
    """Versions come from metadata: a doctor that takes long, or dies of what it diagnoses, is no use."""
    code = (
        "import os, sys; from reidexport.doctor import examine_this_machine; examine_this_machine(os.environ);"
        "print([name for name in ('torch', 'openvino', 'timm', 'tensorrt') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_prints_and_writes_what_it_found(tmp_path: Path) -> None:
    """Exit status 1 with a problem: here a data folder that does not exist."""
    app = typer.Typer()
    app.command()(doctor)
    json_file = tmp_path / "doctor.json"
    result = CliRunner().invoke(
        app, ["--json", str(json_file)], env={"REIDEXPORT_DATA": str(tmp_path / "no")}
    )
    assert result.exit_code == 1
    assert "problem  data sets" in result.output
    assert "→ correct or unset it" in result.output
    written = json.loads(json_file.read_text())
    assert written["healthy"] is False
    assert written["packages"] == dict(examine_this_machine({}).packages)
