"""What a failed verification says of its cause."""

from typing import Any

import pytest
from reidruntime import Manifest, manifest_from_onnx
from reidruntime.artifact.manifest import Source

from reidexport.evaluation.causes import causes_of_failure
from reidexport.evaluation.limits import DEFAULT_LIMITS
from reidexport.records.accuracy import ComputedPrecision, Verification, WorstImage
from reidexport.records.base import here
from tests.conftest import Exported


@pytest.fixture(scope="module")
def manifest(exported: Exported) -> Manifest:
    """Of the small FP32 file."""
    found = manifest_from_onnx(exported.onnx)
    assert found is not None
    return found


def causes(
    candidate: Manifest,
    reference: Manifest,
    *,
    precision: ComputedPrecision = "fp32",
    not_finite: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
    num_queries: int | None = None,
    **figures: Any,
) -> tuple[str, ...]:
    """What is said of a failure with these figures."""
    found: dict[str, Any] = {
        "batch_consistency": {"full_batch": 0.0},
        "drops": {},
        "limits": DEFAULT_LIMITS[precision],
        **figures,
    }
    result = Verification(
        candidate="",
        reference="",
        num_images=64,
        min_cosine=0.5,
        mean_cosine=0.5,
        max_abs_error=1.0,
        max_relative_l2=1.0,
        worst=(WorstImage(image="a.jpg", cosine=0.5),),
        top1_agreement=1.0,
        top10_agreement=1.0,
        metric="cosine",
        dataset=None,
        candidate_ranks=None,
        reference_ranks=None,
        **found,
        **here(),
    )
    return causes_of_failure(result, candidate, reference, not_finite=not_finite, num_queries=num_queries)


def test_another_checkpoint_is_named(manifest: Manifest) -> None:
    """Both by name and sha256; the source of another exporter's file is that file, and says nothing."""
    other = manifest.model_copy(update={"source": Source(name="b.pth", sha256="f" * 64)})
    (cause,) = causes(manifest, other)
    own = manifest.source
    assert cause.startswith(
        f"two checkpoints: the candidate was made from {own.name} (sha256 {own.sha256[:12]})"
    )
    assert "the reference from b.pth (ffffffffffff)" in cause
    foreign = manifest.architecture.model_copy(update={"family": "foreign"})
    (cause,) = causes(other.model_copy(update={"architecture": foreign}), manifest)
    assert cause.startswith("what was stated for the file agrees with the reference")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("height_px", 384, "height_px 384, the reference's 64"),
        ("mean", (0.5, 0.5, 0.5), "mean (0.5, 0.5, 0.5), the reference's (0.485, 0.456, 0.406)"),
        ("channel_order", "BGR", "channel_order BGR, the reference's RGB"),
        ("resize", "bicubic", "resize bicubic, the reference's bilinear"),
    ],
)
def test_images_that_are_prepared_differently_are_named(
    manifest: Manifest, field: str, value: Any, words: str
) -> None:
    """Each fact that differs, with both values; equal ones are not listed."""
    preprocess = manifest.preprocess.model_copy(update={field: value})
    (cause,) = causes(manifest.model_copy(update={"preprocess": preprocess}), manifest)
    assert cause.startswith(f"the images are prepared differently: {words}. Export again")


def test_networks_that_differ_are_named(manifest: Manifest) -> None:
    """What both manifests tell, and nothing that one of them does not know."""
    architecture = manifest.architecture.model_copy(update={"last_stride": 2, "stem_relu": None})
    (cause,) = causes(manifest.model_copy(update={"architecture": architecture}), manifest)
    assert cause.startswith("the networks differ: last_stride 2, the reference's 1. Export again")


def test_values_that_are_not_finite_come_first(manifest: Manifest) -> None:
    """How many features of which side, and the first image; the precision is not blamed besides."""
    (first,) = causes(manifest, manifest, precision="fp16", not_finite=(("a.jpg", "b.jpg"), ()))
    assert first.startswith(
        "2 of 64 features of the candidate are not finite, of a.jpg first: values overflow"
    )
    (first,) = causes(manifest, manifest, not_finite=((), ("c.jpg",)))
    assert first.startswith("1 of 64 features of the reference are not finite, of c.jpg first")


def test_a_batch_that_changes_its_rows_is_explained(manifest: Manifest) -> None:
    """Training mode, and what to do until the export is right."""
    (cause,) = causes(manifest, manifest, batch_consistency={"full_batch": 0.64})
    assert cause.startswith("rows of one batch change each other")
    assert "use a batch of 1" in cause


def test_rounding_is_blamed_where_nothing_else_differs(manifest: Manifest) -> None:
    """By the precision that was computed in, with what that precision needs."""
    (cause,) = causes(manifest, manifest, precision="fp16")
    assert cause.startswith("fp16 rounds more than this network bears. Use FP32")
    int8 = manifest.model_copy(update={"precision": "int8"})
    (cause,) = causes(int8, manifest, precision="int8")
    assert "Calibrate on 200 or more of your own cameras, or use --fp16; to allow" in cause


def test_few_queries_are_told(manifest: Manifest) -> None:
    """One of 50 queries is 2 points: more than any limit, so a single changed rank fails."""
    found = causes(manifest, manifest, num_queries=50, drops={"rank1": 2.0})
    assert "of 50 queries each is 2.00 points of rank-1" in found[-1]
    assert len(causes(manifest, manifest, num_queries=3368, drops={"rank1": 2.0})) == 1


def test_where_nothing_differs_that_is_said(manifest: Manifest) -> None:
    """A failure never goes without a word of what to do."""
    (cause,) = causes(manifest, manifest)
    assert cause.startswith(
        "the manifests name the same checkpoint, images and network: the file was changed"
    )
