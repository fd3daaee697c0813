"""The whole way from images to a verified embedder, on drawn people: no network, no GPU, no data set needed."""

from reidexport.demo.run import run_demo
from reidexport.demo.steps import DemoSettings

__all__ = ["DemoSettings", "run_demo"]
