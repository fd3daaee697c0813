"""The tables of docs/zoo.md are those of the committed results, and the measurement takes real checkpoints."""

from pathlib import Path

import pytest

from benchmarks import zoo
from reidexport.errors import InputError
from reidexport.records.base import here
from reidexport.records.inspection import EngineDescription
from reidexport.records.reading import read_record, write_record
from reidexport.records.speed import ZooNetwork, ZooRecord
from tests.standins.checkpoints import golden_cases

NETWORK = ZooNetwork(
    project="torchreid",
    case="tr_squeezenet1_1",
    backbone="squeezenet1_1",
    height_px=256,
    width_px=128,
    feature="f_t",
    feature_dim=512,
    size_mib=2.763,
    gflop=0.3333,
    batch_size=8,
    images_per_s={"fp32": 118.7, "bf16": 240.9},
    refused={"int8": "why"},
)


def test_the_page_says_what_was_measured() -> None:
    """Its tables are what the committed results give now."""
    page = zoo.PAGE.read_text()
    assert zoo.page_with_tables(page) == page


def test_only_what_is_checked_is_in_the_zoo() -> None:
    """Every network that is listed has golden vectors, and every project whose networks have some is there."""
    files = sorted((zoo.ROOT / "benchmarks" / "results").glob("*/zoo.json"))
    assert files
    for file in files:
        record = read_record(file)
        assert isinstance(record, ZooRecord)
        assert {network.case for network in record.networks} <= golden_cases().keys()
        checked = {about["family"] for about in golden_cases().values() if "config" not in about}
        assert {network.project for network in record.networks} == checked


def test_a_row_names_input_feature_size_and_speeds() -> None:
    """What was refused is a dash; figures have three digits."""
    record = ZooRecord(networks=(NETWORK,), **here())
    *_, row = zoo._tables(record, zoo.ROOT / "benchmarks" / "results" / "here" / "zoo.json")
    assert row == "| squeezenet1_1 | 256x128 | f_t, 512 | 2.76 | 0.333 | 119 | 241 | – | `tr_squeezenet1_1` |"


def test_an_unknown_case_is_refused(tmp_path: Path) -> None:
    """Nothing is measured for a name that no golden case has."""
    with pytest.raises(InputError, match="no golden case is called resnet5"):
        zoo.measure(tmp_path / "zoo.json", ["resnet5"])
    assert not list(tmp_path.iterdir())


def test_what_is_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is written as soon as it is measured, and not measured again."""
    monkeypatch.setattr(zoo, "_TURN_S", 0.01)
    file = tmp_path / "zoo.json"
    zoo.measure(file, ["tr_squeezenet1_1"])
    written = file.read_bytes()
    record = read_record(file)
    assert isinstance(record, ZooRecord)
    (network,) = record.networks
    assert network.images_per_s["fp32"] > 0
    assert network.images_per_s.keys() | network.refused.keys() == {"fp32", "bf16", "int8"}
    assert "int8" not in network.refused
    assert network.model_copy(
        update={"images_per_s": NETWORK.images_per_s, "refused": {}}
    ) == NETWORK.model_copy(update={"refused": {}})
    zoo.measure(file, ["tr_squeezenet1_1"])
    assert file.read_bytes() == written


def test_figures_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    """A file of another machine, of other versions, or of another kind is refused and stays as it is."""
    place = here()
    machine = place["machine"] | {"cores": 1000}
    file = tmp_path / "zoo.json"
    for record, words in (
        (ZooRecord(networks=(), **place | {"machine": machine}), "another machine or with other versions"),
        (
            ZooRecord(networks=(), **place | {"versions": {"torch": "1"}}),
            "another machine or with other versions",
        ),
        (
            EngineDescription(file="a", size_mib=1, sha256="b", manifest=None),
            "is no zoo but a record of kind engine",
        ),
    ):
        write_record(file, record)
        written = file.read_bytes()
        with pytest.raises(InputError, match=words):
            zoo.measure(file, ["tr_squeezenet1_1"])
        assert file.read_bytes() == written
