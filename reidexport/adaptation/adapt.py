"""A checkpoint and a site's unlabeled crops → an ONNX file and a camera profile, as far as the site needs them.

crops ─▶ divergence from home ─▶ mixed BatchNorm statistics ─▶ ONNX ─▶ features of the crops ─▶ camera profile

Where crops tell tracks and times, the site's own tracks are asked whether the adapted network tells people apart
better.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from reidgallery.input import UNLABELED
from reidruntime import SessionOptions, open_session
from reidruntime.artifact.camera_profile import CameraProfile, HashedFile, Standardizer, camera_profile_path
from reidruntime.artifact.manifest import Precision, QuantizationTarget, file_sha256
from reidruntime.images.depth import Depth

from reidexport.adaptation.advice import advice, crop_warnings
from reidexport.adaptation.camera_statistics import camera_share, profile_of_features
from reidexport.adaptation.crops import Ints, SiteCrops
from reidexport.adaptation.free_pairs import FreePairs, free_pairs, separation, suggested_threshold
from reidexport.adaptation.site import MeasuredSite, measured_pixels, measured_site
from reidexport.adaptation.statistics import SiteNetwork, read_pixels
from reidexport.checkpoint.loading import Checkpoint
from reidexport.errors import InputError
from reidexport.export.graph import GraphOptions, graph_from_checkpoint
from reidexport.export.onnx_export import onnx_from_graph
from reidexport.files import replaced_when_whole
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.records.adaptation import AdaptationRecord, CameraReport, PairReport
from reidexport.records.base import here

# Of the features' variance that lies between cameras, from which on taking it off gains more than it costs. MSMT17's
# OSNet has 0.03 on Market-1501, Market-1501's own 0.007.
_STANDARDIZED_FROM = 0.0125
# What the separation of tracks must lose to count: less is chance.
_NOTICED_LOSS = 0.05
_NUM_ASKED_PAIRS = 128  # of each kind, to compare networks by
_BATCH = 32

Features = NDArray[np.float32]
Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class AdaptationOptions:
    """What may be adapted, and into what.

    Attributes:
        mix: the site's share in the BatchNorm statistics, 0 to 1; None: by how far it is from home.
        standardize: whether the profile is applied; None: where cameras make up enough of the features' variance.
        per_camera: also write a network for each camera.
        graph: what the network takes and answers.
        precision: what it computes in; INT8 is calibrated on the site's crops.
        target: of INT8.
        opset: of ONNX.
        depth: what becomes of crops of more than 8 bits a channel.

    Raises:
        InputError: ``mix`` is not from 0 to 1.
    """

    mix: float | None = None
    standardize: bool | None = None
    per_camera: bool = False
    graph: GraphOptions = field(default_factory=GraphOptions)
    precision: Precision = "fp32"
    target: QuantizationTarget = "cpu"
    opset: int = 18
    depth: Depth = "refuse"

    def __post_init__(self) -> None:
        if self.mix is not None and not 0 <= self.mix <= 1:
            raise InputError(f"mix must be from 0 to 1, got {self.mix}.")


def adapt(
    checkpoint: Checkpoint,
    crops: SiteCrops,
    output: Path,
    options: AdaptationOptions | None = None,
    *,
    log: Log = lambda _: None,
    progress_bar: ProgressBar = no_progress_bar,
) -> AdaptationRecord:
    """Write ``output`` and its camera profile, adapted as far as the site needs it; nothing is trained.

    Args:
        checkpoint: from :func:`reidexport.load_checkpoint`.
        crops: of the site.
        output: ``NAME.onnx``; ``NAME.cameras.json`` and, per camera, ``NAME-c<camera>.onnx`` appear beside it. All are
            whole before the first of them takes its place.
        options: what may be adapted; default: whatever the site needs.
        log: called with a line for what INT8 finds out.
        progress_bar: shows what takes long.

    Returns:
        What was found out, and what was done; the names of the checkpoint and of the crops are left empty.

    Raises:
        InputError: the network has nothing that ``options`` want adapted, or as for :func:`onnx_from_graph`.
        ImageError: a crop cannot be read.
        ParityError: the network is not the same in ONNX, or INT8 loses too much.
    """
    began, options = time.perf_counter(), options or AdaptationOptions()
    network, pairs = SiteNetwork(checkpoint), free_pairs(crops)
    _check(network, crops, output, options)
    pixels = measured_pixels(network, crops, options.depth)
    site = measured_site(network, crops, pixels, progress_bar)
    mix, own_mixes = _chosen_mixes(site, options)
    separations: dict[str, float] = {}
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:

        def write(mix: float, own_mixes: Mapping[int, float]) -> tuple[dict[int, Path], Features]:
            adapted = network.adapted(pixels, mix) if mix else checkpoint
            files = {UNLABELED: Path(folder, output.name)}
            _export(adapted, files[UNLABELED], crops, options, log, progress_bar)
            for camid, own_mix in own_mixes.items():
                if own_mix or mix:  # where neither has one, the network is as it is
                    files[camid] = Path(folder, camera_file(output, camid).name)
                    own = measured_pixels(network, crops, options.depth, camid)
                    of_camera = network.adapted(own, own_mix) if own_mix else checkpoint
                    _export(of_camera, files[camid], crops.of_camera(camid), options, log, progress_bar)
            return files, _embedded(files, crops, options.depth, progress_bar)

        files, features = write(mix, own_mixes)
        if mix and pairs.are_enough:
            some = pairs.some(_NUM_ASKED_PAIRS)
            separations = {
                "as it is": _separation_as_it_is(checkpoint, crops, some, options),
                "adapted": separation(features, some),
            }
            if options.mix is None and separations["adapted"] < (1 - _NOTICED_LOSS) * separations["as it is"]:
                site = replace(site, is_kept=True)
                mix, own_mixes = _chosen_mixes(site, options)
                files, features = write(mix, own_mixes)
        share = camera_share(features, crops.camids, crops.tracks) if len(crops.cameras) > 1 else None
        standardizes = share is not None and share >= _STANDARDIZED_FROM
        if options.standardize is not None:
            standardizes = options.standardize
        profile = _profile(files, crops, features, standardizes)
        beside = camera_profile_path(files[UNLABELED])
        beside.write_text(profile.to_json() + "\n")
        for path in (*files.values(), beside):
            with replaced_when_whole(output.with_name(path.name)) as temporary:
                path.replace(temporary)
    found = AdaptationRecord(
        checkpoint="",
        artifact=str(output),
        profile=str(camera_profile_path(output)),
        crops="",
        site=CameraReport(camid=None, num_crops=len(crops.paths), divergence=site.whole),
        cameras=tuple(
            CameraReport(
                camid=camid,
                name=crops.camera_names.get(camid),
                num_crops=int((crops.camids == camid).sum()),
                divergence=site.cameras.get(camid),
                mix=own_mixes.get(camid),
            )
            for camid in crops.cameras
        ),
        mix=mix,
        camera_share=share,
        standardizes=profile.standardizes,
        own_networks=tuple(camera.camid for camera in profile.cameras if camera.network),
        pairs=_pair_report(pairs, separations, _standardized(profile, features, crops.camids)),
        is_needed=_is_needed(site, profile, mix),
        advice=(),
        warnings=tuple(crop_warnings(crops)),
        seconds=time.perf_counter() - began,
        **here(),
    )
    return found.model_copy(update={"advice": tuple(advice(found, site))})


def _check(network: SiteNetwork, crops: SiteCrops, output: Path, options: AdaptationOptions) -> None:
    if options.per_camera and not crops.cameras:
        raise InputError(
            "The crops tell no camera, so no camera can have a network of its own. Leave --per-camera out."
        )
    if not network.has_batch_norms and (options.mix or options.per_camera):
        raise InputError(
            f"{network.checkpoint.name} has no BatchNorm, whose statistics could be mixed. Leave --mix and "
            "--per-camera out."
        )
    if not output.parent.is_dir():
        raise InputError(
            f"{output}: the folder {output.parent} does not exist. Make it, or choose another path."
        )


def _is_needed(site: MeasuredSite, profile: CameraProfile, mix: float) -> bool:
    """Whether anything was changed, or something is to be looked at."""
    return bool(mix or site.is_far or site.far_cameras) or profile.changes_features


def camera_file(output: Path, camid: int) -> Path:
    """The file of a camera's own network: ``NAME-c1.onnx``."""
    return output.with_name(f"{output.stem}-c{camid + 1}.onnx")


