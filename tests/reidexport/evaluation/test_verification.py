"""The gate: what passes, what fails, and what it says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from reidruntime import SessionOptions, open_session
from reidruntime.session import Session

from reidexport import Limits, load_checkpoint, session_from_checkpoint, verify
from reidexport.cli.shared_options import ForeignOptions
from reidexport.data import Dataset
from reidexport.data.synthetic import draw_people
from reidexport.errors import InputError
from reidexport.evaluation.limits import DEFAULT_LIMITS, limits_of
from reidexport.evaluation.opening import open_any, open_reference
from reidexport.evaluation.torch_session import TorchBackend
from reidexport.evaluation.verification import DRAWN_PEOPLE, NO_PEOPLE, batch_consistency
from reidexport.export.graph import GraphOptions
from reidexport.metrics.agreement import check_comparable
from reidexport.records.accuracy import Verification
from tests.conftest import Exported, Run
from tests.standins.runtime_models import DIM, HEIGHT, WIDTH, write_foreign


@pytest.fixture(scope="module")
def people() -> list[NDArray[np.uint8]]:
    """A few drawn people."""
    return draw_people(12)


class LeakyBackend:
    """Answers each row right only when the row is alone: the mean of the batch leaks into every row."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """The real answer plus a part of the batch's mean."""
        answer = self.backend.run(batch)
        return answer + 0.05 * (answer.mean(0) - answer)

    def describe(self) -> str:
        """A name for the report."""
        return "leaky"


def damaged_copy(exported: Exported, folder: Any) -> Any:
    """The FP32 file with the weights of one layer scaled by 1.5."""
    model = onnx.load(exported.onnx)
    weight = next(t for t in model.graph.initializer if t.dims and len(t.dims) == 4 and t.dims[0] == 512)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    path = folder / "damaged.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_export_passes_against_its_checkpoint(
    exported: Exported, people: list[NDArray[np.uint8]], backend: Any
) -> None:
    """Every backend answers as the unfolded network in torch does, in any batch."""
    with open_session(exported.onnx, SessionOptions(backend=backend)) as candidate:
        with open_reference(exported.checkpoint, candidate.manifest) as reference:
            result = verify(candidate, reference, images=people)
    assert result.passed, result.failures
    assert result.max_relative_l2 < 1e-5
    assert result.top1_agreement == result.top10_agreement == 1.0
    assert set(result.batch_consistency) == {"full_batch", "permuted", "duplicated"}
    assert max(result.batch_consistency.values()) < 1e-5


def test_a_data_set_adds_ranks_of_both_and_their_drops(exported: Exported, drawn_dataset: Dataset) -> None:
    """With a data set, rank-1 and mAP of both sessions and the drops in points are reported."""
    with open_session(exported.onnx) as candidate, open_any(exported.checkpoint) as reference:
        result = verify(candidate, reference, dataset=drawn_dataset)
    content = result.model_dump(mode="json")
    assert content["passed"] is True
    assert content["candidate_ranks"] == pytest.approx(content["reference_ranks"])
    assert content["drops"]["rank1"] == pytest.approx(0.0)
    assert result.num_images == len(drawn_dataset.query) + len(drawn_dataset.scored_gallery)
    assert content["machine"]["cores"] >= 1


