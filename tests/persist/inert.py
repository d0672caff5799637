"""What a terminal would obey, or a reader be fooled by: the judge of every text that is shown."""

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"


def is_inert(text: str) -> bool:
    """No C0, DEL, C1, line separator, bidirectional control or half surrogate. (Unassigned characters move nothing.)"""
    return not any(
        ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in BIDI or c in "\u2028\u2029" or 0xD800 <= ord(c) < 0xE000 for c in text
    )
