"""Ranges of activations against slow, obvious versions."""

import numpy as np
import onnx
import pytest

from reidexport.errors import InputError
from reidexport.export.quantization.activation_ranges import Histogram, collect_histograms
from tests.standins.runtime_models import HEIGHT, WIDTH, write_artifact


def values_and_histogram() -> tuple[np.ndarray, Histogram]:
    """Skewed values with outliers, counted in parts of very different size."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.1, 0.01, 50_000), rng.gamma(2, 1, 100_000), [40.0, -7.0]])
    values = values.astype(np.float32)
    histogram = Histogram()
    for part in np.array_split(values, 7):
        histogram.add(part)
    return values, histogram


def test_min_max_covers_everything() -> None:
    """The smallest and the largest value, zero among them; symmetric about zero where asked for."""
    values, histogram = values_and_histogram()
    assert histogram.range_by("min-max", symmetric=False) == (values.min(), values.max())
    assert histogram.range_by("min-max", symmetric=True) == (-values.max(), values.max())
    positive = Histogram()
    positive.add(np.array([3.0, 5.0], np.float32))
    assert positive.range_by("min-max", symmetric=False) == (0.0, 5.0)


@pytest.mark.parametrize(("method", "percent"), [("percentile-99.99", 99.99), ("percentile-99.999", 99.999)])
def test_percentiles_are_those_of_the_values(method: str, percent: float) -> None:
    """Both ends lie within one bin of numpy's percentiles, although the bins doubled many times."""
    values, histogram = values_and_histogram()
    bin_width = 2 * 64.0 / 4096
    lowest, highest = histogram.range_by(method, symmetric=False)  # type: ignore[arg-type]
    assert highest == pytest.approx(np.percentile(values, percent, method="higher"), abs=bin_width)
    assert lowest == pytest.approx(np.percentile(values, 100 - percent, method="lower"), abs=bin_width)


@pytest.mark.parametrize("symmetric", [False, True])
def test_least_squares_rounds_and_clips_least(symmetric: bool) -> None:
    """No share of the whole range gives a smaller squared error on the values themselves, to the bins' precision."""
    values, histogram = values_and_histogram()

    def error(lowest: float, highest: float) -> float:
        step = (highest - lowest) / 255
        codes = np.clip(np.round(values / step), np.round(lowest / step), np.round(highest / step))
        return float(np.square(codes * step - values, dtype=np.float64).sum())

    whole = (-40.0, 40.0) if symmetric else (-7.0, 40.0)
    best = min(error(whole[0] * share, whole[1] * share) for share in np.linspace(0.3, 1, 36))
    assert error(*histogram.range_by("least-squares", symmetric=symmetric)) <= best * 1.01


def test_a_network_that_is_not_finite_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Ranges of infinities would be nonsense: the tensor is named."""
    model = onnx.shape_inference.infer_shapes(onnx.load(write_artifact(tmp_path / "a.onnx")))
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0, 0] = np.inf
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
    with pytest.raises(InputError, match="tensor maps of the network is not finite"):
        collect_histograms(model, {"maps"}, [np.ones((2, HEIGHT, WIDTH, 3), np.uint8)])


def test_a_float_input_is_counted_like_any_other_tensor() -> None:
    """The first convolution of a network that takes normalized images has the input itself quantized."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]>
        network (float[N, 2] images) => (float[N, 2] features) { features = Relu(images) }"""
    )
    found = collect_histograms(model, {"images", "features"}, [np.array([[-1, 2]], np.float32)])
    assert {name: (each.lowest, each.highest) for name, each in found.items()} == {
        "images": (-1, 2),
        "features": (0, 2),
    }
