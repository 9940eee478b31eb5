"""NumPy arrays and scalars from untrusted pickle files.

A pickle names functions and their arguments. NumPy's own functions are not
safe with the arguments of an untrusted file: ``numpy.ndarray(shape, 'O',
buffer=...)`` makes objects of addresses from the file. An unpickler calls
:data:`STAND_INS` instead. They check every argument before NumPy gets it, and
build only arrays of numbers and strings.
"""

import re
from math import prod
from pickle import UnpicklingError
from typing import Any, SupportsIndex

import numpy as np

#: Booleans, integers, floats, complex numbers, bytes and strings.
_CODE = re.compile(r'b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU]\d{1,9}')


class LoadedDtype:
    """Stands in for ``numpy.dtype``.

    Args:
        code (str): A type of fixed size such as ``'f8'`` or ``'U3'``.
        args: Further arguments that NumPy writes; ignored.

    Raises:
        UnpicklingError: If it is not a type of numbers or strings.
    """

    def __init__(self, code: str, *args: Any) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise UnpicklingError(f'an array of the type {code!r}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, subtype, names, fields, *_ = state
        if order not in ('<', '>', '|', '=') or not (
            subtype is names is fields is None
        ):
            raise UnpicklingError('an array of a structured type')
        if order != '|':
            self.dtype = self.dtype.newbyteorder(order)

    def __reduce__(self) -> str | tuple[Any, ...]:
        return self.dtype.__reduce__()


class LoadedArray(np.ndarray):
    """Stands in for ``numpy.ndarray``; the type of loaded arrays.

    It computes as a plain array and is saved as one. It cannot be called.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> 'LoadedArray':
        raise UnpicklingError('a call of numpy.ndarray')

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        dtype, data = _check_dtype(dtype), _as_bytes(data)
        if not isinstance(shape, tuple) or not all(
            isinstance(size, int) and size >= 0 for size in shape
        ):
            raise UnpicklingError(f'an array of the shape {shape!r}')
        if prod(shape) * dtype.itemsize != len(data):
            raise UnpicklingError(f'{len(data)} bytes as an array of the shape {shape}')
        # NumPy's stub asks for np.bool, which is deprecated here.
        super().__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return self.view(np.ndarray).__reduce_ex__(protocol)


class _Function:
    """Stands in for a function of NumPy.

    A pickle may add attributes to a function, but not to this object.
    """

    __slots__ = ('function',)

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:
        raise UnpicklingError('attributes of a function')


def _reconstruct(subtype: Any, *args: Any) -> LoadedArray:
    """Make an empty array, which :meth:`LoadedArray.__setstate__` fills."""
    if subtype is not LoadedArray:
        raise UnpicklingError(f'an array of the class {subtype!r}')
    return np.ndarray.__new__(LoadedArray, (0,), 'i1')


def _scalar(dtype: Any, data: Any) -> np.generic:
    dtype, data = _check_dtype(dtype), _as_bytes(data)
    if len(data) != dtype.itemsize:
        raise UnpicklingError(f'{len(data)} bytes as a {dtype}')
    if not data:  # an empty string
        return dtype.type()
    return np.frombuffer(data, dtype)[0]


def _no_bytes() -> bytes:
    """Stands in for ``bytes``, which pickles call without arguments."""
    return b''


def _check_dtype(dtype: Any) -> np.dtype:
    if not isinstance(dtype, LoadedDtype):
        raise UnpicklingError(f'an array of the type {dtype!r}')
    return dtype.dtype


def _as_bytes(data: Any) -> bytes:
    if isinstance(data, str):  # bytes of Python 2
        data = data.encode('latin1')
    if not isinstance(data, bytes):
        raise UnpicklingError(f'a {type(data).__name__} as bytes of an array')
    return data


#: The stand-ins by the names in pickles of NumPy 1 and 2.
STAND_INS = {
    'numpy.ndarray': LoadedArray,
    'numpy.dtype': LoadedDtype,
    'builtins.bytes': _Function(_no_bytes),
    '__builtin__.bytes': _Function(_no_bytes),
    **{
        f'numpy.{core}.multiarray.{name}': function
        for name, function in (
            ('_reconstruct', _Function(_reconstruct)),
            ('scalar', _Function(_scalar)),
        )
        for core in ('core', '_core')
    },
}
