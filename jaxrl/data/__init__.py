"""Data sets: files into rows, rows into token arrays, arrays into batches on the device."""

from jaxrl.data.arrays import Data, DataBatch, in_order
from jaxrl.data.kinds import split_by_group, unpair
from jaxrl.data.linting import lint
from jaxrl.data.preferences import Completions, Encoded, Pairs, bucketed, encode_rows
from jaxrl.data.preparation import Prepared, prepare
from jaxrl.data.prompts import Prompts
from jaxrl.data.rows import read_rows
from jaxrl.data.settings import DataConfig, Loop

__all__ = [
    "Completions",
    "Data",
    "DataBatch",
    "DataConfig",
    "Encoded",
    "Loop",
    "Pairs",
    "Prepared",
    "Prompts",
    "bucketed",
    "encode_rows",
    "in_order",
    "lint",
    "prepare",
    "read_rows",
    "split_by_group",
    "unpair",
]
