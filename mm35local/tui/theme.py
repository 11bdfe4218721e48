"""The chat's own colours, dark and light: warm accents on neutral grounds, readable on a 256-colour terminal too."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="mm35-dark",
    primary="#ff8205",
    secondary="#7fb4ca",
    accent="#ffaf00",
    warning="#e6c384",
    error="#ff5d62",
    success="#98bb6c",
    foreground="#dcd7ce",
    background="#16161a",
    surface="#1e1e23",
    panel="#26262c",
    dark=True,
    variables={"footer-key-foreground": "#ff8205", "footer-description-foreground": "#9a958c"},
)

LIGHT = Theme(
    name="mm35-light",
    primary="#c84c00",
    secondary="#2f6f8f",
    accent="#b35c00",
    warning="#8a6100",
    error="#c0272d",
    success="#45702a",
    foreground="#2b2823",
    background="#fbf9f5",
    surface="#f3efe8",
    panel="#e9e4da",
    dark=False,
    variables={"footer-key-foreground": "#c84c00", "footer-description-foreground": "#6e675c"},
)
