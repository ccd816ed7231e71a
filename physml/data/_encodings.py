"""The bytes of a text file as text."""

import codecs
import os
from pathlib import Path

_MARKS = {  # a UTF-32 mark begins with a UTF-16 mark, so the longer ones come first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: str | os.PathLike[str], encoding: str | None) -> str:
    """What a text file says, without a byte order mark.

    Args:
        path: the file.
        encoding: a name that Python knows. By default a byte order mark decides; without one it is
            UTF-8 where the bytes are valid UTF-8 and Windows-1252 otherwise.

    Raises:
        ValueError: the bytes are no text in this encoding.
    """
    content = Path(path).read_bytes()
    name = encoding or _encoding(content)
    try:
        text = content.decode(name)
    except LookupError:
        raise ValueError(f"encoding must be one that Python knows, got {encoding!r}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line} must be text in {name}, got the byte {content[error.start]:#04x}:"
            " name the encoding that it was written in, such as encoding='latin-1'"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"{path} must be a table of text, got a binary file or another encoding: save the "
            "table as CSV, pass encoding='utf-16-le', or read it with pandas and pass the frame "
            "to from_dataframe"
        )
    return text.removeprefix("\ufeff")


def _encoding(content: bytes) -> str:
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return name
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"
