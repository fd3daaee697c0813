"""Pickles made of instructions that fit together: a change of one byte is another instruction, not damage."""

from tests.standins.pickles import named, plain

_STORAGE = [plain("storage"), named("torch", "FloatStorage"), plain("program"), plain("cpu"), plain(16)]
# One instruction, or several, for each byte; the first 26 push, the rest make something of what is there.
_INSTRUCTIONS = [
    plain(None), plain(0), plain(1), plain(4), plain(-1), plain(2**40), plain(10**30), plain(0.5), plain(""),
    plain("weight"), plain("layer4.0"), plain("state_dict"), plain("_modules"), plain("_parameters"), plain(b"bytes"),
    b"]", b"}", b")", b"\x8f", b"(", b"\x88",
    named("collections", "OrderedDict"), named("torch._utils", "_rebuild_tensor_v2"),
    named("torch._utils", "_rebuild_parameter"), named("torch", "Size"), named("torch.nn", "Module"),
    b"(" + b"".join(_STORAGE) + b"tQ", b"(" + b"".join(_STORAGE) + b"NtQ",
    named("torch._utils", "_rebuild_tensor_v2") + b"((" + b"".join(_STORAGE) + b"tQK\0K\x04\x85K\x01\x85\x89}tR",
    *(bytes([code]) for code in (*b"abdelostuR02Q", 0x81, 0x85, 0x86, 0x87, 0x90, 0x91, 0x92, 0x93, 0x94)),
    b"2\x85", b"2\x86", b"\x85", b"h\0", b"h\1", b"h\2", b"q\0", b"q\1", b"q\2", b"2e", b"}2K\0s",
    plain("_rebuild_tensor_v2"), plain("storage"), plain("cpu"), plain("0"), plain((2, 2)), plain([1]), plain({"a": 1}),
]  # fmt: skip


def pickle_of(data: bytes) -> bytes:
    """The pickle whose instructions the bytes choose; what is left on the stack at the end comes into a dict."""
    body = b"".join(_INSTRUCTIONS[byte % len(_INSTRUCTIONS)] for byte in data)
    return b"\x80\x04" + body + b"."
