"""The parts of the chat screen. Text of people and models is never read as markup here."""
