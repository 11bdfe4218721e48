"""The chat protocol: messages to tokens, tokens to deltas. Pure but for `turn`, which asks an engine."""
