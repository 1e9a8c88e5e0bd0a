"""The C library's heap: memory that was freed counts for a pod's limit until it is given back."""

import ctypes

HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""A `GLIBC_TUNABLES` that asks for pages of 2 MiB where the system leaves it to us, so that taking memory again is cheap."""

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Give freed memory between the pieces in use back to the system; does nothing where the C library is not glibc."""
    if _malloc_trim is not None:
        _malloc_trim(0)
