"""Person re-identification data sets on disk, read into plain records.

dataset = load_dataset("data", name="market1501")
dataset.query[0]    # ImageRecord(path=…, pid=1, camid=0)
"""

from reidexport.data.layouts import load_dataset
from reidexport.data.records import DISTRACTOR_PID, JUNK_PID, Dataset, ImageRecord, SameCamera

__all__ = ["DISTRACTOR_PID", "JUNK_PID", "Dataset", "ImageRecord", "SameCamera", "load_dataset"]
