"""An uploaded image: what is asked of it, and its bytes, as browsers and programs send them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from urllib.parse import parse_qsl

from cluster.serving.messages import Job, Refusal

_YES, _NO = ("true", "1", "yes", "on", ""), ("false", "0", "no", "off")
_HOW = "send it as a form (curl -F image=@part.png), or its bytes as application/octet-stream"
_OPTIONS = ("threshold", "heatmap")


@dataclass(frozen=True)
class Part:
    """A part of a form.

    Attributes:
        name: Of the field.
        is_file: Whether a file was chosen for it.
        content: Its bytes.
    """

    name: str
    is_file: bool
    content: bytes


def job_of(content_type: str, query: str, body: bytes) -> Job:
    """What an upload asks.

    Args:
        content_type: Of the body.
        query: ``threshold=`` and ``heatmap=`` in the address; fields of a form say the same.
        body: A form with one file, or the bytes of an image file.

    Raises:
        Refusal: It asks for nothing that can be answered.

    Example:
        >>> job_of("image/png", "threshold=1.5&heatmap=true", b"...")
        Job(kind='score', body=b'...', threshold=1.5, heatmap=True)
    """
    options = dict(parse_qsl(query, keep_blank_values=True))
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        parts = parts_of(content_type, body)
        files = [part.content for part in parts if part.is_file]
        options |= {p.name: p.content.decode("utf-8", "replace") for p in parts if not p.is_file}
        if len(files) != 1:
            raise Refusal(
                400,
                f"{len(files)} images in the form, not one",
                f"{_HOW}; several at once go to /invocations",
            )
        image = files[0]
    elif kind in ("", "application/octet-stream") or kind.startswith("image/"):
        image = body
    else:
        raise Refusal(415, f"an image is meant, not {kind}", _HOW)
    if not image:
        raise Refusal(400, "there is no image: it has 0 bytes", _HOW)
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise Refusal(400, f"no parameter {unknown[0]!r}", f"there are {' and '.join(_OPTIONS)}")
    return Job("score", image, _threshold(options), _heatmap(options))


def parts_of(content_type: str, body: bytes) -> list[Part]:
    r"""The parts of a form (RFC 7578), whose bytes are left as they are.

    Raises:
        Refusal: It is no such form.

    Example:
        >>> form = b'--x\r\nContent-Disposition: form-data; name="heatmap"\r\n\r\ntrue\r\n--x--\r\n'
        >>> parts_of("multipart/form-data; boundary=x", form)
        [Part(name='heatmap', is_file=False, content=b'true')]
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        raise Refusal(400, "a form without a boundary", _HOW)
    # Every boundary begins on a line of its own; the break before it belongs to it.
    _, *between = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("utf-8", "replace"))
    if not between or not between[-1].startswith(b"--"):
        raise Refusal(400, "a form that breaks off, or is none", _HOW)
    return [_part(piece) for piece in between[:-1]]


def _part(piece: bytes) -> Part:
    head, blank, content = piece.partition(b"\r\n\r\n")
    header = Message()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            header[name.strip()] = value.strip()
    field = header.get_param("name", header="content-disposition")
    if not blank or not isinstance(field, str):
        raise Refusal(400, "a part of the form has no name", _HOW)
    return Part(field, header.get_filename() is not None, content)


def _threshold(options: Mapping[str, str]) -> float | None:
    text = options.get("threshold", "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refusal(400, f"threshold={text} is not a number", "leave it out for the model's own")
    return value


def _heatmap(options: Mapping[str, str]) -> bool:
    text = options.get("heatmap", "false").strip().lower()
    if text not in (*_YES, *_NO):
        raise Refusal(400, f"heatmap={text} is neither true nor false", "leave it out for none")
    return text in _YES
