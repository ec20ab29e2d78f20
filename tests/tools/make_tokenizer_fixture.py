"""Writes tests/wasm/fixtures/kedge_tiny_tokens.json.gz: texts and their ids by Python's tiktoken.

    python tests/tools/make_tokenizer_fixture.py        (needs tiktoken 0.14.0)

The texts are drawn from a fixed seed: words and sentences in many scripts, every script's own
characters, emoji, code, numbers, contractions, runs of white space, random mixtures. The pattern is
the split rule of the released tokenizer; long texts are cut as that one cuts them.
"""

import base64
import gzip
import json
import pathlib
import random
import unicodedata

import tiktoken

SEED = 20260924
ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/kedge-tiny/tiktoken.model"
OUTPUT = ROOT / "tests/wasm/fixtures/kedge_tiny_tokens.json.gz"
UP = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
LO = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join([
    r"[\p{Han}]+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UP}*{LO}+{CONTRACTION}",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UP}+{LO}*{CONTRACTION}",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])
BLOCK, RUN = 400_000, 25_000

SENTENCES = """
The quick brown fox jumps over the lazy dog, doesn't it?
I'd've thought they're sure we'll win; she's HERE'S YOU'LL it'S
Größe, Übermut und Straßenbahnen kosten 1.234,56 € — „sagt man“.
L'été dernier, où es-tu allé ? Ça coûte 12 € à Noël.
¿Dónde está la biblioteca? ¡Mañana por la mañana!
Быстрая коричневая лиса прыгает через ленивую собаку.
Η γρήγορη καφετιά αλεπού πηδάει πάνω από το σκυλί.
השועל החום המהיר קופץ מעל הכלב העצלן.
الثعلب البني السريع يقفز فوق الكلب الكسول ١٢٣٤.
तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है १२३।
দ্রুত বাদামী শিয়াল অলস কুকুরের উপর দিয়ে লাফ দেয়।
வேகமான பழுப்பு நரி சோம்பேறி நாயின் மேல் குதிக்கிறது.
สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ ๑๒๓
敏捷的棕色狐狸跳过了懒狗。价格是100元，對嗎？
素早い茶色の狐がのろまな犬を飛び越える。カタカナ々〇ーｶﾅ
빠른 갈색 여우가 게으른 개를 뛰어넘습니다. ㅋㅋㅋ
სწრაფი ყავისფერი მელა ახტება ზარმაც ძაღლს.
Արագ շագանակագույն աղվեսը ցատկում է ծույլ շան վրայով։
ፈጣኑ ቡናማ ቀበሮ ሰነፉን ውሻ ዘለለ። ፩፪፫
Con cáo nâu nhanh nhẹn nhảy qua con chó lười biếng.
ᎣᏏᏲ ᏣᎳᎩ ꭰꮳ  ᐃᓄᒃᑎᑐᑦ  ᚠᚢᚦ  𐌰𐌱𐌲  𓀀𓁐  𒀀𒁀
def f(x):\\n\\treturn x**2  # comment\\n\\n\\nclass HTTPServer2(Base):\\n    pass\\n
for (let i = 0; i < n; ++i) { total += a[i] ?? 0x1F; }\\r\\n// done\\r\\n
SELECT * FROM t WHERE a <> 'b' AND c IN (1,22,333,4444);
<html lang="en"><body class='x-y'>&nbsp;</body></html>
{"key": [1, 2.5e-10, null, true], "ünïcode": "\\u00e9"}
https://example.com/a/b?c=d&e=%20f#g user.name+tag@mail.example.org
helloWorld getUserName iPhone parseJSONResponse XMLHttpRequest ABCdEFg
🙂🚀 👨‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ☕️ 1️⃣ café naïve ﬁ ① ½ Ⅷ ² ǅ ʰ
ſ'ſ K 'K x'S Y'T z'Re w'LL v'D u'vE t'ſ
<|im_end|>[BOS]<|im_user|>user<|im_middle|>hi<|reserved_token_4000|>
a\u0301e\u0308 \u0301 \u0301A \u0301Ab !\u0301x \u200b\u200d\ufeff\u00ad \u0085\u00a0\u2028\u3000
$100 + 20% = ~€120... #hashtag @user \\path\\to\\file **bold** __init__
""".strip("\n").split("\n")


def unescape(line):
    for name, character in (("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t")):
        line = line.replace(name, character)
    return line


def assigned():
    """Every character of Python's Unicode tables that UTF-8 can carry, by block of 64."""
    blocks = {}
    for code in range(0x110000):
        if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co"):
            blocks.setdefault(code // 64, []).append(chr(code))
    return list(blocks.values())


def spaces(rng):
    kinds = [" ", " ", " ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\x0b", "\x1c"]
    return "".join(rng.choice(kinds) for _ in range(rng.randint(1, 12)))


def texts(rng):
    sentences = [unescape(line) for line in SENTENCES]
    words = [word for line in sentences for word in line.split(" ")]
    yield from ["", " ", "\n", "a", "\0", "\x7f", "\U0010ffff", "\ufffd"]
    yield from sentences
    for block in assigned():
        if rng.random() < 0.35:
            yield "".join(rng.choice(block) for _ in range(rng.randint(1, 16)))
    for _ in range(500):
        yield " ".join(rng.choice(words) for _ in range(rng.randint(1, 12)))
    for _ in range(350):
        yield "".join(rng.choice(words) + spaces(rng) for _ in range(rng.randint(1, 6)))
    alphabet = "aZ éß'sSſ\u0301ʰ中〇⺀½1٣!-\u200d🙂 \n\r\t\u3000ªǅー"
    for _ in range(700):
        yield "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 24)))
    for size in (16, 49, 50, 127, 128, 129, 500, 1000):
        for unit in " ", "\n", "\t", "a", "ab", "-", "中", "🙂", "\r\n", " \n", "é", "x1":
            yield unit * size
            yield f"x{unit * size}y"
    yield " " * 30_000
    yield "a" * 26_000 + " b"
    yield "ab " * 140_000
    yield "中" * 25_001 + "\u3000" * 25_001 + "文"


def slices(text):
    for start in range(0, len(text), BLOCK):
        block = text[start:start + BLOCK]
        begin, run, is_space = 0, 0, False
        for at, character in enumerate(block):
            if character.isspace() != is_space:
                run, is_space = 0, character.isspace()
            run += 1
            if run > RUN:
                yield block[begin:at]
                begin, run = at, 1
        yield block[begin:]


def runs(text):
    """Long texts are stored as [unit, count] pairs, so that the fixture stays small."""
    for unit in (" ", "a", "ab ", "中", "\u3000"):
        count = 0
        while text.startswith(unit, count * len(unit)):
            count += 1
        if count > 1000:
            return [[unit, count], *runs(text[count * len(unit):])]
    return [[text, 1]] if text else []


def main():
    rng = random.Random(SEED)
    lines = MODEL.read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    encoding = tiktoken.Encoding(
        name="kedge-tiny", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    items, long_items = [], []
    for text in texts(rng):
        ids = [id for piece in slices(text) for id in encoding.encode(piece, disallowed_special=())]
        assert b"".join(encoding.decode_single_token_bytes(id) for id in ids) == text.encode()
        if len(text) <= 5000:
            items.append([text, ids])
        else:
            long_items.append({"runs": runs(text), "count": len(ids), "sum": checksum(ids)})
    fixture = {"seed": SEED, "tiktoken": tiktoken.__version__, "texts": items, "long": long_items}
    OUTPUT.parent.mkdir(exist_ok=True)
    data = json.dumps(fixture, ensure_ascii=False, separators=(",", ":")).encode()
    OUTPUT.write_bytes(gzip.compress(data, 9, mtime=0))
    print(f"{len(items)} texts, {len(long_items)} long ones, {OUTPUT.stat().st_size} bytes")


def checksum(ids):
    """The order of the ids matters: a polynomial modulo a prime."""
    value = 0
    for id in ids:
        value = (value * 31 + id) % 1_000_003
    return value


if __name__ == "__main__":
    main()
