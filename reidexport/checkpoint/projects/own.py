"""This project's own format, whose header says everything."""

from reidexport.checkpoint.family import Family
from reidexport.models.baseline import BACKBONES

REIDEXPORT = Family(name="reidexport", signature=(), key_map=(), backbones=BACKBONES)
