"""Tables of labels beside images: what is read of them, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reidgallery.input import UNLABELED

from reidexport.data.label_file import read_label_file
from reidexport.errors import InputError


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    """Empty cells, whole floats and dates are read alike; cameras count from 1; names fill what is open."""
    (tmp_path / "l.csv").write_text(
        "\ufeffpath,person,camera,time\na.jpg,7,2.0,2026-11-25\n\n0003_c4.jpg,-1,,5\n", "utf-8"
    )
    columns = {
        "path": ["a.jpg", "0003_c4.jpg"],
        "person": [7, -1],
        "camera": [2.0, None],
        "time": ["2026-11-25", "5.0"],
    }
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    paths = [str(tmp_path / "a.jpg"), str(tmp_path / "0003_c4.jpg"), "elsewhere/0005_c6s1_000007.jpg"]
    for name in ("l.csv", "l.parquet"):
        table = read_label_file(tmp_path / name)
        assert table.labels_of(paths).tolist() == [[7, -1, 5], [1, 3, 5], [1795564800000, 5, 1000007]]
        notes = table.notes(paths)
        assert "1 of 3 images have no row there, the first elsewhere/0005_c6s1_000007.jpg" in notes[0]
        assert "the labels of 1 images are others than their names tell" in notes[1]


def test_paths_are_relative_to_the_table_absolute_or_as_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way an image is written there, it is found; names in tars, too."""
    (tmp_path / "crops").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "crops" / "l.csv"
    path.write_text(
        f"path,person\na.jpg,1\n{tmp_path}/crops/b.jpg,2\ncrops/c.jpg,3\nx.tar/d.jpg,4\ns3://x/e.jpg,5\n"
    )
    images = ["crops/a.jpg", "crops/b.jpg", "crops/c.jpg", "crops/x.tar/d.jpg", "s3://x/e.jpg", "a.jpg"]
    assert read_label_file(path).labels_of(images)[0].tolist() == [1, 2, 3, 4, 5, 1]
    path.write_text("path,person\na.jpg,1\ncrops/a.jpg,2\n")
    with pytest.raises(InputError, match=r"rows 2 and 1 both mean crops/a\.jpg\. Write absolute paths"):
        read_label_file(path).labels_of(["crops/a.jpg"])


def test_images_of_the_same_name_elsewhere_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table beside images in another folder says nothing of those here, whatever they are called."""
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").touch()
    (tmp_path / "there" / "l.csv").write_text("path,person\na.jpg,1\n")
    table = read_label_file(tmp_path / "there" / "l.csv")
    monkeypatch.chdir(tmp_path / "here")
    assert table.labels_of(["a.jpg", "../there/a.jpg"])[0].tolist() == [UNLABELED, 1]
    (tmp_path / "there" / "a.jpg").unlink()
    assert table.labels_of(["a.jpg", "x" * 300])[0].tolist() == [1, UNLABELED]


def test_large_numbers_among_floats_are_read(tmp_path: Path) -> None:
    """Times in nanoseconds beside an empty cell, as data frames write them; columns without a name do no harm."""
    times = pa.array([1.7640288e18, None], pa.float64())
    pq.write_table(pa.table({"path": ["a", "b"], "time": times}), tmp_path / "l.parquet")
    assert read_label_file(tmp_path / "l.parquet").labels[2].tolist() == [1764028800000000000, UNLABELED]
    (tmp_path / "l.csv").write_text("path,time,,\na,5,,\n")
    assert read_label_file(tmp_path / "l.csv").labels[2].tolist() == [5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected the column path and one or more of person, camera, time, found none"),
        ("path,pid\na,1\n", "one or more of person, camera, time, found path, pid. Rename"),
        ("path;person\na;1\n", "found path;person"),
        ("path,person\na\n", "row 1 has 1 cells, expected 2"),
        ("path,person\na,1\n,2\n", "row 2 has no path"),
        ("path,person\na,1\n./a,2\n", "rows 1 and 2 are both about ./a. Remove one"),
        ("path,person\na,x\n", "row 1: person 'x': expected a whole number from -1"),
        ("path,person\na,-2\n", "row 1: person '-2': expected a whole number from -1"),
        ("path,camera\na,0\n", "row 1: camera '0': expected a whole number from 1"),
        ("path,camera\na,1.5\n", "row 1: camera '1.5': expected"),
        ("path,time\na,noon\n", "row 1: time 'noon': expected a number, or a date"),
        ("path,time\na,1950-01-01\n", "expected 1970 or later"),
        ('path,time\n"a,1\n', "not a CSV file"),
        (
            "path,person,camera, person,,\na,1,2,3,,\n",
            "more than one column is called 'person'. Rename or remove",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str, tmp_path: Path) -> None:
    """The row and the column are in the message, and what was expected."""
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read_label_file(tmp_path / "l.csv")
    assert words in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A missing file, another suffix, damage and a text that is not UTF-8."""
    (tmp_path / "l.parquet").write_bytes(b"x" * 50)
    twice = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array([1])], ["path", "path", "person"]
    )
    pq.write_table(twice, tmp_path / "twice.parquet")
    (tmp_path / "l.csv").write_bytes(b"path,person\n\xff\xfe,1\n")
    for name, words in (
        ("none.csv", "cannot be read"),
        ("l.txt", "ends in .csv or .parquet"),
        ("l.parquet", "not a Parquet file"),
        ("l.csv", "not a CSV file in UTF-8"),
        ("twice.parquet", "more than one column is called 'path'"),
    ):
        with pytest.raises(InputError) as error:
            read_label_file(tmp_path / name)
        assert words in str(error.value)


def test_columns_that_are_not_read_and_tables_of_others_are_said(tmp_path: Path) -> None:
    """A column of another name is named; a table about none of the images is an error that shows a path."""
    (tmp_path / "l.csv").write_text("path,person,camid\na.jpg,1,2\n")
    table = read_label_file(tmp_path / "l.csv")
    assert table.notes([str(tmp_path / "a.jpg")]) == [
        f"{tmp_path / 'l.csv'}: the columns camid are not read."
    ]
    assert table.labels_of([str(tmp_path / "a.jpg")]).tolist() == [[1], [UNLABELED], [UNLABELED]]
    with pytest.raises(InputError) as error:
        table.notes(["b.jpg"])
    assert f"the first of which is b.jpg; its first path means {tmp_path / 'a.jpg'}" in str(error.value)
