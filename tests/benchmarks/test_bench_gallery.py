"""Rows of searches on a GPU, measured on the CPU."""

from pathlib import Path

import pytest
from reidgallery import Gallery

from benchmarks.bench_gallery import compare_on_device
from benchmarks.bench_ranking import data
from tests.standins.benchmark_runs import turns_of_a_test


def test_a_search_on_a_device_is_compared_with_the_cpus_bits(tmp_path: Path) -> None:
    """Queries a second, how many answers were compared to the bit, and which peers are not there."""
    features = data(500, 60)
    gallery = Gallery(2048)
    gallery.add(features.g_feats)
    gallery.save(tmp_path / "small.gallery")
    compare, row = turns_of_a_test()
    compare_on_device(compare, tmp_path / "small.gallery", features.q_feats, "cpu")
    seconds = row["seconds"]["reidexport"]["median"]
    assert row["queries_per_s"] == pytest.approx(60 / seconds, rel=1e-3)
    assert row["num_bit_equal_to_the_cpu"] == 40
    assert row["seconds"].keys() == {"reidexport", "limit"}
