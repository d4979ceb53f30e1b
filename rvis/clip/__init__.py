"""CLIP: pictures and texts in one space, and pictures made from sentences through it."""

from rvis.clip.invert import Augment, Inversion, invert
from rvis.clip.load import list_clips, load, save, state_dict, untrained
from rvis.clip.model import (
    CLIP,
    Similarity,
    classifier,
    encode_image,
    encode_text,
    encode_tokens,
    ensemble,
    similarity,
)
from rvis.clip.tokenizer import BytePairs, Words, byte_pairs, read_byte_pairs
from rvis.clip.towers import SIZES, SMALL, Config, ImageTower, TextTower

__all__ = [
    "CLIP",
    "SIZES",
    "SMALL",
    "Augment",
    "BytePairs",
    "Config",
    "ImageTower",
    "Inversion",
    "Similarity",
    "TextTower",
    "Words",
    "byte_pairs",
    "classifier",
    "encode_image",
    "encode_text",
    "encode_tokens",
    "ensemble",
    "invert",
    "list_clips",
    "load",
    "read_byte_pairs",
    "save",
    "similarity",
    "state_dict",
    "untrained",
]
