"""What a candidate may lose against its reference, by the precision that it computes in."""

from dataclasses import asdict, dataclass

from reidruntime.session import Session

from reidexport.records.accuracy import ComputedPrecision, VerificationLimits

# From what each precision lost on all of Market-1501 with OSNet x0.25 (docs/verify.md), with room for other networks.
DEFAULT_LIMITS: dict[ComputedPrecision, VerificationLimits] = {
    limits.precision: limits
    for limits in (
        VerificationLimits(
            precision="fp32",
            min_cosine=0.9999,
            min_mean_cosine=0.99999,
            max_rank1_drop=0.1,
            max_map_drop=0.1,
            max_batch_change=1e-4,
        ),
        VerificationLimits(
            precision="fp16",
            min_cosine=0.999,
            min_mean_cosine=0.9999,
            max_rank1_drop=0.1,
            max_map_drop=0.1,
            max_batch_change=1e-2,
        ),
        VerificationLimits(
            precision="bf16",
            min_cosine=0.98,
            min_mean_cosine=0.998,
            max_rank1_drop=0.3,
            max_map_drop=0.2,
            max_batch_change=5e-2,
        ),
        VerificationLimits(
            precision="int8",
            min_cosine=0.6,
            min_mean_cosine=0.98,
            max_rank1_drop=0.3,
            max_map_drop=0.2,
            max_batch_change=1e-2,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate may lose, where that is not what its precision may lose.

    Attributes:
        min_cosine: the lowest cosine that any image may have.
        min_mean_cosine: the lowest mean of all images' cosines.
        max_rank1_drop: percentage points.
        max_map_drop: percentage points.
    """

    min_cosine: float | None = None
    min_mean_cosine: float | None = None
    max_rank1_drop: float | None = None
    max_map_drop: float | None = None


def limits_of(candidate: Session, chosen: Limits) -> VerificationLimits:
    """The limits of the precision that a session computes in, with the chosen ones in their place."""
    given = {name: value for name, value in asdict(chosen).items() if value is not None}
    return DEFAULT_LIMITS[candidate.precision].model_copy(update=given)
