"""An uploaded image: what is asked of it, and its bytes, as browsers and programs send them."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from cluster.serving.messages import HttpError, Job

_FIX = "send it as a form (curl -F image=@part.png), or its bytes as application/octet-stream"


class Options(BaseModel):
    """What is asked of an image, in the address or as fields of a form."""

    model_config = ConfigDict(extra="forbid")

    threshold: Annotated[
        FiniteFloat | None, BeforeValidator(lambda value: None if value == "" else value)
    ] = Field(None, description="Scores above it are rejected; the model's own by default.")
    heatmap: Annotated[bool, BeforeValidator(lambda value: True if value == "" else value)] = Field(
        False, description="Whether to draw where the image departs from good parts, as a PNG in base64."
    )


@dataclass(frozen=True)
class Part:
    """A part of a form: its field's name, whether a file was chosen for it, its bytes."""

    name: str
    is_file: bool
    content: bytes


def job_of(content_type: str, options: Options, body: bytes) -> Job:
    """What an upload asks.

    Args:
        content_type: Of the body.
        options: In the address; fields of a form come before them.
        body: A form with one file, or the bytes of an image file.

    Raises:
        HttpError: It asks for nothing that can be answered.

    Example:
        >>> job_of("image/png", Options(threshold=1.5, heatmap=True), b"...")
        Job(kind='score', body=b'...', threshold=1.5, heatmap=True)
    """
    kind, image = content_type.partition(";")[0].strip().lower(), body
    if kind == "multipart/form-data":
        parts = parts_of(content_type, body)
        files = [part.content for part in parts if part.is_file]
        if len(files) != 1:
            fix = f"{_FIX}; several at once go to /invocations"
            raise HttpError(400, f"{len(files)} images in the form, not one", fix)
        fields = {part.name: part.content.decode("utf-8", "replace") for part in parts if not part.is_file}
        try:
            options = Options.model_validate(options.model_dump(exclude_unset=True) | fields)
        except ValidationError as error:
            raise HttpError.of(error, f"there are {' and '.join(Options.model_fields)}") from error
        image = files[0]
    elif kind not in ("", "application/octet-stream") and not kind.startswith("image/"):
        raise HttpError(415, f"an image is meant, not {kind}", _FIX)
    if not image:
        raise HttpError(400, "there is no image: it has 0 bytes", _FIX)
    return Job("score", image, options.threshold, options.heatmap)


def parts_of(content_type: str, body: bytes) -> list[Part]:
    r"""The parts of a form (RFC 7578), whose bytes are left as they are.

    Raises:
        HttpError: It is no such form.

    Example:
        >>> form = b'--x\r\nContent-Disposition: form-data; name="heatmap"\r\n\r\ntrue\r\n--x--\r\n'
        >>> parts_of("multipart/form-data; boundary=x", form)
        [Part(name='heatmap', is_file=False, content=b'true')]
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        raise HttpError(400, "a form without a boundary", _FIX)
    # Every boundary begins on a line of its own; the break before it belongs to it.
    _, *between = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("utf-8", "replace"))
    if not between or not between[-1].startswith(b"--"):
        raise HttpError(400, "a form that breaks off, or is none", _FIX)
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
        raise HttpError(400, "a part of the form has no name", _FIX)
    return Part(field, header.get_filename() is not None, content)
