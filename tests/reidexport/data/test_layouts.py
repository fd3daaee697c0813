import json
from pathlib import Path

import pytest

from reidexport.data import ImageRecord, load_dataset
from reidexport.errors import DatasetError


def make_files(root: Path, *names: str) -> None:
    """Empty files, with their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def make_boxes(root: Path, suffix: str = ".jpg") -> Path:
    """Market-1501's tree with five images."""
    make_files(
        root,
        f"bounding_box_train/0002_c1s1_000451_03{suffix}",
        f"query/0001_c1s1_001051_00{suffix}",
        f"bounding_box_test/0001_c6s1_002301_00{suffix}",
        f"bounding_box_test/0000_c1s1_000151_01{suffix}",
        f"bounding_box_test/-1_c2s1_000401_03{suffix}",
    )
    return root


def make_msmt17(root: Path, train: str, test: str) -> Path:
    """MSMT17's lists."""
    make_files(root, f"{train}/x", f"{test}/x")
    (root / "list_train.txt").write_text(
        "0000/0000_000_01_0303morning_0008_0.jpg 0\n0001/0001_000_15_a.jpg 1\n"
    )
    (root / "list_val.txt").write_text("0000/0000_000_02_0303morning_0009_0.jpg 0\n")
    (root / "list_query.txt").write_text("0000/0000_000_03_0303noon_0010_0.jpg 0\n")
    (root / "list_gallery.txt").write_text(
        "0000/0000_000_04_0303noon_0011_0.jpg 0\n0001/0001_000_04_b.jpg 1\n\n"
    )
    return root


def numbers(records: tuple[ImageRecord, ...]) -> list[tuple[int, int]]:
    """What the records say of person and camera."""
    return [(record.pid, record.camid) for record in records]


def test_market_tree_is_read_with_junk_and_distractors(tmp_path: Path) -> None:
    """Records come sorted by name, cameras count from 0, and pids -1 and 0 stay in the gallery as they are."""
    root = make_boxes(tmp_path / "market1501")
    dataset = load_dataset(root)
    assert dataset.name == "market1501"
    assert dataset.query == (ImageRecord(root / "query/0001_c1s1_001051_00.jpg", 1, 0),)
    assert numbers(dataset.train) == [(2, 0)]
    assert numbers(dataset.gallery) == [(-1, 1), (0, 0), (1, 5)]
    assert numbers(dataset.scored_gallery) == [(0, 0), (1, 5)]


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    """Thumbs.db and the hidden doubles that some archives leave are not images."""
    root = make_boxes(tmp_path / "market1501")
    make_files(root, "query/Thumbs.db", "query/._0001_c1s1_001051_00.jpg")
    assert len(load_dataset(root).query) == 1


def test_images_in_folders_within_are_counted(tmp_path: Path) -> None:
    """What lies a folder deeper than a data set's images is left out, and said."""
    root = make_boxes(tmp_path / "market1501")
    make_files(root, "query/more/0001_c2s1_001051_00.jpg", "query/more/notes.txt", "query/notes.txt")
    lines: list[str] = []
    load_dataset(root, log=lines.append)
    assert lines == [
        f"{root}: left out 1 file: 1 .txt; left out 1 image in folders within those of the images, the first "
        f"{root}/query/more/0001_c2s1_001051_00.jpg"
    ]
    people = tmp_path / "people"
    make_files(people, "query/anna/a.jpg", "gallery/anna/b.jpg", "gallery/anna/day1/c.jpg")
    lines.clear()
    assert len(load_dataset(people, log=lines.append).gallery) == 1
    assert "left out 1 image in folders within those of the images" in lines[0]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("market1501", "market1501"),
        ("Market-1501-v15.09.15", "market1501"),
        ("dukemtmc-reid/DukeMTMC-reID", "dukemtmcreid"),
        ("cuhk03-np/detected", "cuhk03-detected"),
        ("cuhk03-np/labeled", "cuhk03-labeled"),
        ("drawn", "drawn"),
    ],
)
def test_usual_folder_names_are_known(tmp_path: Path, folder: str, name: str) -> None:
    """From the folder itself and from the root above it, a data set gets its usual name, or its folder's."""
    root = make_boxes(tmp_path / folder, suffix=".png")
    assert load_dataset(root).name == load_dataset(tmp_path).name == name


