"""How a design's hooks reach the design's own fields: `state = luf_state(ram)`, then `state.ugen[0]`, like
`ram`'s.

The fields lie in the same segment behind the machine's; the view is the same pointer under another compiled
type.
"""

from collections.abc import Callable
from dataclasses import MISSING, fields

import numba
from numba.extending import intrinsic

from cpus.layout import Sizes
from cpus.ram import CHECKED, PLAIN, POINTS, seen
from cpus.segment import DesignFields, design_type

_ANY_SIZES = Sizes(**{field.name: 1 for field in fields(Sizes) if field.default is MISSING})


class _PlainView:
    """The view without the JIT: numpy arrays by name."""

    def __init__(self, views):
        self.__dict__.update(views)


def own_fields(name: str, fields_of: Callable[[Sizes], DesignFields]):
    """Give the function `state(ram)` for designs whose fields are these, or begin with these. Names, order
    and dimensions count, sizes do not.
    """
    if numba.config.DISABLE_JIT:
        return lambda ram: _PlainView(ram.design)
    view_type = design_type(name, fields_of(_ANY_SIZES))
    views = {kind: seen(view_type, kind) for kind in (PLAIN, CHECKED, POINTS)}  # as the engine sees `ram`

    @intrinsic
    def state(typingctx, ram):
        return views[ram.kind](ram), lambda context, builder, sig, args: args[0]

    return state
