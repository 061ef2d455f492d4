"""Names at, and past, the edges of what a name may be."""

CONTROL = [chr(code) for code in (*range(0x21), *range(0x7F, 0xA2))]

NASTY_NAMES = [
    "",
    *CONTROL,
    *(f"a{character}b" for character in CONTROL),
    *"*>%_\\'\"`;:$?#~^[]{}()<|&,./-+=!@",
    "a*", ">a", "a.*.b", "'; DROP TABLE x; --", "%s", "%(a)s", "{}", "$1", '"quoted"',
    "\u0100", "\u200b", "\u2028", "\u2029", "\u3000", "\ufeff", "\ufffd", "\uffff", "e\u0301", "é",
    "注文", "😀", "\U0010ffff",
    *("a" * length for length in (47, 48, 49, 63, 64, 254, 255, 256, 1023, 1024, 1025)),
    *("ü" * length for length in (23, 24, 25, 127, 128, 511, 512, 513)),
    *("😀" * length for length in (12, 63, 64, 256, 257)),
]  # fmt: skip

#: Channels of NOTIFY that work, and need quotes.
CHANNELS = [
    "Upper Case", "it's", 'say"x"', "$1", "%s", "%L", "back\\slash", "\\';--", "$function$", "SELECT 1",
    "' THEN 1 END; DROP TABLE durable_notify.outbox; --", "a\nb", "ü" * 31, "x" * 63, "*", ">", " ",
]  # fmt: skip
