"""Logarithm and exponential as plain arithmetic, so that compiled loops over them run in vector lanes.

The C library's functions, which numba calls, take one value at a time.  Here, with m near 1 and n whole,

    x = 2^e m:           log x = e log 2 + 2 artanh s,   s = (m - 1) / (m + 1);
    x = n log 2 + r:     exp x = 2^n exp r,              |r| <= log(2) / 2,

where polynomials stand for artanh and exp, minimax in relative error by Remez' exchange: rounding is the larger error.

Numba's cache looks at the file of a compiled function, not at those of the functions that it calls: a change here takes
effect once ``rsovlib/kernels/__pycache__`` is removed.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

# No reassociation: it would cancel what is added and taken off again in order to round.
_OPTIONS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
_UNSIGNED = {types.float32: types.uint32, types.float64: types.uint64}
_FLOATING = {types.uint32: types.float32, types.uint64: types.float64}


def log(x):
    """log x of a normal x > 0, to 1e-15 of max(1, |log x|) in float64 and 2e-7 in float32; nonsense for other x."""
    raise NotImplementedError("This function is for compiled code.")


def exp(x):
    """exp x of x <= 80, to 1e-15 of its value in float64 and 2e-7 in float32; 0 where it isn't a normal number."""
    raise NotImplementedError("This function is for compiled code.")


def exp_short(x):
    """exp x of |x| <= 1 in float32, to 4e-7 of its value, by Taylor's polynomial of exp(x / 4) to the fourth power."""
    raise NotImplementedError("This function is for compiled code.")


@overload(log, jit_options=_OPTIONS)
def _choose_log(x):
    return _log_single if x == types.float32 else _log_double


@overload(exp, jit_options=_OPTIONS)
def _choose_exp(x):
    return _exp_single if x == types.float32 else _exp_double


@overload(exp_short, jit_options=_OPTIONS)
def _choose_exp_short(x):
    return _exp_short_single if x == types.float32 else _exp_double


def _reinterpret(context, builder, signature, arguments):
    return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))


@intrinsic
def _bits(typing_context, x):
    """The bits of a float as an unsigned integer."""
    return _UNSIGNED[x](x), _reinterpret


@intrinsic
def _float(typing_context, bits):
    """The float that has these bits."""
    return _FLOATING[bits](bits), _reinterpret


# ---- float64: 52 bits of fraction, exponents stored with 1023 added -------------------------------------------------

_HALF_ROOT = float(np.sqrt(0.5))

_DIGITS, _OFFSET = np.uint64(52), np.uint64(1023)
_ONE = np.uint64(1023 << 52)  # the bits of 1
# Taken off the bits of x, this moves the border of the exponents from 1 to sqrt(1/2), where m begins.
_CUT = np.uint64((int(np.float64(_HALF_ROOT).view(np.uint64)) - int(_ONE)) % 2**64)
# A number to which this is added is rounded to an integer, which then stands in its lowest bits.
_ROUND = np.float64(1.5 * 2**52)
_ROUND_BITS, _ROUND_OFFSET = _ROUND.view(np.uint64), np.float64(1.5 * 2**52 + 1023)
_LOG_2, _PER_LOG_2 = np.float64(np.log(2)), np.float64(1 / np.log(2))
# log 2 in two parts, the first with so few bits that its product with n is exact.
_HIGH, _LOW = np.float64(float.fromhex("0x1.62e42feep-1")), np.float64(float.fromhex("0x1.a39ef35793c76p-33"))
_LOWEST = np.float64(-708.3)

# artanh(s) / s - 1 = z (a_1 + z (a_2 + ...)), z = s^2
_A1, _A2, _A3 = np.float64(0.333333333332936108), np.float64(0.200000000261347417), np.float64(0.142857085651576560)
_A4, _A5, _A6 = np.float64(0.111116858272340212), np.float64(0.0906182164435258), np.float64(0.0840990759614980498)
# (exp(r) - 1 - r) / r^2 = e_2 + r (e_3 + ...)
_E2, _E3, _E4 = np.float64(0.499999999999983243), np.float64(0.166666666666115538), np.float64(0.0416666666681366464)
_E5, _E6 = np.float64(0.00833333337087048165), np.float64(0.00138888885161470067)
_E7, _E8 = np.float64(0.000198411852356196207), np.float64(0.0000248019318196134404)
_E9, _E10 = np.float64(2.76349910949709713e-6), np.float64(2.74767584833146837e-7)


