"""Complex numbers as pairs of real tensors, for exporters that have none.

While `RealPairs` is entered, a module that computes a spectrum and inverts it with `torch.istft` computes the
same in real numbers, and its inverse STFT is what was asked for instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch.overrides import TorchFunctionMode

from .errors import ExportError

ISTFT = (
    "input", "n_fft", "hop_length", "win_length", "window", "center", "normalized", "onesided", "length",
    "return_complex",
)  # fmt: skip
"""Parameters of `torch.istft`, in its order."""
SUPPORTED = (
    "supported are torch.complex, torch.polar, 1j * x, sums, products, exp, conj, abs, slices, transposes, "
    "and torch.istft with center=True"
)

Inverse = Callable[..., torch.Tensor]
"""`inverse(real, imag, window, n_fft, hop_length, normalized, zero_edges)`: f32 [batch, samples]."""
Part = torch.Tensor | float


def unsupported(what: str, hint: str = SUPPORTED) -> NoReturn:
    raise ExportError("module-unsupported", f"the module uses {what}", hint)


def _sum(left: Part, right: Part, sign: int = 1) -> Part:
    """A zero that is not a tensor is left out of the graph."""
    if isinstance(right, float) and right == 0:
        return left
    if isinstance(left, float) and left == 0:
        return right if sign > 0 else -right
    return left + right if sign > 0 else left - right


def _product(left: Part, right: Part) -> Part:
    for factor, other in ((left, right), (right, left)):
        if isinstance(factor, float) and factor in (0, 1):
            return other if factor else 0.0
    return left * right


class Pair:
    """A complex tensor. A part that is zero everywhere may be the number 0."""

    def __init__(self, real: Part, imag: Part, zeroed: frozenset[int] = frozenset()) -> None:
        self._parts = (real, imag)
        self.zeroed = zeroed
        """The edges, 0 the first and -1 the last along axis 1, that were set to zero since."""

    @classmethod
    def of(cls, value: Any) -> Pair:
        if isinstance(value, Pair):
            return value
        if isinstance(value, complex | float | int):
            return cls(float(complex(value).real), float(complex(value).imag))
        return cls(value, 0.0)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        unsupported(f"`{name_of(func)}` of complex numbers")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        unsupported(f"`{name}` of complex numbers")

    @property
    def real(self) -> torch.Tensor:
        return self._part(0)

    @property
    def imag(self) -> torch.Tensor:
        return self._part(1)

    def _part(self, which: int) -> torch.Tensor:
        part = self._parts[which]
        if not isinstance(part, torch.Tensor):
            part = torch.full_like(self._tensor, part)
        if self.zeroed:
            mask = torch.zeros(part.shape[1], 1, dtype=torch.bool)
            mask[list(self.zeroed)] = True
            part = part.masked_fill(mask, 0.0)
        return part

    @property
    def _tensor(self) -> torch.Tensor:
        return next(part for part in self._parts if isinstance(part, torch.Tensor))

    @property
    def parts(self) -> tuple[Part, Part]:
        return (self.real, self.imag) if self.zeroed else self._parts

    @property
    def unmasked(self) -> Pair:
        """Before its edges were set to zero."""
        return Pair(*self._parts)

    @property
    def shape(self) -> torch.Size:
        return self._tensor.shape

    @property
    def ndim(self) -> int:
        return self._tensor.ndim

    def dim(self) -> int:
        return self._tensor.ndim

    def size(self, *axis: int) -> Any:
        return self._tensor.size(*axis)

    def is_complex(self) -> bool:
        return True

    def map(self, change: Callable[[torch.Tensor], Any]) -> Pair:
        return Pair(*(change(part) if isinstance(part, torch.Tensor) else part for part in self.parts))

    def __getitem__(self, key: Any) -> Pair:
        return self.map(lambda part: part[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        keys = list(key) if isinstance(key, tuple) else [key]
        while keys and keys[-1] in (slice(None), ...):
            keys.pop()
        edges = {0: 0, -1: -1, self.shape[1] - 1: -1} if self.ndim == 3 else {}
        if len(keys) != 2 or keys[0] != slice(None) or keys[1] not in edges or value != 0:
            unsupported(
                f"an assignment to [{key}] of complex numbers", "supported are spectrum[:, 0] = 0 and [:, -1]"
            )
        self.zeroed |= {edges[keys[1]]}

    def exp(self) -> Pair:
        real = self.parts[0]
        size = torch.exp(real) if isinstance(real, torch.Tensor) else math.exp(real)
        return Pair(_product(size, torch.cos(self.imag)), _product(size, torch.sin(self.imag)))

    def abs(self) -> torch.Tensor:
        return torch.sqrt(self.real * self.real + self.imag * self.imag)

    def conj(self) -> Pair:
        return Pair(self.parts[0], _product(self.parts[1], -1.0))

    def transpose(self, first: int, second: int) -> Pair:
        return self.map(lambda part: part.transpose(first, second))

    def __neg__(self) -> Pair:
        return _multiply(self, -1)

    def __add__(self, other: Any) -> Pair:
        return _add(self, other)

    def __sub__(self, other: Any) -> Pair:
        return _subtract(self, other)

    def __rsub__(self, other: Any) -> Pair:
        return _subtract(other, self)

    def __mul__(self, other: Any) -> Pair:
        return _multiply(self, other)

    def __truediv__(self, other: Any) -> Pair:
        return _divide(self, other)

    def __rtruediv__(self, other: Any) -> Pair:
        return _divide(other, self)

    def __pow__(self, other: Any) -> NoReturn:
        unsupported("a power of complex numbers")

    __radd__, __rmul__ = __add__, __mul__


def _add(left: Any, right: Any) -> Pair:
    (a, b), (c, d) = Pair.of(left).parts, Pair.of(right).parts
    return Pair(_sum(a, c), _sum(b, d))


def _subtract(left: Any, right: Any) -> Pair:
    (a, b), (c, d) = Pair.of(left).parts, Pair.of(right).parts
    return Pair(_sum(a, c, -1), _sum(b, d, -1))


def _multiply(left: Any, right: Any) -> Pair:
    (a, b), (c, d) = Pair.of(left).parts, Pair.of(right).parts
    return Pair(_sum(_product(a, c), _product(b, d), -1), _sum(_product(a, d), _product(b, c)))


def _divide(left: Any, right: Any) -> Pair:
    if isinstance(right, Pair | complex):
        unsupported("a division by complex numbers")
    return Pair.of(left).map(lambda part: part / right)


def _view_as_complex(pairs: torch.Tensor) -> Pair:
    return Pair(pairs[..., 0], pairs[..., 1])


CREATING = {
    "complex": Pair,
    "polar": lambda size, angle: Pair(size * torch.cos(angle), size * torch.sin(angle)),
    "view_as_complex": _view_as_complex,
}
"""Functions of real tensors whose answer is complex."""
COMPUTING: dict[str, Callable[..., Any]] = {
    "add": _add,
    "radd": _add,
    "sub": _subtract,
    "rsub": lambda left, right: _subtract(right, left),
    "mul": _multiply,
    "rmul": _multiply,
    "div": _divide,
    "truediv": _divide,
    "exp": Pair.exp,
    "abs": Pair.abs,
    "conj": Pair.conj,
    "neg": Pair.__neg__,
    "transpose": Pair.transpose,
    "real": lambda pair: pair.real,
    "imag": lambda pair: pair.imag,
    "view_as_real": lambda pair: torch.stack((pair.real, pair.imag), dim=-1),
}
"""Functions of complex numbers."""


def name_of(function: Any) -> str:
    name = getattr(function, "__name__", str(function))
    return name[2:-2] if name.startswith("__") and name.endswith("__") else name


class RealPairs(TorchFunctionMode):
    """Complex numbers are `Pair`s in here, and `torch.istft` is `inverse`.

    Raises ExportError("module-unsupported") for what has no such form.
    """

    def __init__(self, inverse: Inverse) -> None:
        super().__init__()
        self.inverse = inverse

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, name_of(func)
        if name in CREATING:
            return CREATING[name](*args, **kwargs)
        if name == "istft":
            return self._istft(dict(zip(ISTFT, args, strict=False)) | kwargs)
        if any(isinstance(value, Pair | complex) for value in (*args, *kwargs.values())):
            if name not in COMPUTING:
                unsupported(f"`{name}` of complex numbers")
            return COMPUTING[name](*args, **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.dtype.is_complex:
            unsupported(f"`{name}`, whose result is complex")
        return result

    def _istft(self, given: dict[str, Any]) -> torch.Tensor:
        spectrum, n_fft = given["input"], given["n_fft"]
        if not isinstance(spectrum, Pair) or spectrum.ndim != 3:
            unsupported("torch.istft of something else than a complex [batch, bins, frames]")
        refused = {
            # It gives a sample more than hop_length * (frames - 1).
            "an odd n_fft": n_fft % 2 == 1,
            "center=False": given.get("center", True) is not True,
            "onesided=False": given.get("onesided") not in (None, True),
            "length": given.get("length") is not None,
            "return_complex=True": bool(given.get("return_complex", False)),
        }
        for what in (what for what, is_given in refused.items() if is_given):
            unsupported(
                f"torch.istft with {what}",
                "supported are an even n_fft, hop_length, win_length, window and normalized",
            )
        window = given.get("window")
        if window is None:
            unsupported(
                "torch.istft without a window", "register torch.ones(win_length) as a buffer and give it"
            )
        hop_length = given.get("hop_length")
        hop_length = n_fft // 4 if hop_length is None else hop_length
        bins = n_fft // 2 + 1
        if spectrum.shape[1] != bins or window.numel() != (given.get("win_length") or n_fft):
            unsupported(
                f"torch.istft with n_fft = {n_fft} of {int(spectrum.shape[1])} bins, its window of "
                f"{window.numel()}"
            )
        # The placeholder has a word for both edges at once.
        zero_edges = spectrum.zeroed == {0, -1}
        whole = spectrum.unmasked if zero_edges else spectrum
        normalized = bool(given.get("normalized", False))
        return self.inverse(whole.real, whole.imag, window, n_fft, hop_length, normalized, zero_edges)
