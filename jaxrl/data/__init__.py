"""Data sets: files into rows, rows into token arrays, arrays into batches on the device."""

from jaxrl.data.batches import Cursor, Data, DataBatch, batches, batches_per_epoch, in_order
from jaxrl.data.lint import lint
from jaxrl.data.preferences import Completions, Encoded, Pairs, bucketed, encode, fingerprint
from jaxrl.data.prompts import Prompts
from jaxrl.data.rows import read, split, unpair

__all__ = [
    "Completions",
    "Cursor",
    "Data",
    "DataBatch",
    "Encoded",
    "Pairs",
    "Prompts",
    "batches",
    "batches_per_epoch",
    "bucketed",
    "encode",
    "fingerprint",
    "in_order",
    "lint",
    "read",
    "split",
    "unpair",
]
