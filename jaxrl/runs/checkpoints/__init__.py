"""Checkpoints of a whole pytree, by Orbax, exact or refused.

Orbax alone casts a wrong dtype silently, cannot restore a module that holds a list, refuses arrays without entries (as
MJX has them where nothing can touch), and reads what a disk has changed without a word. So the tree is saved as a flat
{key path: leaf} dict beside a manifest of paths, shapes, dtypes and a SHA-256 of every leaf, and of itself; names,
shapes and dtypes are compared before anything is restored, the bytes before it is used. Arrays and JSON are all that is
read: loading executes nothing.

Of several processes each saves the parts of leaves that its devices hold, without a word to the others while training
goes on, and reads those that its devices need: no host has to have room for all.
"""

from jaxrl.runs.checkpoints.files import Damaged
from jaxrl.runs.checkpoints.kept import Checkpoints, Newest
from jaxrl.runs.directory import NotSaved

__all__ = ["Checkpoints", "Damaged", "Newest", "NotSaved"]
