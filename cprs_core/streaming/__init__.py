"""Documents that arrive one after the other, in bounded memory: the best selection so far.

Windows are planned as if everything lay end to end, so a stream ends with the selection that `Compressor.compress`
makes of the same documents. What a later document can still push out of the budget is kept, the rest is dropped.

`parts` cuts documents, `reader` scores batches of parts, `pool` holds what may still be selected, `stream` is one call
with its checkpoint.
"""

from cprs_core.streaming.pool import Selection
from cprs_core.streaming.reader import StreamReader, describe
from cprs_core.streaming.stream import Stream

__all__ = ["Selection", "Stream", "StreamReader", "describe"]