def _export(
    checkpoint: Checkpoint,
    path: Path,
    crops: SiteCrops,
    options: AdaptationOptions,
    log: Log,
    progress_bar: ProgressBar,
) -> None:
    onnx_from_graph(
        graph_from_checkpoint(checkpoint, options.graph),
        path,
        precision=options.precision,
        calibration=crops.paths if options.precision == "int8" else None,
        depth=options.depth,
        target=options.target,
        opset=options.opset,
        log=log,
        progress_bar=progress_bar,
    )


def _embedded(
    files: Mapping[int, Path], crops: SiteCrops, depth: Depth, progress_bar: ProgressBar
) -> Features:
    """The features of all crops, each by the network of its camera, where that has one."""
    networks = np.where(np.isin(crops.camids, list(files)), crops.camids, UNLABELED)
    order, rows, done = [], [], 0
    with progress_bar("embedding crops", len(crops.paths)) as progress:
        for camid, file in files.items():
            places = np.flatnonzero(networks == camid).tolist()
            with open_session(file, SessionOptions(depth=depth)) as session:
                for indices, features in session.embed_batches(crops.paths[place] for place in places):
                    rows.append(features)
                    order += [places[index] for index in indices]
                    done += len(indices)
                    if progress:
                        progress(done)
    answers: Features = np.concatenate(rows)[np.argsort(order)]
    return answers


