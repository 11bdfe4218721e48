"""What fills the terminal: the chat itself, and the two lists that open over it."""
