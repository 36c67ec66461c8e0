"""Data sets: the built-in ones, folders of images, tables, arrays on disk, torch data sets. All as one `Dataset`.

`load(name_or_path)` gives a `Dataset`; `available()` lists the built-in ones without loading any. Each lives in a file
of this folder and is found there: a new one is a function under `@builtin(...)`.
"""

from twofold.data.dataset import Dataset
from twofold.data.registry import Entry, available, load
from twofold.data.table import Scaling

__all__ = ["Dataset", "Entry", "Scaling", "available", "load"]
