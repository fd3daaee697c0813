"""A drawn data set: people with clothes, poses and bags, seen by cameras with their own light and background.

It stands in for a real data set in the demo and the tests: seeded, in Market-1501's layout, and of nobody.
"""

from reidexport.data.synthetic.dataset import draw_dataset, draw_people

__all__ = ["draw_dataset", "draw_people"]
