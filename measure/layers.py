"""What each layer of the default model does to the states, and what it costs to leave it out alone.

    python measure/layers.py      (about three minutes on one core)

Writes `layers.csv`, a row per layer: Block Influence with its standard error and relative magnitude, from the whole
calibration part, and the loss (nats a token) that leaving this one layer out adds, on the first 256 tokens of one document of
each of four genres of the perplexity part. `notebooks/20_ten_questions.ipynb` draws from it.
"""

from __future__ import annotations

from pathlib import Path

from shortgpt import Trials, built_in_text, calibration_batches, decoder_layers, leave_one_out, load, score_layers

FILE = Path(__file__).parents[1] / "data" / "layers.csv"
GENRES = ("encyclopedic", "news", "science", "story")


def main() -> None:
    model, tokenizer = load()
    batches = calibration_batches(tokenizer, built_in_text()["text"])
    scores = score_layers(model, batches, progress=False)
    magnitudes = score_layers(model, batches, metric="relative_magnitude", progress=False)
    documents = built_in_text("perplexity")
    texts = documents[documents["genre"].isin(GENRES)].groupby("genre").head(1)["text"].tolist()
    trials = Trials(model, calibration_batches(tokenizer, texts, length=256, pack=False))
    damage = leave_one_out(trials, len(decoder_layers(model)), progress=False) - trials([])
    table = scores.table[["layer", "score", "standard_error"]].rename(
        columns={"score": "block_influence", "standard_error": "block_influence_error"}
    )
    table = table.assign(relative_magnitude=magnitudes.values, added_loss=damage)
    table.to_csv(FILE, index=False, float_format="%.6g")
    print(table.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
