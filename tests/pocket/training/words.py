"""The atoms that families combine. Closed lists: what is held out is always a combination, never an atom."""

from __future__ import annotations

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Spain": "Madrid", "Italy": "Rome", "Portugal": "Lisbon",
    "Austria": "Vienna", "Poland": "Warsaw", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Denmark": "Copenhagen", "Ireland": "Dublin", "Hungary": "Budapest", "Romania": "Bucharest",
    "Serbia": "Belgrade", "Ukraine": "Kyiv", "Turkey": "Ankara", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Japan": "Tokyo", "China": "Beijing", "India": "Delhi", "Nepal": "Kathmandu", "Vietnam": "Hanoi",
    "Korea": "Seoul", "Iran": "Tehran", "Peru": "Lima", "Chile": "Santiago", "Cuba": "Havana",
    "Canada": "Ottawa", "Russia": "Moscow",
}  # fmt: skip

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("fast", "slow"), ("old", "young"), ("light", "dark"),
    ("open", "closed"), ("early", "late"), ("rich", "poor"), ("hard", "soft"), ("wet", "dry"), ("full", "empty"),
    ("long", "short"), ("near", "far"), ("loud", "quiet"), ("good", "bad"), ("clean", "dirty"), ("true", "false"),
    ("first", "last"), ("happy", "sad"), ("strong", "weak"), ("thick", "thin"), ("deep", "shallow"), ("in", "out"),
)  # fmt: skip

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Karin", "Leo",
    "Maria", "Nils", "Olga", "Paul", "Rosa", "Simon", "Tina", "Victor", "Walter", "Yara", "Zoe", "Milo",
)  # fmt: skip

WORDS = (
    "apple", "lantern", "river", "copper", "meadow", "window", "paper", "silver", "garden", "bridge", "candle",
    "forest", "button", "mirror", "pencil", "harbor", "kettle", "ladder", "marble", "needle", "orange", "pillow",
    "rabbit", "saddle", "tunnel", "violin", "wagon", "yellow", "anchor", "basket", "castle", "desert", "engine",
    "feather", "guitar", "hammer", "island", "jacket", "kitten", "lemon", "magnet", "nutmeg", "onion", "parrot",
    "quartz", "rocket", "spoon", "ticket", "valley", "wheel", "stone", "table", "train", "water", "house", "music",
    "light", "clock", "glass", "horse", "cloud", "bread", "chair", "flower",
)  # fmt: skip

LANGUAGES = {
    "English": "Hello", "French": "Bonjour", "German": "Guten Tag", "Spanish": "Hola", "Portuguese": "Olá",
    "Italian": "Ciao", "Japanese": "こんにちは", "Korean": "안녕하세요", "Russian": "Здравствуйте", "Chinese": "你好",
    "Arabic": "مرحبا", "Persian": "سلام", "Indonesian": "Halo", "Malay": "Selamat", "Nepali": "नमस्कार",
    "Polish": "Cześć", "Romanian": "Bună", "Serbian": "Здраво", "Swedish": "Hej", "Turkish": "Merhaba",
    "Ukrainian": "Привіт", "Vietnamese": "Xin chào", "Hindi": "नमस्ते", "Bengali": "নমস্কার",
}  # fmt: skip

COLOURS = {
    "red": (214, 32, 32), "green": (32, 160, 56), "blue": (36, 72, 208), "yellow": (240, 214, 40),
    "black": (16, 16, 16), "white": (244, 244, 244), "orange": (244, 136, 24), "purple": (136, 40, 168),
}  # fmt: skip

HAY = (
    "The grass is green today.", "A train leaves at noon.", "The old clock is slow.", "Rain falls on the roof.",
    "She reads a long book.", "The dog sleeps outside.", "We walk to the market.", "The soup is still hot.",
    "He paints the fence white.", "Birds sing in the morning.", "The road goes to the sea.",
    "They play chess at night.",
    "The shop opens at nine.", "A boat waits in the fog.", "The tea is too sweet.", "Children run in the park.",
    "The moon is bright.", "My shoes are wet.", "The bus was late again.", "Snow covers the hills.",
)  # fmt: skip