def test_neighbors_of_kept_cameras_leave_the_query_image_out(
    exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """Queries that are the gallery have the neighbors that the same images have among each other."""
    itself = replace(drawn_dataset, gallery=drawn_dataset.query, same_camera="keep")
    damaged = damaged_copy(exported, tmp_path)
    with open_session(damaged) as candidate, open_any(exported.checkpoint) as reference:
        result = verify(candidate, reference, dataset=itself)
        images = verify(candidate, reference, images=[record.path for record in drawn_dataset.query])
    assert result.top1_agreement == images.top1_agreement < 1


def test_the_fp16_file_passes_with_its_own_consistency(
    exported: Exported, people: list[NDArray[np.uint8]]
) -> None:
    """The half graph stays within the default limits of the float32 reference."""
    with open_session(exported.fp16) as candidate, open_any(exported.checkpoint) as reference:
        result = verify(candidate, reference, images=people)
    assert result.passed, result.failures
    assert 1e-6 < result.max_relative_l2 < 1e-2


def test_damaged_weights_fail_and_name_the_worst_image(
    exported: Exported, people: list[NDArray[np.uint8]], tmp_path: Any
) -> None:
    """A file with one wrong layer fails on cosine, and the failure names the image."""
    with open_session(damaged_copy(exported, tmp_path)) as candidate:
        with open_any(exported.checkpoint) as reference:
            result = verify(candidate, reference, images=people, limits=Limits(min_cosine=0.99999))
    assert not result.passed
    assert result.failures[0].startswith("cosine 0.") and "of image " in result.failures[0]
    assert result.worst[0].cosine == result.min_cosine <= result.worst[-1].cosine


def test_a_row_that_depends_on_its_batch_fails(exported: Exported, people: list[NDArray[np.uint8]]) -> None:
    """A session whose rows leak into each other is caught although it is right at batch 1."""
    with open_session(exported.onnx) as session:
        leaky = Session(session.manifest, "leaky", LeakyBackend(session._network), 1)
        differences = batch_consistency(leaky, people)
        assert differences["full_batch"] > 1e-3
        assert differences["duplicated"] < 1e-5
        with open_any(exported.checkpoint) as reference:
            result = verify(leaky, reference, images=people, limits=Limits(min_cosine=0.5))
    assert any("a row answers differently full batch" in failure for failure in result.failures)
    assert any("rows of one batch change each other" in cause for cause in result.causes)


@pytest.mark.parametrize(
    ("precision", "backend", "expected"),
    [
        ("fp32", "onnxruntime", (0.9999, 0.99999, 0.1, 1e-4)),
        ("fp16", "onnxruntime", (0.999, 0.9999, 0.1, 1e-2)),
        ("fp32", "openvino-bf16", (0.98, 0.998, 0.3, 5e-2)),
        ("int8", "openvino", (0.6, 0.98, 0.3, 1e-2)),
    ],
)
def test_limits_are_those_of_the_precision(
    exported: Exported, precision: str, backend: str, expected: tuple[float, ...]
) -> None:
    """Of what is computed in, which may be the backend's own; a chosen one takes the place of its own only."""
    with open_session(exported.onnx) as opened:
        manifest = opened.manifest.model_copy(update={"precision": precision})
        session = Session(manifest, backend, LeakyBackend(opened._network), 1)
    found = limits_of(session, Limits())
    assert (found.min_cosine, found.min_mean_cosine, found.max_rank1_drop, found.max_batch_change) == expected
    assert limits_of(session, Limits(max_rank1_drop=7.0)) == found.model_copy(update={"max_rank1_drop": 7.0})


def test_the_verdict_says_what_it_was_measured_on(
    exported: Exported, people: list[NDArray[np.uint8]], drawn_dataset: Dataset
) -> None:
    """Drawn people are warned of, other images and a data set are named; the limits are in the record."""
    with open_session(exported.onnx) as one, open_session(exported.onnx) as other:
        drawn = verify(one, other, images=people, images_are=DRAWN_PEOPLE)
        crops = verify(one, other, images=people, images_are="images of crops")
        data = verify(one, other, dataset=drawn_dataset)
    assert drawn.measured_on == "12 drawn people"
    assert drawn.warnings == (NO_PEOPLE,)
    assert (crops.measured_on, crops.warnings) == ("12 images of crops", ())
    assert (data.measured_on, data.warnings) == (f"{data.num_images} images of drawn", ())
    assert drawn.limits == DEFAULT_LIMITS["fp32"]


def test_drops_over_the_limit_fail_in_words(exported: Exported, drawn_dataset: Dataset) -> None:
    """A drop of rank-1 or mAP over its limit is a failure that states both numbers."""
    with open_session(exported.onnx) as candidate, open_any(exported.checkpoint) as reference:
        result = verify(
            candidate, reference, dataset=drawn_dataset, limits=Limits(max_rank1_drop=-1.0, max_map_drop=-2.0)
        )
    assert result.failures == (
        "rank1 dropped by 0.00 points, allowed -1.0",
        "mAP dropped by 0.00 points, allowed -2.0",
    )


def test_features_that_are_not_comparable_are_refused(
    exported: Exported, people: list[NDArray[np.uint8]]
) -> None:
    """f_i against f_t, other lengths, and too few images are input errors, not low cosines."""
    with open_session(exported.onnx) as candidate:
        with open_any(exported.checkpoint, feature="f_t") as reference:
            with pytest.raises(
                InputError, match="candidate is not comparable: its feature is f_i, the reference's f_t"
            ):
                verify(candidate, reference, images=people)
        with open_any(exported.checkpoint) as reference:
            with pytest.raises(InputError, match="at least two images"):
                verify(candidate, reference, images=people[:1])
            architecture = candidate.manifest.architecture.model_copy(update={"feature_dim": 7})
            reference.manifest = reference.manifest.model_copy(update={"architecture": architecture})
            with pytest.raises(InputError, match=r"have 512 values .*, the reference's 7"):
                verify(candidate, reference, images=people)


def test_not_a_number_fails_rather_than_passing(exported: Exported, people: list[NDArray[np.uint8]]) -> None:
    """A candidate that answers NaN for one image has cosine -1 there, and fails."""
    checkpoint = load_checkpoint(exported.checkpoint)
    with session_from_checkpoint(checkpoint) as reference, open_session(exported.onnx) as candidate:

        class NanBackend(LeakyBackend):
            def run(self, batch: NDArray[Any]) -> NDArray[Any]:
                answer = np.array(self.backend.run(batch))
                answer[0, 3] = np.nan
                return answer

        broken = Session(candidate.manifest, "nan", NanBackend(candidate._network), 1)
        result = verify(broken, reference, images=people)
    assert result.min_cosine == -1.0
    assert not result.passed
    assert "1 of 12 features of the candidate are not finite, of image 0 first" in result.causes[0]
    assert Verification.model_validate_json(result.model_dump_json()) == result
    assert result.max_relative_l2 == np.inf


def test_a_reference_checkpoint_takes_the_candidates_choices(exported: Exported) -> None:
    """Feature, flip, normalization and size of the candidate's manifest are used for the reference."""
    with open_session(exported.onnx) as candidate:
        wanted = candidate.manifest.model_copy(update={"feature": "f_t", "normalized": True, "flip": True})
        with open_reference(exported.checkpoint, wanted) as reference:
            assert reference.manifest.feature == "f_t"
            assert reference.manifest.normalized and reference.manifest.flip
            rows = reference.embed(draw_people(3))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)


