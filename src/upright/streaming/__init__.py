"""Sources too large to hold: folders, Parquet files and tar files, streamed, in shards that survive a kill.

``canonicalize`` writes a source set upright, in its own layout; ``predict`` writes what a model says of it.
"""

from .canonical import canonicalize as canonicalize
from .encoded import Turn as Turn
from .encoded import UnturnableError as UnturnableError
from .encoded import turned as turned
from .items import Part as Part
from .predicting import predict as predict
from .run import Summary as Summary
from .stores import open_store as open_store