def test_a_name_can_be_given_to_an_unusual_folder(tmp_path: Path) -> None:
    """Market-1501's tree in a folder of any name is Market-1501 if the user says so."""
    assert load_dataset(make_boxes(tmp_path / "mk"), "market1501").name == "market1501"


def test_name_chooses_among_several(tmp_path: Path) -> None:
    """Several data sets under one root are an error that lists them, until one is named."""
    make_boxes(tmp_path / "cuhk03-np/detected")
    make_boxes(tmp_path / "cuhk03-np/labeled")
    with pytest.raises(DatasetError, match=r"more than one.*\n.*cuhk03-detected .*\n.*cuhk03-labeled "):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, "cuhk03-labeled").query[0].path.parts[-3] == "labeled"


@pytest.mark.parametrize(
    ("folder", "train", "test", "name"),
    [
        ("MSMT17_V1", "train", "test", "msmt17-v1"),
        ("MSMT17_V2", "mask_train_v2", "mask_test_v2", "msmt17-v2"),
    ],
)
def test_msmt17_lists(tmp_path: Path, folder: str, train: str, test: str, name: str) -> None:
    """Both versions are read from their lists; nobody becomes a distractor, and no test pid is a train pid."""
    root = make_msmt17(tmp_path / "msmt17" / folder, train, test)
    dataset = load_dataset(tmp_path)
    assert dataset.name == name
    assert numbers(dataset.train) == [(1, 0), (2, 14)]
    assert numbers(dataset.query) == [(3, 2)]
    assert numbers(dataset.gallery) == [(3, 3), (4, 3)]
    assert dataset.query[0].path == root / test / "0000/0000_000_03_0303noon_0010_0.jpg"


def test_msmt17_line_that_cannot_be_read(tmp_path: Path) -> None:
    """A broken line of a list is named, and so is an empty list."""
    root = make_msmt17(tmp_path / "MSMT17_V1", "train", "test")
    (root / "list_query.txt").write_text("0000/nonsense.jpg 0\n")
    with pytest.raises(DatasetError, match=r"list_query.txt: cannot read the line '0000/nonsense.jpg 0'"):
        load_dataset(root)
    (root / "list_query.txt").write_text("")
    with pytest.raises(DatasetError, match=r"list_query.txt is empty"):
        load_dataset(root)


def test_cuhk03_as_torchreid_unpacks_it(tmp_path: Path) -> None:
    """The split file is followed wherever it was made, and people are numbered by camera pair and person."""
    root = tmp_path / "cuhk03"
    part = [["/elsewhere/cuhk03/images_detected/2_017_1_03.png", 0, 0]]
    split = {"train": part, "query": part, "gallery": [["images_detected\\2_017_2_08.png", 0, 1]]}
    make_files(root, "images_detected/2_017_1_03.png")
    (root / "splits_new_detected.json").write_text(json.dumps([split]))
    dataset = load_dataset(tmp_path)
    assert dataset.name == "cuhk03-detected"
    assert dataset.query == (ImageRecord(root / "images_detected/2_017_1_03.png", 2017, 0),)
    assert numbers(dataset.gallery) == [(2017, 1)]