@pytest.mark.gpu
def test_cuda_answers_as_the_cpu_does(exported: Exported, people: list[NDArray[np.uint8]]) -> None:
    """Both precisions pass the gate on an NVIDIA GPU, and the session says that it runs there."""
    for path in (exported.onnx, exported.fp16):
        with (
            open_session(path, SessionOptions(backend="onnxruntime", device="cuda")) as candidate,
            open_session(exported.onnx, SessionOptions(device="cpu")) as reference,
        ):
            assert "CUDA" in candidate.description
            assert verify(candidate, reference, images=people).passed


@pytest.mark.parametrize("application", ["default", "tf32"])
def test_the_reference_computes_in_float32(application: str, exported: Exported) -> None:
    """While the reference runs, no product or convolution may use TF32; afterwards the application's choice is back."""
    seen: list[tuple[str, str]] = []
    backend = TorchBackend(load_checkpoint(exported.checkpoint), GraphOptions(feature="f_i"), 1)
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    backend.model.register_forward_hook(
        lambda *_: seen.append((cuda.fp32_precision, cudnn.conv.fp32_precision))
    )
    try:
        if application == "tf32":
            torch.backends.fp32_precision = "tf32"
        before = (cuda.fp32_precision, cudnn.conv.fp32_precision)
        backend.run(np.zeros((1, 64, 32, 3), np.uint8))
        assert seen == [("ieee", "ieee")]
        assert (cuda.fp32_precision, cudnn.conv.fp32_precision) == before
    finally:
        torch.backends.fp32_precision = "none"


FACTS = ("--size", "64x32", "--mean", "0", "--std", "1/255", "--layout", "NHWC")


def without_manifest(exported: Exported, path: Path) -> Path:
    """The exported file as another program would have written it."""
    model = onnx.load(exported.onnx)
    del model.metadata_props[:]
    onnx.save(model, path)
    return path


def test_a_file_without_a_manifest_is_verified_with_stated_facts(
    exported: Exported, tmp_path: Path, run: Run
) -> None:
    """The facts are the file's, not its checkpoint's: a wrong one is found out, and what else it may be is said."""
    path = without_manifest(exported, tmp_path / "other.onnx")
    passed = run("verify", path, "--reference", exported.checkpoint, *FACTS)
    assert passed.returncode == 0, passed.stderr
    assert "PASSED" in passed.stdout
    wrong = run("verify", path, "--reference", exported.checkpoint, *FACTS, "--channel-order", "BGR")
    assert wrong.returncode == 1
    assert "FAILED: cosine" in wrong.stderr
    assert "was compared with f_i. If that may be f_t, before the neck, pass --feature f_t" in wrong.stderr


def test_a_file_without_a_manifest_may_emit_f_t(exported: Exported, tmp_path: Path) -> None:
    """Which feature a checkpoint answers with is chosen; the file's manifest does not know."""
    path = without_manifest(exported, tmp_path / "other.onnx")
    manifest = ForeignOptions(size="64x32", mean="0", std="1/255", layout="NHWC").manifest(path)
    assert manifest is not None
    for feature, expected in ((None, "f_i"), ("f_t", "f_t")):
        with open_reference(exported.checkpoint, manifest, feature=feature) as reference:  # type: ignore[arg-type]
            assert reference.manifest.feature == expected
            assert reference.manifest.preprocess.mean == load_checkpoint(exported.checkpoint).preprocess.mean
            check_comparable("it", manifest, reference.manifest)


def test_a_file_of_another_length_is_not_compared(exported: Exported, tmp_path: Path) -> None:
    """The output and both lengths are named; (N, D, 1, 1) has D values."""
    shapes: Any = [("pooled", ["batch", DIM, 1, 1])]
    path = write_foreign(tmp_path / "f.onnx", None, shapes)
    manifest = ForeignOptions(size=f"{HEIGHT}x{WIDTH}", mean="0", std="1").manifest(path)
    assert manifest is not None
    check_comparable("it", manifest, manifest)
    with open_reference(exported.checkpoint, manifest) as reference:
        with pytest.raises(InputError, match=r"have 8 values \(output 'pooled'\), the reference's 512"):
            check_comparable("it", manifest, reference.manifest)
