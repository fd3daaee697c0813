"""``reidexport verify``: the gate."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from reidruntime import Manifest
from reidruntime.artifact.manifest import Feature, Metric
from reidruntime.images.preprocess import Image
from typer import Argument, Option

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.cli.evidence import StrictOption, assumed_text, check_strict, exit_where_strict, tested
from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import SAME_CAMERA_TEXTS, JsonOption, log
from reidexport.cli.shared_options import (
    CheckpointOptions,
    ForeignOptions,
    PixelOptions,
    RunOptions,
    SameCameraOption,
)
from reidexport.data import Dataset, load_dataset
from reidexport.data.image_paths import find_images
from reidexport.errors import InputError
from reidexport.progress import progress_bar
from reidexport.records.accuracy import Verification
from reidexport.records.inspection import Evidence
from reidexport.records.reading import write_record

if TYPE_CHECKING:
    from reidexport.checkpoint.loading import Checkpoint
    from reidexport.evaluation.limits import Limits

NUM_DRAWN = 64


@dataclass(frozen=True)
class ComparedOptions:
    """What the two are compared on; drawn people where nothing is given."""

    data: Annotated[
        Path | None, Option(help="Data set folder: also compare rank-1 and mAP. Default: drawn people.")
    ] = None
    dataset: Annotated[str | None, Option(help="Which data set, where the folder holds several.")] = None
    images: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Real crops, 256 suffice: compare on them, and test on them what is assumed of a checkpoint.",
        ),
    ] = None
    metric: Annotated[Metric | None, Option(help="Distance; default: the candidate's.")] = None
    same_camera: SameCameraOption = "drop"
    feature: Annotated[
        Feature | None,
        Option(
            help="What a candidate without a manifest emits: f_i, behind the neck, or f_t; if left out, what the "
            "reference's project publishes."
        ),
    ] = None

    reference_cameras: Annotated[
        Path | None,
        Option(metavar="FILE", help="The reference's camera profile, where it has one of its own."),
    ] = None

    def load(self) -> tuple[Sequence[Image], str, Dataset | None]:
        """The images, what they are, and the data set that is in their place where one is given.

        Raises:
            InputError: the options exclude each other, or the folder holds no image.
            DatasetError: the data set cannot be read.
        """
        from reidexport.data.synthetic import draw_people
        from reidexport.evaluation.verification import DRAWN_PEOPLE

        if self.dataset and not self.data:
            raise InputError("--dataset chooses among the data sets of a folder: pass --data too")
        if self.same_camera != "drop" and not self.data:
            raise InputError("--same-camera says how a data set is scored: pass --data too")
        if self.images and self.data:
            raise InputError("--data and --images exclude each other: pass what to compare on")
        if self.data:
            return (), "", load_dataset(self.data, self.dataset, same_camera=self.same_camera, log=log)
        if self.images:
            return find_images([self.images], log=log), f"images of {self.images}", None
        return draw_people(NUM_DRAWN), DRAWN_PEOPLE, None


@dataclass(frozen=True)
class LimitOptions:
    """What the candidate may lose; what is left out is the limit of its precision."""

    min_cosine: Annotated[float | None, Option(help="Lowest cosine that any image may have.")] = None
    min_mean_cosine: Annotated[float | None, Option(help="Lowest mean cosine of all images.")] = None
    max_rank1_drop: Annotated[float | None, Option(help="Allowed loss of rank-1, percentage points.")] = None
    max_map_drop: Annotated[float | None, Option(help="Allowed loss of mAP, percentage points.")] = None
    strict: StrictOption = False

    def limits(self) -> "Limits":
        """The same for the comparison."""
        from reidexport.evaluation.limits import Limits

        return Limits(
            min_cosine=self.min_cosine,
            min_mean_cosine=self.min_mean_cosine,
            max_rank1_drop=self.max_rank1_drop,
            max_map_drop=self.max_map_drop,
        )


@with_option_groups
def verify(
    candidate: Annotated[Path, Argument(help="The artifact under test.")],
    reference: Annotated[Path, Option(help="The checkpoint or artifact that it must answer like.")],
    *,
    compared: ComparedOptions,
    allowed: LimitOptions,
    run: RunOptions,
    foreign: ForeignOptions,
    checkpoint: CheckpointOptions,
    json_file: JsonOption = None,
) -> None:
    """Compare an artifact with its reference; exit status 1 when it lost more than allowed."""
    from reidexport.evaluation.opening import is_foreign, kind_of, open_reference
    from reidexport.evaluation.verification import verify as verify_sessions

    check_strict(allowed.strict, compared.images if kind_of(reference) == "checkpoint" else None)
    images, images_are, records = compared.load()
    total = 2 * (len(records.query) + len(records.scored_gallery) if records else len(images))
    manifests, choices = _stated(candidate, reference, foreign, checkpoint)
    found: list[Evidence | None] = []

    def print_and_test(original: "Checkpoint") -> None:
        for line in original.fact_lines:
            log(f"reference  {line}")
        found.append(tested(original, compared.images, run.depth)[1])

    with (
        run.open(candidate, manifests.get(candidate)) as artifact,
        open_reference(
            reference,
            artifact.manifest,
            choices=choices,
            feature=compared.feature,
            manifest=manifests.get(reference),
            cameras=compared.reference_cameras or run.cameras,
            on_checkpoint=print_and_test,
            options=run.options(),
        ) as original,
        progress_bar("comparing", total) as progress,
    ):
        result = verify_sessions(
            artifact,
            original,
            images=images,
            images_are=images_are,
            dataset=records,
            limits=allowed.limits(),
            metric=compared.metric,
            progress=progress,
        )
    _print(result)
    # What is known of another program's file is compared with its reference.
    assumed = "" if is_foreign(artifact.manifest) else assumed_text(artifact.manifest.origins)
    if assumed and not (found and found[0]):
        print(f"assumed    {assumed}; --images tests them")
    files = {"artifact": str(candidate), "reference_file": str(reference)}
    write_record(json_file, result.model_copy(update=files))
    if not result.passed:
        for failure in result.failures:
            print(f"FAILED: {failure}", file=sys.stderr)
        for cause in result.causes:
            print(f"possible cause: {cause}", file=sys.stderr)
        if candidate in manifests and compared.feature is None:
            taken = original.manifest.feature
            other = "f_t, before the neck" if taken == "f_i" else "f_i, behind it"
            print(
                f"possible cause: {candidate} does not say what it emits, and was compared with {taken}. If that may "
                f"be {other}, pass --feature {other[:3]}.",
                file=sys.stderr,
            )
        raise typer.Exit(1)
    exit_where_strict(allowed.strict, found[0] if found else None)


def _stated(
    candidate: Path, reference: Path, foreign: ForeignOptions, checkpoint: CheckpointOptions
) -> tuple[dict[Path, Manifest], CheckpointChoices]:
    """What the options state: of ONNX files without a manifest, and of a reference that is a checkpoint."""
    from reidexport.evaluation.opening import kind_of, lacks_manifest

    if kind_of(reference) == "checkpoint" and not lacks_manifest(candidate):
        foreign.refuse_for_checkpoint(reference)
        return {}, checkpoint.choices(foreign)
    return foreign.manifests([candidate, reference]), checkpoint.choices(PixelOptions())


def _print(result: Verification) -> None:
    print(f"candidate  {result.candidate}")
    print(f"reference  {result.reference}")
    if limits := result.limits:
        print(
            f"limits     of {limits.precision}: cosine at least {limits.min_cosine} of any image, "
            f"{limits.min_mean_cosine} in the mean; drop of rank-1 at most {limits.max_rank1_drop}, of mAP "
            f"{limits.max_map_drop} points"
        )
    print(
        f"features   {result.measured_on}: cosine at least {result.min_cosine:.7f}, "
        f"{result.mean_cosine:.7f} in the mean, relative L2 error at most {result.max_relative_l2:.1e}"
    )
    consistency = ", ".join(
        f"{key.replace('_', ' ')} {value:.1e}" for key, value in result.batch_consistency.items()
    )
    print(f"batches    largest change of a row: {consistency}")
    print(f"neighbors top-1 {result.top1_agreement:.2%} the same, top-10 {result.top10_agreement:.2%}")
    for who, ranks in (("reference", result.reference_ranks), ("candidate", result.candidate_ranks)):
        if ranks:
            print(f"{who:<10} rank-1 {ranks.rank1:.2%}  mAP {ranks.mAP:.2%}  ({result.dataset})")
    if result.dataset:
        print(f"cameras    {SAME_CAMERA_TEXTS[result.same_camera]}")
    if result.drops:
        print(f"drops      rank-1 {result.drops['rank1']:.3f}  mAP {result.drops['mAP']:.3f} points")
    print(f"worst      {', '.join(f'{Path(each.image).name} {each.cosine:.7f}' for each in result.worst)}")
    for warning in result.warnings:
        print(f"warning    {warning}")
    print("PASSED" if result.passed else "FAILED")
