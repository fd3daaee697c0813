"""An engine is compared with its manifest and the machine before it is loaded."""

from pathlib import Path

import pytest
from reidruntime.artifact.checks import check_engine
from reidruntime.errors import ArtifactError
from reidruntime.tensorrt_library import Gpu, version_tuple

from tests.standins.engines import H100, engine_manifest


@pytest.mark.parametrize(
    ("changes", "installed", "gpu", "words"),
    [
        ({}, "11.4.0.106", H100, r"built with TensorRT 10\.16\.1\.11, installed is 11\.4\.0\.106"),
        ({"version_compatible": True}, "10.12.0.36", H100, r"installed is 10\.12\.0\.36"),
        ({"version_compatible": True}, "11.4.0.106", H100, "carries code that runs when it is loaded"),
        ({}, "10.16.1.11", Gpu("NVIDIA L4", "8.9", "580.82.07"), r"built for NVIDIA H100 \(9\.0\), this is NVIDIA L4"),
        ({"hardware_compatible": True}, "10.16.1.11", Gpu("Tesla T4", "7.5", "580.82.07"), "capability 8.0 and up"),
        ({}, "10.16.1.11", Gpu("NVIDIA H100", "9.0", "570.10"), r"has the older 570\.10. Update the driver"),
        ({"plan_sha256": "1" * 64}, "10.16.1.11", H100, "not the engine that its manifest describes"),
    ],
)  # fmt: skip
def test_a_plan_that_does_not_fit_the_machine(
    changes: dict[str, object], installed: str, gpu: Gpu, words: str, tmp_path: Path
) -> None:
    """Version, GPU, driver and bytes are compared with the manifest, and the message says what to rebuild."""
    plan = tmp_path / "a.engine"
    plan.write_bytes(b"plan")
    with pytest.raises(ArtifactError, match=words):
        check_engine(engine_manifest(plan, **changes), plan, installed, gpu)


def test_a_plan_that_fits(tmp_path: Path) -> None:
    """The same machine; a driver that is newer or not told; another Ampere GPU or later TensorRT where allowed."""
    plan = tmp_path / "a.engine"
    plan.write_bytes(b"plan")
    check_engine(engine_manifest(plan), plan, "10.16.1.11", Gpu("NVIDIA H100", "9.0", "590.1"))
    check_engine(engine_manifest(plan), plan, "10.16.1.11", Gpu("NVIDIA H100", "9.0", "unknown"))
    other = Gpu("NVIDIA L4", "8.9", "580.82.07")
    check_engine(engine_manifest(plan, hardware_compatible=True), plan, "10.16.1.11", other)
    later = engine_manifest(plan, version_compatible=True)
    check_engine(later, plan, "11.4.0.106", H100, allow_host_code=True)
    assert version_tuple("10.16.1.post12.dev1") == (10, 16, 1)
