"""Files that go along with a question: text is fenced into it, images travel as data URLs.

What is read is limited, and decided by content: a name ending proves nothing.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from mm35local.errors import UsageError
from mm35local.tui.records import Attachment, Message
from mm35local.tui.request import ChatMessage

MAX_TEXT_BYTES = 1 << 20
MAX_IMAGE_BYTES = 20 << 20
_IMAGE_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
_LANGUAGES = {
    ".py": "python",
    ".rs": "rust",
    ".ts": "typescript",
    ".js": "javascript",
    ".md": "markdown",
    ".sh": "bash",
}


def read_attachment(path: Path) -> Attachment:
    """Raises UsageError for what is no file, too large, or neither text nor one of the image formats."""
    try:
        if not path.is_file():
            raise UsageError(f"{path}: no such file", "attach a text file or an image")
        data = _read(path)
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}", "attach a file that can be read") from problem
    if media_type := image_type(data):
        return Attachment(path.name, media_type, base64.b64encode(data).decode())
    if len(data) > MAX_TEXT_BYTES:
        raise UsageError(f"{path}: {len(data):,} bytes", f"text of at most {MAX_TEXT_BYTES:,} bytes can be attached")
    try:
        text = data.decode()
    except UnicodeDecodeError as problem:
        hint = "text files (UTF-8) and PNG, JPEG, GIF or WebP images can be attached"
        raise UsageError(f"{path}: neither text nor an image", hint) from problem
    return Attachment(path.name, "text/plain", text)


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_IMAGE_BYTES:
        raise UsageError(f"{path}: {size:,} bytes", f"at most {MAX_IMAGE_BYTES:,} bytes can be attached")
    return path.read_bytes()


def image_type(data: bytes) -> str | None:
    """The media type of an image that the server knows too; None for anything else."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=list(_IMAGE_FORMATS)) as image:
            return _IMAGE_FORMATS.get(image.format or "")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


def fenced(attachment: Attachment) -> str:
    """A text file as a code block whose fence is longer than any in the text, under its name."""
    ticks = max((len(run) for run in re.findall(r"`{3,}", attachment.data)), default=2) + 1
    language = _LANGUAGES.get(Path(attachment.name).suffix.lower(), "")
    end = "" if attachment.data.endswith("\n") else "\n"
    return f"{attachment.name}\n{'`' * ticks}{language}\n{attachment.data}{end}{'`' * ticks}"


def as_sent(message: Message) -> ChatMessage:
    """A stored message as the server reads it."""
    texts = [fenced(item) for item in message.attachments if not item.is_image]
    images = tuple(f"data:{item.media_type};base64,{item.data}" for item in message.attachments if item.is_image)
    return ChatMessage(message.role, "\n\n".join([*texts, *([message.content] if message.content else [])]), images)
