"""What the task files beside this one need of Python: the harness calls these by name (``!function items.…``)."""

GAP = "#idiom#"


def labelled(data):
    """CMNLI: without the pairs on which the annotators did not agree (label -1)."""
    return data.filter(lambda row: row["label"] >= 0)


def before_the_gap(row):
    return row["content"].partition(GAP)[0]


def from_the_gap_on(row):
    """ChID: each idiom with what stands behind the gap; a second gap stays as it is."""
    return [idiom + row["content"].partition(GAP)[2] for idiom in row["candidates"]]


def rouge(row, results):
    """XSum: F1 of single words and of the longest common sequence, 0 to 1; word stems count as equal."""
    from rouge_score.rouge_scorer import RougeScorer

    scores = RougeScorer(["rouge1", "rougeL"], use_stemmer=True).score(row["summary"], results[0].strip())
    return {name: score.fmeasure for name, score in scores.items()}
