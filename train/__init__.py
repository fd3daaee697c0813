"""The trainer: strong-baseline checkpoints, every trick a switch, every table of the paper a recipe.

    python -m train strong-baseline --data market1501 --out runs/strong
    python -m train list

Read in this order: ``recipe.py`` (what can be set), ``training.py`` (the loop), ``losses.py``, ``augmentation.py``.
"""
