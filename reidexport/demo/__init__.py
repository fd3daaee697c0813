"""The whole way from pictures to a verified embedder, on drawn people: no network, no GPU, no data set needed."""

from reidexport.demo.run import DemoSettings, run_demo

__all__ = ["DemoSettings", "run_demo"]
