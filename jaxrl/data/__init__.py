"""Data sets: files into rows, rows into token arrays, arrays into batches on the device."""

from jaxrl.data.batches import Cursor, Data, DataBatch, batches, batches_per_epoch, in_order
from jaxrl.data.lint import lint
from jaxrl.data.preferences import Completions, Encoded, Pairs, bucketed, encode, fingerprint
from jaxrl.data.prepare import Prepared, prepare
from jaxrl.data.prompts import Prompts
from jaxrl.data.rows import read, split, unpair
from jaxrl.data.settings import DataConfig

__all__ = [
    "Completions",
    "Cursor",
    "Data",
    "DataBatch",
    "DataConfig",
    "Encoded",
    "Pairs",
    "Prepared",
    "Prompts",
    "batches",
    "batches_per_epoch",
    "bucketed",
    "encode",
    "fingerprint",
    "in_order",
    "lint",
    "prepare",
    "read",
    "split",
    "unpair",
]
