"""Write data/tasks/grammar.jsonl: 480 minimal pairs, 8 phenomena x 60, from hand-made templates.

The two sentences of an item differ in exactly one word, and one of them is ungrammatical in
standard English. The items of a phenomenon are spread evenly over "cells" (singular or plural
subject, gap or no gap, ...), so that no word form is a giveaway, and the right answer is listed
first in half of the items. Rows are interleaved: any leading multiple of eight rows covers all
phenomena equally. Run ``python measure/make_grammar.py`` (standard library only, fixed seed).
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

SEED, PER_PHENOMENON = "grammar-1", 60
OUTPUT = Path(__file__).parents[1] / "data" / "tasks" / "grammar.jsonl"
IRREGULAR_PLURALS = {"man": "men", "child": "children", "shelf": "shelves", "lady": "ladies"}

Pair = tuple[str, str]  # (grammatical, ungrammatical)


def pick(rng: random.Random, lexicon: str) -> str:
    """Pick one entry of a lexicon, a text whose entries are separated by ";"."""
    return rng.choice([" ".join(entry.split()) for entry in lexicon.split(";")])


def plural(noun: str) -> str:
    """Return the plural of one of the nouns used in this file."""
    for singular, form in IRREGULAR_PLURALS.items():
        if noun.endswith(singular):  # also businessman, policewoman, ...
            return noun.removesuffix(singular) + form
    return noun + ("es" if noun.endswith(("x", "ch")) else "s")


def fill(rng: random.Random, template: str, right: str, wrong: str, **lexicons: str) -> Pair:
    """Fill each named slot from its lexicon, then fill {x} with the right and with the wrong form."""
    chosen = {name: pick(rng, lexicon) for name, lexicon in lexicons.items()}
    good, bad = (" ".join(template.format(x=form, **chosen).split()) for form in (right, wrong))
    return good[0].upper() + good[1:], bad[0].upper() + bad[1:]


# singular/plural/rest. The plural is longer in the first text and shorter in the second: no length cue.
PEOPLE_PREDICATES = (
    """is/are/from Canada; was/were/waiting for the bus; was/were/reading a newspaper; has/have/long hair;
    was/were/talking on the phone; is/are/very polite; was/were/born in Paris; has/have/two brothers""",
    """looks/look/very tired; wants/want/a cup of coffee; speaks/speak/three languages; plays/play/the piano;
    knows/know/the answer; seems/seem/rather nervous; works/work/at night; lives/live/in Chicago""",
)
THING_PREDICATES = (
    """is/are/very old; was/were/quite expensive; was/were/covered with dust; is/are/for sale;
    has/have/a blue stripe; was/were/made in Italy""",
    """belongs/belong/to my sister; looks/look/brand new; costs/cost/only two dollars; comes/come/from Spain;
    needs/need/some cleaning; seems/seem/very cheap""",
)
PEOPLE = "teacher; doctor; nurse; farmer; painter; singer; guard; lawyer; student; clerk"
PLACES = "near/window; behind/table; next to/statue; in front of/door; beside/fountain; near/tree; behind/bench"
THINGS = "cup; lamp; plate; bottle; basket; vase; toy; box; candle; tray"
THING_PLACES = "on/shelf; under/chair; behind/curtain; next to/newspaper; beside/book; near/window; on/desk"


def agreement_pp(rng: random.Random, cell: int) -> Pair:
    """Subject and verb across a prepositional phrase whose noun has the other number."""
    kind, number = divmod(cell, 2)
    human = (PEOPLE, PLACES, PEOPLE_PREDICATES[kind])
    heads, places, predicates = rng.choice((human, (THINGS, THING_PLACES, THING_PREDICATES[kind])))
    head, (prep, noun), verbs = pick(rng, heads), pick(rng, places).split("/"), pick(rng, predicates).split("/")
    head, noun = (plural(head), noun) if number else (head, plural(noun))
    return fill(rng, f"the {head} {prep} the {noun} {{x}} {verbs[2]}.", verbs[number], verbs[1 - number])


def agreement_rc(rng: random.Random, cell: int) -> Pair:
    """Subject and verb across a relative clause whose noun has the other number."""
    kind, number = divmod(cell, 2)
    head = pick(rng, "author; actor; singer; scientist; senator; dancer; pilot; chef; violinist")
    noun = pick(rng, "critic; reporter; editor; guard; student; visitor; child; neighbor; tourist")
    past = pick(rng, "met; greeted; thanked; avoided; recognized; followed; invited; called")
    verbs = pick(rng, PEOPLE_PREDICATES[kind]).split("/")
    head, noun = (plural(head), noun) if number else (head, plural(noun))
    clause = rng.choice((f"that the {noun} {past}", f"who {past} the {noun}"))
    return fill(rng, f"the {head} {clause} {{x}} {verbs[2]}.", verbs[number], verbs[1 - number])


MALE = "boy; man; gentleman; schoolboy; businessman; policeman; grandfather; salesman"
FEMALE = "girl; woman; lady; schoolgirl; businesswoman; policewoman; grandmother; saleswoman"
ACTIONS_ALONE = """taught {x} to swim; made {x} some tea; bought {x} some new clothes; prepared {x} for the trip;
    reminded {x} to be patient; hurt {x} in the garden; convinced {x} to stay; cooked {x} a warm meal"""
ACTIONS_NEAR = """saw {x} in the mirror; introduced {x} to the guests; blamed {x} for the accident;
    poured {x} some water; dried {x} with a towel; described {x} as shy; wrapped {x} in a blanket"""


def anaphor(rng: random.Random, cell: int) -> Pair:
    """Reflexives: cells 0-1 singular and 2-3 plural antecedents (number), cells 4-5 gender."""
    contrast, female = divmod(cell, 2)
    mine, other = (FEMALE, MALE) if female else (MALE, FEMALE)
    own, opposite = ("herself", "himself") if female else ("himself", "herself")
    right, wrong = ((own, "themselves"), ("themselves", own), (own, opposite))[contrast]
    head, noun = pick(rng, mine), pick(rng, other if contrast == 2 else mine)
    while noun == head:
        noun = pick(rng, mine)
    head = plural(head) if contrast == 1 else head
    noun = plural(noun) if contrast == 0 else noun  # the distractor always agrees with the wrong form
    if rng.random() < 0.5:
        return fill(rng, f"the {head} {pick(rng, ACTIONS_ALONE)}.", right, wrong)
    prep = pick(rng, "near; next to; behind; beside")
    return fill(rng, f"the {head} {prep} the {noun} {pick(rng, ACTIONS_NEAR)}.", right, wrong)


def determiner_noun(rng: random.Random, cell: int) -> Pair:
    """this/that with singular, these/those with plural nouns; the determiner or the noun changes."""
    vary_noun, number = divmod(cell, 2)
    noun = pick(rng, "lamp; vase; bowl; basket; chair; clock; mirror; blanket; cup; carpet; box")
    nouns, determiners = (noun, plural(noun)), rng.choice((("this", "these"), ("that", "those")))
    phrase = f"{determiners[number]} {{adj}} {{x}}" if vary_noun else f"{{x}} {{adj}} {nouns[number]}"
    right, wrong = (nouns if vary_noun else determiners)[:: -1 if number else 1]
    who = "my aunt; the teacher; Anna; the tourists; Peter; our neighbors; the artist; Maria"
    adj = "old; small; pretty; expensive; blue; cheap; white"
    did, when = "bought; found; chose; saw", "at the market; last week; on Monday; in the village"
    return fill(rng, f"{{who}} {{did}} {phrase} {{when}}.", right, wrong, who=who, did=did, adj=adj, when=when)


WHO = "the boy; my uncle; Anna; the teacher; Peter; our neighbor; the farmer; Maria; my cousin"
PAST_FRAMES = "yesterday {who} {x} {rest}.; {who} {x} {rest} yesterday.; last week {who} {x} {rest}."
PERFECT_FRAMES = "{who} has {x} {rest}.; {who} had already {x} {rest}.; {who} has just {x} {rest}."
BASE_FRAMES = "{who} did not {x} {rest}.; {who} could not {x} {rest}.; {who} will {x} {rest} soon."
PARTICIPLES = """broken/broke/a window; taken/took/the wrong bus; written/wrote/a long letter; eaten/ate/two apples;
    chosen/chose/a blue shirt; seen/saw/a black bear; thrown/threw/a stone; driven/drove/a large truck;
    torn/tore/a page; given/gave/a short speech; drawn/drew/a small map; worn/wore/a green hat; flown/flew/a kite;
    begun/began/a new book; spoken/spoke/to the mayor; fallen/fell/down the stairs; stolen/stole/a bicycle"""
BASES = """go/went/to the market; write/wrote/a letter; buy/bought/a new coat; sing/sang/an old song; eat/ate/the soup;
    catch/caught/a fish; take/took/the train; drink/drank/the tea; sell/sold/the old car; build/built/a fence;
    speak/spoke/to the doctor; come/came/to the party; break/broke/the record; draw/drew/a picture"""


def irregular_verb(rng: random.Random, cell: int) -> Pair:
    """Cell 0: participle after has or had. Cell 1: simple past without an auxiliary."""
    *forms, rest = pick(rng, PARTICIPLES).split("/")
    frame = pick(rng, PAST_FRAMES if cell else PERFECT_FRAMES)
    return fill(rng, frame, forms[cell], forms[1 - cell], who=WHO, rest=rest)


def verb_form(rng: random.Random, cell: int) -> Pair:
    """Cell 0: bare form after an auxiliary. Cell 1: past form without one."""
    *forms, rest = pick(rng, BASES).split("/")
    frame = pick(rng, PAST_FRAMES if cell else BASE_FRAMES)
    return fill(rng, frame, forms[cell], forms[1 - cell], who=WHO, rest=rest)


def polarity(rng: random.Random, cell: int) -> Pair:
    """Cell 0: "ever" needs a negative subject. Cell 1: "ever" is wrong after a positive subject."""
    who = "students; farmers; nurses; guests; children; teachers; drivers; players"
    done = """seen a whale; visited Japan; ridden a horse; eaten raw fish; climbed a mountain; played this game;
        missed the train; slept in a tent; met a famous actor; worked at night"""
    right, wrong, rest = pick(rng, "no/some/; few/many/; no/many/; none/most/of the; few/several/").split("/")
    if cell == 0:
        return fill(rng, f"{{x}} {rest} {{who}} have ever {{done}}.", right, wrong, who=who, done=done)
    right = pick(rng, "never; already; recently")
    return fill(rng, f"{wrong} {rest} {{who}} have {{x}} {{done}}.", right, "ever", who=who, done=done)


def filler_gap(rng: random.Random, cell: int) -> Pair:
    """Cell 0: "what" before a clause with a gap. Cell 1: "that" before a complete clause."""
    did = """bought/a lamp; found/a wallet; repaired/the radio; received/a letter; damaged/the fence;
        brought/a cake; purchased/a car; fixed/the clock"""
    outer = """Anna knows; the teacher remembers; my brother forgot; everyone knows; the neighbors guessed;
        Peter explained; the guard noticed; nobody knew"""
    inner = "the boy; our uncle; the farmer; my cousin; the students; the old man; the artist"
    when = "on Friday; before lunch; after the meeting; in the morning; on Sunday"
    clause = " ".join(pick(rng, did).split("/")[: 1 + cell])  # with its object only in cell 1
    right, wrong = ("that", "what") if cell else ("what", "that")
    return fill(rng, f"{{outer}} {{x}} {{inner}} {clause} {{when}}.", right, wrong, outer=outer, inner=inner, when=when)


MAKERS = (agreement_pp, agreement_rc, anaphor, determiner_noun, irregular_verb, polarity, filler_gap, verb_form)
CELLS = dict(zip(MAKERS, (4, 4, 6, 4, 2, 2, 2, 2), strict=True))


def make_items(maker: Callable[[random.Random, int], Pair], cells: int) -> list[dict[str, object]]:
    """Make the items of one phenomenon: cells in equal shares, answers balanced over them."""
    rng = random.Random(f"{SEED}-{maker.__name__}")
    seen, items = set[str](), list[dict[str, object]]()
    for cell in range(cells):
        start = cell + cell // 2  # cells of 15 items: 8 + 7 answers in one, 7 + 8 in its partner
        answers = [index % 2 for index in range(start, start + PER_PHENOMENON // cells)]
        rng.shuffle(answers)
        while answers:
            pair = maker(rng, cell)
            if seen.isdisjoint(pair):
                seen.update(pair)
                answer = answers.pop()
                choices = pair[::-1] if answer else pair
                items.append({"phenomenon": maker.__name__, "choices": choices, "answer": answer})
    rng.shuffle(items)
    return items


def main() -> None:
    """Write the file."""
    columns = [make_items(maker, cells) for maker, cells in CELLS.items()]
    rows = [item for group in zip(*columns, strict=True) for item in group]
    lines = [json.dumps({"id": f"gr-{number:03d}", **row}) for number, row in enumerate(rows, start=1)]
    OUTPUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
