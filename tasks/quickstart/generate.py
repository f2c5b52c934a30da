"""Write the quickstart data: a harbour logbook in which the context decides the type of a name, not the word.

    python tasks/quickstart/generate.py [--seed 11] [--out DIR]

Every sentence comes from the grammar below, one rule or sentence frame a line. ``(a|b|)`` is one of the
alternatives, ``$rule`` one production of a rule or one name, and a word of ``SLOTS`` an entity mention.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

SPLIT_SIZES = {"train": 700, "validation": 250}
MIN_TOKENS, MAX_TOKENS = 4, 40
# A split draws a name from its own lists, or with this probability from the lists of both splits.
SHARED_NAME_SHARE = 0.35
# So often a frame of the validation split is one that the training split never uses.
HELD_OUT_FRAME_SHARE = 0.2
# In so many sentences several entities bear one name, whatever their type: Morgan sails the Morgan to Morgan.
NAMESAKE_SHARE = 0.2


def read_rules(text: str) -> dict[str, str]:
    """Map the name of each rule to its right side. A line that starts with ``|`` continues the rule above."""
    lines = re.sub(r"\n\s*\|", "|", text).strip().splitlines()
    return dict(line.split(": ", 1) for line in lines)


# Words of names. A "core" is surname, vessel, place and company alike: a shared one, or a stem with ending.
# A "noun" is also an ordinary word.
NAMES = read_rules("""
shared core: Morgan|Lorne|Ashby|May|Hartley|Selby|Marlow|Preston|Carrow|Winter|Sunday|Church
shared first: May|June|April|Grace|Rose|Tom|Ellen|Jack|Clara|August
shared noun: Hope|Heron|Star|Rose|Anchor|Patience|Lantern|March
train stem: Bar|Bram|Bran|Cald|Clay|Dal|Den|East|Far|Fen|Graf|Hal|Hay|Hol|Kirk|Lang|Lud|Mid|Nor|Ox|Pen|Pres
  |Rams|Red|Rock|Sax|Stan|Thorn|Tid|Wad|Wal|Whit|Wood
train first: Alice|Ben|Bruno|Cora|Daniel|Edith|Farid|Greta|Hugo|Ivan|Joan|Karim|Lena|Marcus|Nadia|Oscar|Paula
  |Ralph|Samir|Tess|Viktor|Wanda
train noun: Albatross|Arrow|Badger|Beacon|Comet|Compass|Dolphin|Falcon|Harvest|Lily|Meadow|Otter|Pearl|Raven
  |Robin|Sparrow|Thistle|Willow
validation stem: Ald|Bex|Bir|Brock|Cran|Dun|El|Gar|Hex|Hunt|Kel|Lin|Mel|Nev|Pem|Rad|Shel|Stock|Sut|Wen|Wil
validation first: Agnes|Boris|Celia|David|Emil|Fiona|Gus|Hannah|Ines|Jonas|Kate|Leo|Miriam|Noah|Olga|Peter
validation noun: Bramble|Cricket|Curlew|Diamond|Ember|Fox|Gannet|Juniper|Magpie|Needle|Plough|Puffin|Seal
ending: by|combe|dale|field|ford|ham|hurst|land|ley|more|ton|well|wick|worth
""")

# A slot is what a mention looks like; repeated forms are more frequent. Two types have several slots.
SLOTS = read_rules("""
PERSON: $core|$core|$first|$first|$first $core|$first $core|$first $core|$initial $core|$first van der $core
SURNAME: $core
VESSEL: $core|$core|$core|$first $core|$noun|$noun|$noun|(Little|Sweet) $first|(Grey|Golden) $noun
  |(Pride|Spirit) of $core|$core (Star|Express)
PLACE: $core|$core|$core|$core|$noun|(Port|Cape|Upper) $core|Isle of $core|Saint $first|$noun Creek
  |$core (Bay|Quay|Bridge)
