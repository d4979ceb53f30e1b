"""Makes clip_tokenizer.json: what the public reference's tokenizer gives for 200 texts.

Command:  python tests/golden/clip_tokenizer.py      (needs transformers and tokenizers)
A byte-pair vocabulary in CLIP's format is learned from the texts themselves, so that no file of
anybody's is needed; `transformers.CLIPTokenizer` reads it and encodes the texts.
"""

from __future__ import annotations

import collections
import itertools
import json
import pathlib
import tempfile

FILE = pathlib.Path(__file__).with_name("clip_tokenizer.json")
MERGES = 400

PLAIN = """a photo of a cat
A Photo Of A Dog.
a small red circle on the left
two large blue squares at the top
three little golden hoops in the upper right corner against a white background
It's a dog, isn't it?
I'm sure they've said we'll go; he'd know, she's here, you're not
don't can't won't 'tis 'twas rock'n'roll o'clock
'S 'T 'RE 'VE 'M 'LL 'D
what's-his-name's cat's toys'
!'s ?'t ...'re
''s '''t
hello, world!
Hello... world?!
(brackets) [square] {curly} <angle>
a/b\\c|d
100% sure: 50/50
$5.99 or €4,50 or £3
1234567890
the year 2021 was no 1999
3rd 21st 4x4 mp3 h2o
C++ and C# and F#
e-mail: someone@example.com
https://example.com/a?b=c&d=e#f
snake_case and CamelCase and kebab-case
#hashtag @mention
5 * 3 = 15 - 0
a+b=c
~tilde `tick` ^caret^
"double quotes" and 'single quotes'
“curly” ‘quotes’ „low“ «guillemets»
em—dash en–dash hy-phen
ellipsis… bullet • middle · dot
© ® ™ § ¶ † ‡
½ ¼ ² ³ ₂ ⅷ Ⅻ
x² + y² = z²
10 °C, 5′ 6″
α β γ Δ Ω π
café au lait
CAFÉ AU LAIT
cafe\u0301 au lait
naïve façade coöperate
Ångström ångström A\u030angstro\u0308m
über Straße GROẞ
ŒUVRE œuvre æther ÆTHER
El Niño, mañana
São Paulo, coração
Čeština žluťoučký kůň
łódź ŁÓDŹ
İstanbul ısparta
ΟΔΥΣΣΕΥΣ οδυσσευς
Привет, мир!
ПРИВЕТ МИР
שלום עולם
مرحبا بالعالم
नमस्ते दुनिया
สวัสดีชาวโลก
你好，世界。
こんにちは世界
カタカナ ｶﾀｶﾅ
안녕하세요 세계
日本語とEnglish混ぜて
Việt Nam đẹp
xin chào thế giới
😀
a 😀 b
😀😀😀
smile 😀! and cry 😢?
👍🏽 thumbs
👨‍👩‍👧‍👦 family
🇩🇪 flag 🇯🇵
❤️ heart ♥ heart
☃ snowman ☂
🏴‍☠️ pirate
e\u0301\u0301 stacked z\u0335a\u0336l\u0337g\u0338o
ﬁ ligature ﬂ
ＦＵＬＬ ｗｉｄｔｈ １２３
\ttabs\tand\nnew\nlines\r\nand  double   spaces\x0b\x0c
   leading and trailing   
\u00a0non\u00a0breaking\u2003em\u2009thin\u3000ideographic
zero\u200bwidth\u200djoiner\ufeffbom
a\u0000b
soft\u00adhyphen
right\u200fto\u200eleft
a
z
!
?
.
'
''
-
_
__init__
1
a1b2c3
1a2b3c
é
ß
Σ
ΑΣ ΒΣ
<|startoftext|> inside <|endoftext|> text
<|endoftext|>
<endoftext>
<b>bold</b> &amp; &lt;html&gt;
&quot;quoted&quot; &#39;
...................
!!!!!!!!!!!?????????
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
AbCdEfGhIjKlMnOpQrStUvWxYz
supercalifragilisticexpialidocious antidisestablishmentarianism
ünïcödé èvérÿwhère, ñot jüst àscii"""

ADJECTIVES = "small tiny red Scarlet BLUE golden café-coloured 3rd striped 'odd' shiny".split()
NOUNS = "circle square star cross ring dog cat photo sketch painting".split()
PLACES = (
    "on the left",
    "at the top!",
    "in the centre;",
    "(bottom right)",
    "nowhere…",
    "on a beach 🏖",
)


def texts() -> list[str]:
    """The 200 texts."""
    found = PLAIN.split("\n")
    every = " ".join(ADJECTIVES), " ".join(NOUNS), " ".join(PLACES)
    found += [" ".join(every), " ".join(every).upper() * 2, "very " * 90 + "long", "1" * 100]
    number = 0
    while len(found) < 200:
        a, n = ADJECTIVES[number % 11], NOUNS[(3 * number) % 10]
        b, p = ADJECTIVES[(5 * number + 2) % 11], PLACES[number % 6]
        found.append(f"{'a An THE this'.split()[number % 4]} {a}, {b} {n}{'s' * (number % 2)} {p}")
        number += 1
    return list(dict.fromkeys(found))


def learned(lines: list[str]) -> list[tuple[str, str]]:
    """The merges that byte-pair encoding learns from the words of the texts."""
    from rvis import clip

    encoder = clip.byte_pairs(vocabulary([]), []).encoder
    words: collections.Counter[tuple[str, ...]] = collections.Counter()
    for line in lines:
        plain = encoder.normalizer.normalize_str(line)
        for piece, _ in encoder.pre_tokenizer.pre_tokenize_str(plain):
            words[(*piece[:-1], piece[-1] + "</w>")] += 1
    merges = []
    for _ in range(MERGES):
        seen: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(word):
                seen[pair] += times
        best = max(seen, key=lambda pair: (seen[pair], pair))
        merges.append(best)
        changed: collections.Counter[tuple[str, ...]] = collections.Counter()
        for word, times in words.items():
            out, i = [], 0
            while i < len(word):
                both = word[i : i + 2] == best
                out.append("".join(best) if both else word[i])
                i += 1 + both
            changed[tuple(out)] += times
        words = changed
    return merges


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Every byte, every byte that ends a word, the merges, start and end."""
    from tokenizers.pre_tokenizers import ByteLevel

    from rvis.clip.tokenizer import END, START

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in merges] + [START, END]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def main() -> None:
    """Writes the file."""
    import transformers

    lines = texts()
    merges = learned(lines)
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""])
        (place / "merges.txt").write_text(text, encoding="utf-8")
        (place / "vocab.json").write_text(json.dumps(vocabulary(merges)), encoding="utf-8")
        reference = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
        ids = [reference(line, truncation=True)["input_ids"] for line in lines]
    about = {
        "reference": f"transformers {transformers.__version__}, CLIPTokenizer",
        "merges": [" ".join(pair) for pair in merges],
        "texts": lines,
        "ids": ids,
    }
    FILE.write_text(json.dumps(about, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(len(lines), "texts;", FILE.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
