"""The architectures that a checkpoint can hold."""

from reidexport.models.baseline import BACKBONES, Baseline, BaselineArchitecture

__all__ = ["BACKBONES", "Baseline", "BaselineArchitecture"]