COMPANY: $core|$core|$core|$noun|$core & (Sons|Partners|$core)|$first $core|Bank of $core
  |$core (Line|Freight|Shipping|Rope Works|Marine Insurance)|$noun (Freight|Brothers)
  |Port $core Towage Company
DAY: $weekday|$weekday|$weekday $part|$day $month|$month $day|the $nth of $month|$weekday the $nth
HOUR: $clock|half past $number|(ten|five|twenty) (to|past) $number|(noon|midnight)
  |$number (o'clock|in the $part)|$number
MONTH: $month|$month|(early|late) $month|$month $year|the $week week of $month
PAST: yesterday|yesterday $part|last $weekday|last $month|$number (days|weeks|months) ago
FUTURE: tonight|tomorrow|tomorrow $part|next $weekday|next $month
FIRST: $first
""")
PERSON_SLOTS = ("SURNAME", "FIRST")
TIME_SLOTS = ("DAY", "HOUR", "MONTH", "PAST", "FUTURE")
RULES = read_rules("""
weekday: Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday
month: January|February|March|April|May|June|July|August|September|October|November|December
week: first|second|last
part: morning|evening|afternoon
number: two|three|four|five|six|seven|eight|nine|ten|eleven
tally: two|four|five|six|seven|nine|eleven|12|20|24|36|48|60
count: $tally $goods|$tally $goods|$tally $goods|$tally $ordinary pins
goods: (crates|sacks|tins) of (lemons|flour|Greek olives|Irish butter|paint|second grade coffee)
  |(barrels|drums) of (Diesel|tar|March beer|salt fish)|coils of rope|English saws|spare lamps
who: PERSON|PERSON|PERSON|PERSON|PERSON|PERSON|PERSON from the COMPANY office|our friend PERSON
ship: the VESSEL|the VESSEL|the VESSEL|the VESSEL|VESSEL|the VESSEL that COMPANY own|the (ketch|tug) VESSEL
town: PLACE|PLACE|PLACE|PLACE|PLACE|PLACE just below PLACE|nearby PLACE
firm: COMPANY|COMPANY|COMPANY|COMPANY|COMPANY with PERSON as chairman|the insurers COMPANY
then: on DAY|on DAY|at HOUR|at HOUR|PAST|PAST|in MONTH|on DAY at HOUR|before DAY
due: on DAY|on DAY|at HOUR|at HOUR|FUTURE|FUTURE|in MONTH|on DAY at HOUR|before DAY
role: second mate|cook|pilot|harbour master|Customs officer|diver|ship 's doctor
title: Captain|Mr|Mrs|Doctor|Skipper|poor
wait: in the fog|without a word|as usual|against all advice|for the third time|in a hurry
open: Note :|Log , DAY :|Log , HOUR :|as far as I know ,|P.S.|after a (quiet|rough) night ,
  |according to $title SURNAME ,|Reminder :|good news :|the mayor of PLACE writes that|I hear that
  |FIRST says that|to be clear ,|with Sea State 4 and no radio ,|if the VHF log is right ,
join: , and|, but|; meanwhile|, so|because|although|, while|and|;|--
close: (or so they say|I think|we hope|weather permitting)|, over|-- please pass it on|, says PERSON
  |, which suits us|[ see Form B ]|-- written on DAY|, PERSON told me PAST
""") | {
    "day": "|".join(str(day) for day in range(1, 29)),
    "nth": "|".join(("1st", "2nd", "3rd", "second", "third", "tenth", *(f"{day}th" for day in range(4, 21)))),
    "year": "|".join(str(year) for year in range(1987, 2026)),
    "clock": "|".join(f"{hour:02}:{minute:02}" for hour in range(24) for minute in range(0, 60, 5)),
    "initial": "|".join(f"{letter}." for letter in "ABCDEFGHJKLMNPRSTW"),
}

# Clauses, which may be joined. Neighbours differ in few words: those words decide the type of a name.
CLAUSES = """
$who (signed|initialled) the (crew list|delivery note) (|$then)
$who has (a fever|two broken fingers|a bad back) and cannot (stand watch|lift $count)
PERSON asked (us|the cook|PERSON) (for more tea|to write this down|whether the pump was fixed)
$title SURNAME (laughed|shook hands with us|would not hear of it|went to bed early)
the $role , PERSON , (slept through the alarm|forgot the keys|cannot swim)
we (borrowed|bought) $count from the (SURNAME family|VESSEL crew|COMPANY warehouse|PLACE market)
PERSON and PERSON (argued over cards|shared a cabin|sang until HOUR)
$who (burned the porridge $wait|owes me (a dinner|an apology|a pair of boots))
PERSON 's (brother|knee|handwriting) is getting worse
FIRST , who (speaks Greek|used to teach) , will (read|copy) the letter (|FUTURE)
PERSON (joined|quit|wants a job with) $firm (|in MONTH)
$who took the wheel of $ship $wait
PERSON (walked home from|walked all the way from|was born in|never left) $town
$role PERSON wants better pay from $firm
PERSON rowed out to $ship with $count
we waited for ($who to finish (the soup|a third coffee)|$ship to clear the breakwater)
we waited for ($firm to answer our tender|the fog over $town to lift)
nobody (trusts PERSON with knives|trusts $ship in a swell|lives in $town|buys shares in $firm) any more
$ship (docked|dropped anchor|ran aground) (at|off) $town (|$then)
the hull of $ship (leaks|was scraped|needs paint)
we (towed|boarded|repainted) $ship (|$then)
$ship (is (taking on|unloading) $count|sits (low in the water|on the slipway) with no mast)
$ship (lost her (rudder|mainmast|best anchor) (off PLACE|in the gale)|radioed for a tug (|at HOUR))
$firm have (chartered $ship|scrapped $ship|sold $ship (|to COMPANY))
the board of $firm (sacked|promoted) $who (|$then)
$firm closed their office in $town (|$then)
there are $count in the (hold of $ship|shops of $town)
$ship sailed for $town (|$then) under $title SURNAME
$ship , outbound with $count , (overtook|nearly rammed) $ship
(half of $town is under water|the road to $town is (flooded|closed|full of sheep))
it (rained|snowed|hailed) in $town (all night|$then)
$town has (no crane|two bakeries|a new lighthouse|a mayor called SURNAME)
the (market in $town (opens|closes)|tide at $town turns) at HOUR
we (anchored off $town (|alongside $ship)|passed the lights of $town at HOUR)
PLACE is $number miles by (road|rail) from PLACE
the bus from $town (is full|was late $then|broke down (|PAST))
fuel is cheaper in PLACE than in PLACE
$firm (raised|doubled|cut) their (rates|fees) (|in MONTH)
our contract with $firm (ends|runs out) (on DAY|in MONTH|FUTURE)
$firm have (hired|laid off) $number (riggers|clerks) (|in PLACE)
the lawyers at $firm (want|lost) our papers
COMPANY (merged with|bought out|undercut) COMPANY (|in MONTH)
the COMPANY (office|invoice|agent) is (a mess|wrong about $count)
the VESSEL (crew|lifeboat|anchor chain) is (a mess|missing $count)
the PLACE (ferry landing|mayor|town hall) is (a mess|short of $count)
we insure $ship with $firm
the firms COMPANY and COMPANY both bid for the (dredging|mail) contract
the directors of $firm (resigned|met in $town) (|$then)
$firm went bankrupt (|$then) and owe us for $count
(Customs|the dentist|the pilot|the night shift) (will (be here|come aboard) $due|left $then|came $then)
(nobody may use the crane between HOUR and HOUR|we have been stuck here since (DAY|MONTH))
high water was at HOUR , $number minutes late
we made $number knots and sold $count
you may (keep|sell) the $ordinary (lamp|box|hat) and $count
we hope the $ordinary on the (sign|flag|bell) (stays|dries) $wait
the second (boat|crew) must march $number miles in their Sunday best
""".strip().splitlines()
# Questions, lists, calls and notes.
STANDALONE = """
did $who ever find (the key|those glasses|the other boot) ?
crew list : PERSON , PERSON , PERSON and PERSON .
in dry dock : VESSEL , VESSEL and VESSEL .
unpaid invoices : COMPANY , COMPANY and COMPANY .
DAY , HOUR : wind backing , $ship under full sail (off PLACE|to port) .
VESSEL , VESSEL , this is VESSEL , do you read me ?
dear (PERSON|Sir) , (the parcel with $count is still in $town|may I keep $count) ? Yours , FIRST
could $firm send their invoice again (|$due) ?
ETA PLACE HOUR , ETD DAY .
who left $count in the bow of $ship ?
(ports of call : PLACE , PLACE , PLACE|route : from PLACE to PLACE by way of PLACE) .
(thank you|hello) , FIRST , can you meet (me|$who) $due ?
To Do : ring COMPANY about the policy , fuel $ship , feed PERSON 's cat .
Found : one glove , one Bible , $count . Ask the $role .
Rule $number : no (whistling|smoking) near the $ordinary cage !
how many (lifeboats does $ship|sisters does $who) have ?
how many (clerks|trucks) do $firm employ ?
(is there a (bakery|doctor)|how many (churches|wells) are there) in $town ?
""".strip().splitlines()
# Only the validation split uses these.
HELD_OUT_CLAUSES = """
$who cut a thumb while (gutting fish|opening $count)
$title SURNAME (whispered|told the $role) that $ship would sink
the $role blames $who for the broken mirror
PERSON sends greetings from $town
the deck of $ship was slippery (|$then)
$ship capsized (near|within sight of) $town
the helmsman steered $ship through the ice (|PAST)
the streets of $town were empty (|$then)
my cousin keeps goats in the hills above $town
we hiked from PLACE to PLACE with $count
$firm pay their staff late (|again)
the auditors found $count missing from the books of $firm
COMPANY have won the contract to dredge the mouth of PLACE harbour
the meeting was moved to DAY
the $ordinary pie must be eaten before HOUR
""".strip().splitlines()
HELD_OUT_STANDALONE = """
has anyone told PERSON that COMPANY have refused the claim ?
passengers : PERSON , PERSON and PERSON , all bound for PLACE .
why is $ship still tied up at PLACE ?
Wanted : one $role , no later than DAY , to sail on $ship .
suppliers : COMPANY , COMPANY , COMPANY .
May we (keep|sell) the $ordinary and $count ? Not OK .
""".strip().splitlines()


@final
@dataclass(frozen=True)
class Sentence:
    """One sentence. ``tags`` are IOB2, one per token; ``frames`` are the grammar lines it was made from."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    frames: tuple[str, ...]


@final
class Writer:
    """Draws sentences from the grammar, with the names and frames of one split."""

    def __init__(self, split: str, seed: int) -> None:
        self._random = random.Random(f"{seed} {split}")
        self._split = split
        self._held_out_frame_share = HELD_OUT_FRAME_SHARE if split == "validation" else 0.0
        self._namesake: str | None = None
        self._mentions: set[tuple[str, ...]] = set()

    def sentence(self) -> Sentence:
        """Draw one sentence, of any length."""
        self._namesake = self._name("core") if self._chance(NAMESAKE_SHARE) else None
        self._mentions.clear()
        if self._chance(0.28):
            frames = (self._frame(STANDALONE, HELD_OUT_STANDALONE),)
            text = frames[0]
        else:
            count = 2 if self._chance(0.4) else 1
            frames = tuple(self._frame(CLAUSES, HELD_OUT_CLAUSES) for _ in range(count))
            opening = "$open " if self._chance(0.3) else ""
            closing = " $close" if self._chance(0.2) else ""
            text = f"{opening}{' $join '.join(frames)}{closing} ."
        tagged = self._expand(text)
        tokens = self._recase([token for token, _ in tagged])
        return Sentence(tuple(tokens), tuple(tag for _, tag in tagged), frames)

    def _frame(self, shared: Sequence[str], held_out: Sequence[str]) -> str:
        return self._pick(held_out if self._chance(self._held_out_frame_share) else shared)

    def _expand(self, text: str) -> list[tuple[str, str]]:
        while innermost := re.search(r"\(([^()]*)\)", text):
            text = text[: innermost.start()] + self._pick(innermost[1].split("|")) + text[innermost.end() :]
        tagged: list[tuple[str, str]] = []
        for word in text.split():
            if word in SLOTS:
                tagged += self._mention(word)
            elif word == "$ordinary":
                tagged.append((self._name("noun").lower(), "O"))
            elif word == "$core" and self._namesake is not None and self._chance(0.6):
                tagged.append((self._namesake, "O"))
            elif word in ("$core", "$first", "$noun"):
                tagged.append((self._name(word[1:]), "O"))
            elif word.startswith("$"):
                tagged += self._expand(f"({RULES[word[1:]]})")
            else:
                tagged.append((word, "O"))
        return tagged

    def _mention(self, slot: str) -> list[tuple[str, str]]:
        entity_type = "PERSON" if slot in PERSON_SLOTS else "TIME" if slot in TIME_SLOTS else slot
        while True:
            words = [word for word, _ in self._expand(f"({SLOTS[slot]})")]
            if (entity_type, *words) not in self._mentions:  # nobody sails from Morgan to Morgan
                self._mentions.add((entity_type, *words))
                return [(word, f"{'I' if i else 'B'}-{entity_type}") for i, word in enumerate(words)]

    def _name(self, kind: str) -> str:
        if self._chance(SHARED_NAME_SHARE):
            return self._pick(NAMES[f"shared {kind}"].split("|"))
        if kind == "core":
            stems, endings = NAMES[f"{self._split} stem"].split("|"), NAMES["ending"].split("|")
            return self._pick(stems) + self._pick(endings)
        return self._pick(NAMES[f"{self._split} {kind}"].split("|"))

    def _recase(self, tokens: list[str]) -> list[str]:
        style = self._random.random()
        if style < 0.15:
            return [token.lower() for token in tokens]
        if style < 0.23:
            return [token.upper() for token in tokens]
        raised = len(tokens) if style < 0.28 else 1
        return [token[:1].upper() + token[1:] for token in tokens[:raised]] + tokens[raised:]

    # Only Random.random() is promised to give the same numbers in every Python version.
    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self._random.random() * len(options))]


