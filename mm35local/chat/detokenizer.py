"""Token ids to text while they arrive: bytes of an unfinished character wait for the rest of it.

Invariant: however the ids are cut into calls, the concatenated text is the same.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from mm35local.chat.vocabulary import Vocabulary


class Detokenizer:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_ids: Iterable[int]) -> str:
        """The text that is certain now. Control tokens add nothing; bytes that are no UTF-8 become U+FFFD."""
        return self._decoder.decode(b"".join(map(self._vocabulary.token_bytes, token_ids)))

    def flush(self) -> str:
        """The end: a character that never got its last bytes becomes U+FFFD. Ready for another text after it."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
