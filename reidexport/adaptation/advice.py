"""What a site needs, in sentences."""

from collections.abc import Iterator

from reidexport.adaptation.crops import FEW, SiteCrops
from reidexport.adaptation.site import NUM_MEASURED, MeasuredSite
from reidexport.records.adaptation import AdaptationRecord


def advice(found: AdaptationRecord, site: MeasuredSite) -> Iterator[str]:
    """What to do, by what was found out and done."""
    if site.times_nearer_swapped is not None:
        yield (
            f"Look at the colors first: with red and blue swapped the crops are {site.times_nearer_swapped:.1f} times "
            "nearer to those of the training. Pass --channel-order, or convert the crops, and adapt again."
        )
    far = [str(camid + 1) for camid in site.far_cameras]
    own = [str(camera.camid + 1) for camera in found.cameras if camera.mix and camera.camid is not None]
    if not found.is_needed:
        yield (
            "Not needed: the crops are like those of the training. The network is as it was, and the profile changes "
            "nothing."
        )
    if found.mix:
        yield f"Adapted: {found.mix:.0%} of the BatchNorm statistics are the site's."
    elif site.is_kept:
        yield (
            "The site is far from home, but its own tracks are told apart worse by adapted statistics: these are left "
            "as they were."
        )
    elif site.is_far:
        yield "The site is far from home, and the BatchNorm statistics are left as they were, as --mix says."
    if own:
        yield f"Cameras {', '.join(own)} have networks of their own: use the profile, which names them."
    elif 0 < len(far) <= len(site.cameras) / 2:
        which = f"camera {far[0]} is" if len(far) == 1 else f"cameras {', '.join(far)} are"
        yield f"Only {which} far from home: look at the crops, or pass --per-camera, which adapts each by itself."
    if found.standardizes:
        share = (
            ""
            if found.camera_share is None
            else f": {found.camera_share:.1%} of the variance lies between cameras"
        )
        yield f"Use the profile, which standardizes features{share}."


def crop_warnings(crops: SiteCrops) -> Iterator[str]:
    """What few crops make doubtful."""
    if len(crops.paths) < NUM_MEASURED:
        yield (
            f"{len(crops.paths)} crops are few to measure a site by: use {NUM_MEASURED} or more, of all hours and "
            "lights."
        )
    counts = {camid: int((crops.camids == camid).sum()) for camid in crops.cameras}
    if few := [f"{camid + 1} ({count})" for camid, count in counts.items() if count < FEW]:
        yield f"Few crops of cameras {', '.join(few)}: their profile is a guess. Use 256 of each or more."
