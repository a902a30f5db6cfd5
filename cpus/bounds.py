"""What `--check bounds` adds to compiled code: an index that a field has not, a store to a word of which
another CPU is the owner, and a division by zero, raise.

Code sees these checks when it is compiled for a checked segment type (ram.py) and with the error model
"checked"; all other code has none of it. What is raised leaves the hook it was raised in, names file and
line, and ends the run in the CPU process (faults.py). Left out: words reached by address (`word_at`), which
have no extent, and rows taken out of a table (`row`), whose owner is not asked for.
"""

from __future__ import annotations

import os
import sys
import zlib
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.callconv import ErrorModel, error_models
from numba.core.lowering import BaseLower

LINE_BITS = 20
CHECKED_ERRORS = {"error_model": "checked"}  # for what ERRORS of compiled.py is


class BoundsError(IndexError):
    """An index that a field has not: its arguments are the field, what kind of index, the index, how many."""

    def __str__(self) -> str:
        field, kind, index, size = self.args
        return f"{kind} of {field!r} must be from 0 to {size - 1:,} (got {index:,})"


def _place() -> tuple[Any, str | None]:
    """Find the source line that is being compiled: numba keeps it in the object that calls us, and passes it
    to calls alone.
    """
    frame = sys._getframe(1)
    while frame is not None:
        lower = frame.f_locals.get("self")
        if isinstance(lower, BaseLower):
            return lower.loc, lower.func_ir.func_id.func_qualname
        frame = frame.f_back  # type: ignore[assignment]
    return None, None


def site_number() -> int:
    """Give the place in the source that is being compiled as one number: its file's, and the line."""
    loc, _ = _place()
    return file_number(loc.filename) << LINE_BITS | loc.line if loc else 0


def file_number(path: str) -> int:
    """Give a number that stands for a file wherever its checkout lies: of its name and its folder's."""
    return zlib.crc32("/".join(path.split(os.sep)[-2:]).encode())


def check_index(context: Any, builder: Any, field: str, kind: str, index: Any, size: Any) -> None:
    """Build the check of one index (an LLVM value, as `size` is) of a field."""
    with builder.if_then(builder.icmp_unsigned(">=", index, size), likely=False):
        context.call_conv.return_dynamic_user_exc(
            builder,
            BoundsError,
            (field, kind, index, size),
            (None, None, types.int64, types.int64),
            *_place(),
        )


class OwnerError(PermissionError):
    """A store to a word whose declared owner is another CPU: its arguments are the field and that CPU."""

    def __str__(self) -> str:
        field, owner = self.args
        return f"{field}[{owner}] must be written by cpu{owner} alone, its owner"


def check_owner(context: Any, builder: Any, field: str, owner: Any, pids: Any, stride: int) -> None:
    """Build the check of a store to a word that CPU `owner` (an LLVM value) alone may write.

    `pids` points to the process id of CPU 0, each next one lies `stride` bytes on; where none is noted yet,
    no process is behind the CPUs, and one thread may play them all.
    """
    i64 = ir.IntType(64)
    at = builder.gep(pids, [builder.mul(owner, i64(stride))])
    pid = builder.load(builder.bitcast(at, i64.as_pointer()))
    getpid = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), ()), "getpid")
    me = builder.sext(builder.call(getpid, ()), i64)
    other = builder.and_(builder.icmp_unsigned("!=", pid, i64(0)), builder.icmp_unsigned("!=", pid, me))
    with builder.if_then(other, likely=False):
        context.call_conv.return_dynamic_user_exc(
            builder, OwnerError, (field, owner), (None, types.int64), *_place()
        )


class CheckedErrors(ErrorModel):
    """Numba's Python error model, whose division by zero also says where."""

    raise_on_fp_zero_division = True

    def fp_zero_division(self, builder: Any, exc_args: Any = None, loc: Any = None) -> bool:
        """Build the raise."""
        self.call_conv.return_user_exc(builder, ZeroDivisionError, exc_args, *_place())
        return True


error_models["checked"] = CheckedErrors
