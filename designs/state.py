"""How a design's hooks reach the design's own fields: `state = luf_state(ram)`, then `state.ugen[0]`, like
`ram`'s.

The fields lie in the same segment behind the machine's; the view is the same pointer under another compiled
type.
"""

import numba
from numba.extending import intrinsic

from cpus.segment import DesignFields, design_type


class _PlainView:
    """The view without the JIT: numpy arrays by name."""

    def __init__(self, fields):
        self.__dict__.update(fields)


def own_fields(name: str, fields: DesignFields):
    """Give the function `state(ram)` for a design with these fields (only names, order and dimensions count,
    not sizes).
    """
    if numba.config.DISABLE_JIT:
        return lambda ram: _PlainView(ram.design)
    view_type = design_type(name, fields)

    @intrinsic
    def state(typingctx, ram):
        return view_type(ram), lambda context, builder, sig, args: args[0]

    return state