def _profile(
    files: Mapping[int, Path], crops: SiteCrops, features: Features, standardizes: bool
) -> CameraProfile:
    known = {camid: HashedFile(name=path.name, sha256=file_sha256(path)) for camid, path in files.items()}
    artifact = known.pop(UNLABELED)
    return profile_of_features(features, crops.camids, artifact, standardizes=standardizes, networks=known)


def _standardized(profile: CameraProfile, features: Features, camids: Ints) -> Features:
    standardizer = Standardizer(profile, "mean", unit_length=False)
    return standardizer(features, standardizer.places(camids, str))


def _chosen_mixes(site: MeasuredSite, options: AdaptationOptions) -> tuple[float, dict[int, float]]:
    """The site's share in the statistics of the network for all cameras, and in those of each camera's own."""
    cameras = site.camera_mixes if options.per_camera else {}
    if options.mix is None:
        return site.mix, cameras
    return options.mix, dict.fromkeys(cameras, options.mix)


def _separation_as_it_is(
    checkpoint: Checkpoint, crops: SiteCrops, pairs: FreePairs, options: AdaptationOptions
) -> float:
    """How well the network that is not adapted separates the pairs."""
    places = pairs.places
    paths = [crops.paths[place] for place in places.tolist()]
    pixels = read_pixels(paths, checkpoint.preprocess, options.depth)
    graph = graph_from_checkpoint(checkpoint, replace(options.graph, input="uint8"))
    with torch.inference_mode():
        parts = np.array_split(pixels, -(-len(pixels) // _BATCH))
        features = np.concatenate([graph(torch.from_numpy(part)).numpy() for part in parts])
    return separation(features, pairs.among(places))


def _pair_report(pairs: FreePairs, separations: dict[str, float], features: Features) -> PairReport | None:
    if not pairs.are_enough:
        return None
    return PairReport(
        num_genuine=len(pairs.genuine),
        num_impostor=len(pairs.impostor),
        separations=separations | {"written": separation(features, pairs.some(_NUM_ASKED_PAIRS))},
        threshold=suggested_threshold(features, pairs),
    )
