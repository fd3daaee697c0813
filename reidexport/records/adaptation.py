"""What ``reidexport adapt`` found out about a site, and what it wrote."""

from typing import ClassVar, Literal

from reidexport.records.base import Measurement, RecordPart


class Divergence(RecordPart):
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
    divergence: Divergence | None
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
        own_networks: the camids of cameras that have a network of their own.
        pairs: None where crops tell no tracks and times, or too few.
        is_needed: whether anything was changed, or should be.
        advice: what to do, in sentences.
        warnings: what makes the judgement doubtful.
        seconds: of all, files to files.
    """

    command: ClassVar[str] = "reidexport adapt CHECKPOINT CROPS -o FILE --json FILE"
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
    own_networks: tuple[int, ...] = ()
    pairs: PairReport | None
    is_needed: bool
    advice: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


class SiteRow(RecordPart):
    """A network at a site.

    Attributes:
        site: what the site is.
        network: what embeds: "as it is", "adapted", ...; "as advised": what ``adapt`` wrote.
        rank1: share of queries.
        mAP: of all queries.
        rerank: whether re-ranked by k-reciprocal neighbors.
    """

    site: str
    network: str
    rank1: float
    mAP: float
    rerank: bool = False


class SiteVerdict(RecordPart):
    """Whether the advice for a site was right.

    Attributes:
        site: what the site is.
        is_right: what was advised costs at most 0.3 points of mAP, and gains half or more of what is to be gained where
            that is a point or more; and the words are those that ``wanted`` says. Where it wants cameras named, nothing
            need be gained.
        wanted: what the advice, or the refusal, must name; "" where only the figures count.
        advice: what it says.
        mix: as in :class:`AdaptationRecord`; None where crops were refused.
        standardizes: likewise.
        camera_share: likewise.
        divergence: likewise, of the whole site.
        seconds: of adapting.
    """

    site: str
    is_right: bool
    wanted: str
    advice: tuple[str, ...]
    mix: float | None = None
    standardizes: bool | None = None
    camera_share: float | None = None
    divergence: Divergence | None = None
    seconds: float | None = None


class SitesRecord(Measurement):
    """What adapting gives: scores of networks at sites, and whether the advice was right.

    Attributes:
        checkpoint: the file's name.
        dataset: whose people are at the sites.
        rows: the scores.
        verdicts: of sites that were planted; none of a real one.
    """

    command: ClassVar[str] = "python -m benchmarks.sites CHECKPOINT --data ROOT --json FILE"
    timed_region: ClassVar[str] = "adapting, files to files"

    kind: Literal["sites"] = "sites"
    checkpoint: str
    dataset: str
    rows: tuple[SiteRow, ...]
    verdicts: tuple[SiteVerdict, ...] = ()
