"""Images in a conversation: where they end up, and that the prompt is mistral-common's to the token."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers import image as reference_images
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from PIL import Image as Pillow

from mm35local.chat.content import read_content
from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, ImageAt, Message, Role
from mm35local.chat.normalize import normalize
from mm35local.chat.notes import Change
from mm35local.chat.tools import ToolCall
from mm35local.errors import RequestError
from mm35local.server.pixels import read_pixels
from mm35local.types import Image, ImageGrid
from tests.fakes.metadata import chatml_metadata, mistral_metadata, mistral_tekken_text
from tests.fakes.pictures import encoded, plain

NOW = datetime(2026, 11, 23, tzinfo=UTC)
IMG, IMG_BREAK = 10, 12
SIZES = (
    (1, 1), (28, 28), (29, 28), (640, 480), (1540, 1540),
    (1541, 20), (3000, 17), (17, 3000), (4000, 3000), (1000, 2333),
)  # fmt: skip
RED, BLUE = plain(2, 1, 10), plain(1, 3, 20)


@cache
def dialect() -> Dialect:
    return load_dialect(mistral_metadata(), "pocket.gguf", has_vision=True)


def render(*messages: Message) -> tuple[int, ...]:
    return tuple(part for part in dialect().render(Conversation(messages, NOW)) if isinstance(part, int))


def spelt(ids: tuple[int, ...], *images: Image) -> list[int]:
    """With mistral-common's ids for the rows of `images`, which stand there in this order."""
    told = list(ids)
    start = 0
    for image in images:
        start = next(i for i in range(start, len(told)) if told[i] < 0)
        columns = image.width // 28
        for i in range(image.num_rows):
            told[start + i] = IMG_BREAK if i % (columns + 1) == columns else IMG
    assert min(told) >= 0
    return told


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> MistralTokenizer[Any, Any, Any, Any, Any]:
    file: Path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    file.write_text(mistral_tekken_text(), encoding="utf-8")
    return MistralTokenizer.from_file(file)


@pytest.fixture(autouse=True)
def _no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """mistral-common needs opencv for the pixels, which no token depends on."""
    monkeypatch.setattr(reference_images, "transform_image", lambda image, new_size: np.zeros((3, *new_size[::-1])))


@pytest.mark.parametrize("size", SIZES)
def test_tokens_are_those_of_mistral_common(
    size: tuple[int, int], reference: MistralTokenizer[Any, Any, Any, Any, Any]
) -> None:
    data = encoded(Pillow.new("RGB", size, "red"))
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    parts = [{"type": "text", "text": "Look: "}, {"type": "image_url", "image_url": url}]
    for content in (parts, parts[::-1], [*parts, {"type": "text", "text": " again "}, parts[1]]):
        request = ChatCompletionRequest.from_openai(
            messages=cast("Any", [{"role": "user", "content": content}]), reasoning_effort="none"
        )
        expected = reference.encode_chat_completion(request).tokens
        image = read_pixels(data, ImageGrid(), "image")
        ours = read_content([image if part["type"] == "image_url" else part for part in content], "content")
        told = render(Message(Role.USER, ours.text, images=ours.images))
        assert spelt(told, *[image] * len(ours.images)) == expected


def test_results_of_tools_may_have_images(reference: MistralTokenizer[Any, Any, Any, Any, Any]) -> None:
    call = ToolCall("abcdefghi", "look", "{}")
    told = render(
        Message(Role.USER, "Look"),
        Message(Role.ASSISTANT, tool_calls=(call,)),
        Message(Role.TOOL, "Here: ", tool_call_id="abcdefghi", images=(ImageAt(6, RED),)),
    )
    data = encoded(Pillow.new("RGB", (RED.width, RED.height)))
    url = {"type": "image_url", "image_url": "data:image/png;base64," + base64.b64encode(data).decode()}
    function = {"name": "look", "arguments": "{}"}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "tool_calls": [{"id": "abcdefghi", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": [{"type": "text", "text": "Here: "}, url]},
    ]
    request = ChatCompletionRequest.from_openai(messages=messages, reasoning_effort="none")
    assert spelt(told, RED) == reference.encode_chat_completion(request).tokens


def test_an_image_of_the_system_prompt_goes_to_the_user() -> None:
    history = normalize([Message(Role.SYSTEM, "Be brief", images=(ImageAt(2, RED),)), Message(Role.USER, "Hi")])
    assert history.messages == (
        Message(Role.SYSTEM, "Be brief"),
        Message(Role.USER, "Hi", images=(ImageAt(0, RED),)),
    )
    assert [note.change for note in history.notes] == [Change.IMAGE_MOVED]


def test_an_image_of_an_answer_goes_to_the_next_user_message() -> None:
    answer = Message(Role.ASSISTANT, "So", images=(ImageAt(2, RED),))
    history = normalize([Message(Role.USER, "Draw"), answer, Message(Role.USER, "And?", images=(ImageAt(4, BLUE),))])
    assert history.messages[1:] == (
        Message(Role.ASSISTANT, "So"),
        Message(Role.USER, "And?", images=(ImageAt(0, RED), ImageAt(4, BLUE))),
    )


def test_merged_messages_keep_each_image_in_its_place() -> None:
    first = Message(Role.USER, "one", images=(ImageAt(1, RED),))
    (merged,) = normalize([first, Message(Role.USER, "two", images=(ImageAt(2, BLUE),))]).messages
    assert merged.parts == ("o", RED, "ne\n\ntw", BLUE, "o")


parts_strategy = st.lists(st.one_of(st.text(max_size=5), st.sampled_from([RED, BLUE])), max_size=4)
message_strategy = st.builds(
    lambda role, parts: Message(role, (content := read_parts(parts))[0], images=content[1]),
    st.sampled_from(Role),
    parts_strategy,
)


def read_parts(parts: list[str | Image]) -> tuple[str, tuple[ImageAt, ...]]:
    content = read_content(list(parts), "content")
    return content.text, content.images


@given(st.lists(message_strategy, min_size=1, max_size=6))
def test_no_image_is_lost_and_the_prompt_has_each(messages: list[Message]) -> None:
    history = normalize(messages)
    assert normalize(history.messages).messages == history.messages
    given_images = sorted(each.image.height for message in messages for each in message.images)
    kept = [part for message in history.messages for part in message.parts if isinstance(part, Image)]
    assert sorted(image.height for image in kept) == given_images
    assert all(message.role in (Role.USER, Role.TOOL) for message in history.messages if message.images)
    ids = render(*messages)
    assert sum(id_ < 0 for id_ in ids) == sum(image.num_rows for image in kept)
    assert ids[-1] >= 0


@pytest.mark.parametrize("metadata", [mistral_metadata(), chatml_metadata()])
def test_a_model_without_eyes_says_so(metadata: dict[str, object]) -> None:
    blind = load_dialect(metadata, "blind.gguf")
    assert not blind.has_vision
    with pytest.raises(RequestError, match="sees no images"):
        blind.render(Conversation((Message(Role.USER, "Hi", images=(ImageAt(0, RED),)),), NOW))
