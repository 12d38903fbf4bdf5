"""Tensors of the open inference protocol v2, as JSON or in its binary extension.

A binary tensor of strings is, for each, its length (4 bytes, little endian) and its UTF-8 bytes, in
row-major order; one of numbers is their bytes.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from services.platform.errors import InvalidRequest
from services.student.predictor import Floats

BYTES, FP32 = "BYTES", "FP32"

_LENGTH = struct.Struct("<I")


class Binary:
    """The part of a body behind its JSON; each binary tensor takes its share, in their order."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._taken = 0

    def take(self, size: int, where: str) -> bytes:
        """The next `size` bytes. Raises InvalidRequest where there are not as many."""
        if size > self.left:
            raise InvalidRequest(
                f"{where} has a binary_data_size of {size}, but {self.left} bytes are left."
            )
        self._taken += size
        return self._content[self._taken - size : self._taken]

    @property
    def left(self) -> int:
        return len(self._content) - self._taken


def read_strings(tensor: Mapping[str, Any], binary: Binary, where: str) -> list[Any]:
    """The elements of an input tensor of strings, of shape [n] or [n, 1].

    Those of a JSON tensor are whatever JSON holds: the caller checks that they are texts.

    Args:
        tensor: `{"name", "datatype", "shape", "data"}`, or `binary_data_size` among its `parameters`.
        binary: what its data is taken from in the second case.
        where: what messages call it.

    Raises:
        InvalidRequest: it is no such tensor; the message says why.
    """
    if tensor.get("datatype") != BYTES:
        raise InvalidRequest(f"{where} has no datatype 'BYTES', as texts have.")
    shape = tensor.get("shape")
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRequest(f"The shape of {where} is not a list of sizes.")
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InvalidRequest(
            f"{where} has the shape {shape}.", hint="Expected [n] or [n, 1] for n inputs."
        )
    elements = list(_elements(tensor, binary, where))
    if len(elements) != prod(shape):
        raise InvalidRequest(f"{where} has the shape {shape} but {len(elements)} elements.")
    return elements


def _elements(tensor: Mapping[str, Any], binary: Binary, where: str) -> Iterator[Any]:
    size = parameters_of(tensor, where).get("binary_data_size")
    if size is None:
        data = tensor.get("data")
        if type(data) is not list:
            raise InvalidRequest(f"The data of {where} is not a list.")
        # Flat or in rows of one: both are row-major.
        return (entry[0] if type(entry) is list and len(entry) == 1 else entry for entry in data)
    if type(size) is not int or size < 0:
        raise InvalidRequest(f"The binary_data_size of {where} is not a number of bytes.")
    if "data" in tensor:
        raise InvalidRequest(f"{where} has both data and a binary_data_size.")
    return _split(binary.take(size, where), where)


def _split(content: bytes, where: str) -> Iterator[str]:
    start = 0
    while start < len(content):
        if start + _LENGTH.size > len(content):
            raise InvalidRequest(f"The binary data of {where} ends within a length.")
        (length,) = _LENGTH.unpack_from(content, start)
        start += _LENGTH.size
        if start + length > len(content):
            raise InvalidRequest(f"The binary data of {where} ends within an element.")
        try:
            yield content[start : start + length].decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"An element of {where} is not UTF-8.") from error
        start += length


def parameters_of(part: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The `parameters` of a request, tensor or output. Raises InvalidRequest."""
    parameters = part.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise InvalidRequest(f"The parameters of {where} are not an object.")
    return parameters


def write_tensor(
    name: str, values: Floats | Sequence[str], shape: Sequence[int], *, binary: bool
) -> tuple[dict[str, Any], bytes]:
    """An output tensor: its JSON, and the bytes that follow it when it is binary.

    Args:
        name: of the tensor.
        values: numbers of that shape, or strings in row-major order.
        shape: of the tensor.
        binary: write the values behind the JSON.
    """
    numbers = isinstance(values, np.ndarray)
    tensor: dict[str, Any] = {
        "name": name,
        "datatype": FP32 if numbers else BYTES,
        "shape": list(shape),
    }
    if not binary:
        return tensor | {"data": np.ascontiguousarray(values).ravel() if numbers else values}, b""
    content = (
        values.astype("<f4").tobytes()
        if isinstance(values, np.ndarray)
        else b"".join(_LENGTH.pack(len(text)) + text for text in map(str.encode, values))
    )
    return tensor | {"parameters": {"binary_data_size": len(content)}}, content
