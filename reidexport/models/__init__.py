"""The architectures that a checkpoint can hold."""

from reidexport.models.baseline import BACKBONES, Architecture, Baseline

__all__ = ["BACKBONES", "Architecture", "Baseline"]