def _log_double(x):
    bits = _bits(x)
    exponent = (bits - _CUT) >> _DIGITS
    f = _float(bits - (exponent << _DIGITS) + _ONE) - 1.0
    s = f / (f + 2.0)
    z = s * s
    p = ((((_A6 * z + _A5) * z + _A4) * z + _A3) * z + _A2) * z + _A1
    e = _float(exponent + _ROUND_BITS) - _ROUND_OFFSET
    return e * _LOG_2 + (2.0 * s + 2.0 * s * z * p)


def _exp_double(x):
    rounded = x * _PER_LOG_2 + _ROUND
    n = rounded - _ROUND
    r = x - n * _HIGH - n * _LOW
    p = ((((_E10 * r + _E9) * r + _E8) * r + _E7) * r + _E6) * r + _E5
    p = ((p * r + _E4) * r + _E3) * r + _E2
    value = (r * r * p + r + 1.0) * _float((_bits(rounded) + _OFFSET) << _DIGITS)
    return 0.0 if x < _LOWEST else value


# ---- float32: 23 bits of fraction, exponents stored with 127 added --------------------------------------------------
# Every integer is cut to 32 bits at once: numba would compute in 64, and halve the lanes.

_DIGITS_32, _OFFSET_32 = np.uint32(23), np.uint32(127)
_ONE_32 = np.uint32(127 << 23)
_CUT_32 = np.uint32((int(np.float32(_HALF_ROOT).view(np.uint32)) - int(_ONE_32)) % 2**32)
_ROUND_32 = np.float32(1.5 * 2**23)
_ROUND_BITS_32, _ROUND_OFFSET_32 = _ROUND_32.view(np.uint32), np.float32(1.5 * 2**23 + 127)
_LOG_2_32, _PER_LOG_2_32 = np.float32(np.log(2)), np.float32(1 / np.log(2))
_HIGH_32, _LOW_32 = np.float32(float.fromhex("0x1.62e4p-1")), np.float32(1.42860682030941723e-6)
_LOWEST_32 = np.float32(-87.3)
_NOUGHT_32, _UNIT_32, _TWO_32, _QUARTER_32 = np.float32(0), np.float32(1), np.float32(2), np.float32(0.25)

_A1_32, _A2_32, _A3_32 = np.float32(0.33333388178), np.float32(0.19988771897), np.float32(0.14935842734)
_E2_32, _E3_32, _E4_32 = np.float32(0.49999993445), np.float32(0.16666520681), np.float32(0.041668388578)
_E5_32, _E6_32 = np.float32(0.0083687108408), np.float32(0.0013814562179)
_T2, _T3, _T4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
_T5, _T6 = np.float32(1 / 120), np.float32(1 / 720)


def _log_single(x):
    bits = _bits(x)
    exponent = np.uint32(np.uint32(bits - _CUT_32) >> _DIGITS_32)
    f = _float(np.uint32(np.uint32(bits - np.uint32(exponent << _DIGITS_32)) + _ONE_32)) - _UNIT_32
    s = f / (f + _TWO_32)
    z = s * s
    p = (_A3_32 * z + _A2_32) * z + _A1_32
    e = _float(np.uint32(exponent + _ROUND_BITS_32)) - _ROUND_OFFSET_32
    return e * _LOG_2_32 + (_TWO_32 * s + _TWO_32 * s * z * p)


def _exp_single(x):
    rounded = x * _PER_LOG_2_32 + _ROUND_32
    n = rounded - _ROUND_32
    r = x - n * _HIGH_32 - n * _LOW_32
    p = (((_E6_32 * r + _E5_32) * r + _E4_32) * r + _E3_32) * r + _E2_32
    value = (r * r * p + r + _UNIT_32) * _float(np.uint32(np.uint32(_bits(rounded) + _OFFSET_32) << _DIGITS_32))
    return _NOUGHT_32 if x < _LOWEST_32 else value


def _exp_short_single(x):
    u = x * _QUARTER_32
    p = (((((_T6 * u + _T5) * u + _T4) * u + _T3) * u + _T2) * u + _UNIT_32) * u + _UNIT_32
    p = p * p
    return p * p