def test_cuhk03_broken_split_file(tmp_path: Path) -> None:
    """A split file of another form is an error that names it."""
    make_files(tmp_path, "images_detected/x.png")
    (tmp_path / "splits_new_detected.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"splits_new_detected.json is not a split file"):
        load_dataset(tmp_path)


def test_raw_cuhk03_is_told_what_to_do(tmp_path: Path) -> None:
    """The .mat file cannot be read, and the message says how to get images from it."""
    make_files(tmp_path, "cuhk03_release/cuhk-03.mat")
    with pytest.raises(DatasetError, match=r"The .mat file itself is not read: run torchreid's"):
        load_dataset(tmp_path, "cuhk03-detected")


def test_generic_folder(tmp_path: Path) -> None:
    """query/ and gallery/ are enough; train/ is read when it is there."""
    root = tmp_path / "shop"
    make_files(root, "query/7_c1_a.jpg", "gallery/7_c12_b.png")
    dataset = load_dataset(root)
    assert (dataset.name, dataset.train, numbers(dataset.gallery)) == ("shop", (), [(7, 11)])
    make_files(root, "train/3_c2_c.jpeg")
    dataset = load_dataset(root, "folder")
    assert (dataset.name, numbers(dataset.train)) == ("shop", [(3, 1)])


@pytest.mark.parametrize("name", ["portrait.jpg", "0001_c0_x.jpg", "-2_c1_x.jpg"])
def test_ill_named_image(tmp_path: Path, name: str) -> None:
    """An image whose name contains no person and camera is named, with an example of a good one."""
    root = make_boxes(tmp_path / "market1501")
    make_files(root, f"query/{name}")
    with pytest.raises(
        DatasetError, match=rf"{name}: the name contains no person and camera.*0001_c1s1_000151_00.jpg"
    ):
        load_dataset(root)


def test_empty_folder_in_a_data_set(tmp_path: Path) -> None:
    """A query folder without images is an error, not an empty evaluation."""
    root = make_boxes(tmp_path / "market1501")
    (root / "query/0001_c1s1_001051_00.jpg").unlink()
    with pytest.raises(DatasetError, match=r"query holds no image \(\.bmp, \.jpeg, \.jpg, \.png, "):
        load_dataset(root)


def test_misnamed_folder_shows_expected_and_found(tmp_path: Path) -> None:
    """The message shows the tree that was looked for and the entries that are there instead."""
    root = make_boxes(tmp_path / "market1501")
    (root / "bounding_box_test").rename(root / "test")
    with pytest.raises(DatasetError) as caught:
        load_dataset(root, "market1501")
    message = str(caught.value)
    assert "holds no market1501 data set. Expected:\nmarket1501/\n    bounding_box_train/" in message
    assert message.endswith("Found: bounding_box_train/  query/  test/")


def test_nothing_known_shows_every_tree(tmp_path: Path) -> None:
    """Without a name, the message shows all trees, and only the first of many entries."""
    make_files(tmp_path, *(f"{number:02d}.txt" for number in range(15)))
    with pytest.raises(DatasetError, match=r"(?s)MSMT17_V2/.*ANY NAME/.*Found: 00.txt .* and 3 more$"):
        load_dataset(tmp_path)


def test_wrong_name_says_what_is_there(tmp_path: Path) -> None:
    """Asking for one data set where another lies names the other."""
    make_boxes(tmp_path / "market1501")
    with pytest.raises(DatasetError, match=r"It does hold market1501 in .*market1501\."):
        load_dataset(tmp_path, "msmt17-v2")


def test_unknown_name_lists_the_known(tmp_path: Path) -> None:
    """A name that no loader has is answered with the names there are."""
    with pytest.raises(
        DatasetError, match=r"called 'market'; the known names are market1501, dukemtmcreid, "
    ):
        load_dataset(tmp_path, "market")


def test_missing_root(tmp_path: Path) -> None:
    """A root that is not there is said to be missing."""
    with pytest.raises(DatasetError, match=r"nowhere is not a folder"):
        load_dataset(tmp_path / "nowhere")


@pytest.mark.data
def test_market1501_has_its_published_counts(data_root: Path) -> None:
    """Images, people, junk and distractors are those of the paper."""
    dataset = load_dataset(data_root, "market1501")
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (12936, 3368, 19732)
    assert len({record.pid for record in dataset.train}) == 751
    assert len({record.pid for record in dataset.query}) == 750
    pids = [record.pid for record in dataset.gallery]
    assert (pids.count(-1), pids.count(0)) == (3819, 2798)
    assert {record.camid for record in dataset.gallery} == set(range(6))


def test_a_folder_for_each_person(tmp_path: Path) -> None:
    """Folders say who, with any name; names of images say by which camera, if they do, and what is junk."""
    root = tmp_path / "mine"
    make_files(
        root, "query/bert/1_c2_a.jpg", "query/anna/IMG 7.JPG", "gallery/bert/x.png", "gallery/carl/y.png"
    )
    make_files(root, "gallery/0/plain.png", "train/dora/z.png", "gallery/.cache/w.png")
    dataset = load_dataset(tmp_path)
    assert dataset.name == "mine"
    assert numbers(dataset.query) == [(2, -2), (3, 1)]
    assert numbers(dataset.gallery) == [(1, -2), (3, -2), (4, -2)]
    assert numbers(dataset.train) == [(5, -2)]


def test_person_folders_keep_their_numbers(tmp_path: Path) -> None:
    """Numbers above 0 are pids, whatever their zeros; where two are the same number, all persons are counted."""
    make_files(tmp_path, "query/0007/a.jpg", "gallery/0007/b.jpg", "gallery/12/c.jpg")
    assert numbers(load_dataset(tmp_path).gallery) == [(7, -2), (12, -2)]
    make_files(tmp_path, "gallery/7/d.jpg")
    assert [record.pid for record in load_dataset(tmp_path).gallery] == [1, 2, 3]


def test_market_names_in_person_folders(tmp_path: Path) -> None:
    """What layumi's prepare.py makes of Market-1501: pids, cameras, distractors and junk as there."""
    make_files(tmp_path, "query/0001/0001_c1s1_001051_00.jpg", "gallery/0001/0001_c6s1_002301_00.jpg")
    make_files(tmp_path, "gallery/0000/0000_c1s1_000151_01.jpg", "gallery/-1/-1_c2s1_000401_03.jpg")
    dataset = load_dataset(tmp_path)
    assert numbers(dataset.query) == [(1, 0)]
    assert numbers(dataset.gallery) == [(-1, 1), (0, 0), (1, 5)]


def test_person_folders_that_contradict_are_refused(tmp_path: Path) -> None:
    """An image of another person, a folder of none, and images beside folders of persons are named."""
    root = tmp_path / "mine"
    make_files(root, "query/7/7_c1_a.jpg", "gallery/7/8_c1_b.jpg")
    with pytest.raises(
        DatasetError, match=r"8_c1_b.jpg: the name is one of person 8, in the folder of person 7"
    ):
        load_dataset(root)
    (root / "gallery/7/8_c1_b.jpg").unlink()
    with pytest.raises(DatasetError, match=r"gallery/7 holds no image: expected those of one person"):
        load_dataset(root)
    make_files(root, "gallery/7_c1_c.jpg")
    with pytest.raises(DatasetError, match=r"query holds a folder for each person, and .*gallery does not"):
        load_dataset(root)


def test_veri776_tree(tmp_path: Path) -> None:
    """Vehicles are named as persons are in Market-1501, with cameras of three digits."""
    make_files(
        tmp_path / "VeRi", "image_train/0001_c001_00016450_0.jpg", "image_query/0002_c002_00030600_0.jpg"
    )
    make_files(tmp_path / "VeRi", "image_test/0002_c020_00030605_1.jpg", "name_query.txt")
    dataset = load_dataset(tmp_path)
    assert dataset.name == load_dataset(tmp_path, "veri776").name == "veri776"
    assert (numbers(dataset.query), numbers(dataset.gallery)) == ([(2, 1)], [(2, 19)])


def test_how_the_same_camera_is_scored_is_kept(tmp_path: Path) -> None:
    """A data set is scored by Market-1501's protocol unless told otherwise."""
    make_boxes(tmp_path / "market1501")
    assert load_dataset(tmp_path).same_camera == "drop"
    assert load_dataset(tmp_path, same_camera="keep").same_camera == "keep"
