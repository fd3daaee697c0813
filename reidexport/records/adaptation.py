"""What ``reidexport adapt`` found out about a site, and what it wrote."""

from typing import ClassVar, Literal

from reidexport.records.base import Measurement, RecordPart


class DivergenceReport(RecordPart):
    """How far crops are from what a network's BatchNorms recorded in training: symmetric Kullback-Leibler divergence.

    Attributes:
        stem: of the first BatchNorm.
        neck: of the neck's; None where it has none.
        mean: over all BatchNorms.
    """

    stem: float
    neck: float | None
    mean: float


class CameraReport(RecordPart):
    """One camera of a site, or all crops together.

    Attributes:
        camid: from 0; None for all crops together.
        name: of its folder, where crops lie in one for each camera.
        num_crops: how many were given.
        divergence: of its crops; None where the network has no BatchNorm.
        mix: the camera's share in the statistics of a network of its own; None where none was asked for.
    """

    camid: int | None
    name: str | None = None
    num_crops: int
    divergence: DivergenceReport | None
    mix: float | None = None


class SuggestedThreshold(RecordPart):
    """A cosine distance that says "the same person", from boxes of one camera at one time, of two persons.

    Attributes:
        fpr: the share of those that pass it.
        tpr: the share of boxes that follow each other in a track that pass it.
        threshold: 1 - cosine, at most.
        low: of its confidence interval, by resampling tracks.
        high: likewise.
        confidence: of the interval.
        num_tracks: that the pairs are of.
    """

    fpr: float
    tpr: float
    threshold: float
    low: float
    high: float
    confidence: float
    num_tracks: int


class PairReport(RecordPart):
    """How well a site's own tracks are told apart, without a label.

    Attributes:
        num_genuine: pairs of boxes that follow each other in a track.
        num_impostor: pairs of boxes of two tracks that one camera sees at the same time.
        separations: d' of the two by what embeds: "as it is", "adapted", and what was written, as "written".
        threshold: suggested for what was written.
    """

    num_genuine: int
    num_impostor: int
    separations: dict[str, float]
    threshold: SuggestedThreshold


class AdaptationRecord(Measurement):
    """A site, and a checkpoint adapted to it.

    Attributes:
        checkpoint: the file.
        artifact: the ONNX file that was written.
        profile: the camera profile that was written.
        crops: where the crops were found.
        site: of all crops together.
        cameras: of each; none where crops tell no camera.
        mix: the site's share in the network's BatchNorm statistics; 0: the network is as it was.
        camera_share: the share of the features' variance that lies between cameras; None of fewer than two.
        standardizes: whether the profile is applied.
        pairs: None where crops tell no tracks and times, or too few.
        is_needed: whether anything was changed, or should be.
        advice: what to do, in sentences.
        warnings: what makes the judgement doubtful.
        seconds: of all, files to files.
    """

    command: ClassVar[str] = "reidexport adapt --json"
    timed_region: ClassVar[str] = "reading crops, measuring, exporting, embedding and writing"

    kind: Literal["adaptation"] = "adaptation"
    checkpoint: str
    artifact: str
    profile: str
    crops: str
    site: CameraReport
    cameras: tuple[CameraReport, ...]
    mix: float
    camera_share: float | None
    standardizes: bool
    pairs: PairReport | None
    is_needed: bool
    advice: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float