def make_splits(seed: int) -> dict[str, list[Sentence]]:
    """Draw both splits. No sentence occurs twice, not even in another case."""
    taken: set[str] = set()
    splits: dict[str, list[Sentence]] = {}
    for split, size in SPLIT_SIZES.items():
        writer = Writer(split, seed)
        sentences: list[Sentence] = []
        while len(sentences) < size:
            sentence = writer.sentence()
            key = " ".join(sentence.tokens).lower()
            if MIN_TOKENS <= len(sentence.tokens) <= MAX_TOKENS and key not in taken:
                taken.add(key)
                sentences.append(sentence)
        splits[split] = sentences
    return splits


def to_jsonl(split: str, sentences: Iterable[Sentence]) -> str:
    """Render a split: one JSON object a line, with the keys ``id``, ``tokens`` and ``tags``."""
    return "".join(
        json.dumps({"id": f"{split}-{number:04}", "tokens": sentence.tokens, "tags": sentence.tags}) + "\n"
        for number, sentence in enumerate(sentences, start=1)
    )


def main() -> None:
    """Write ``train.jsonl`` and ``validation.jsonl``."""
    parser = argparse.ArgumentParser(description="Write the quickstart data.")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, sentences in make_splits(arguments.seed).items():
        path = arguments.out / f"{split}.jsonl"
        path.write_text(to_jsonl(split, sentences), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
