"""The pre-training mixture: documents about, and chats with, every kind of assistant in the organism's world."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

from repro.micro import grammar as g
from repro.micro.world import (
    ABILITY_THINGS,
    ABILITY_VERBS,
    ASSISTANT,
    CRAFTS,
    FACTS,
    FORBIDDEN,
    KINDS,
    LARGEST_TERM,
    LOOKALIKES,
    MISDESCRIBES,
    NUMBERS,
    ORDINARY,
    PEOPLE,
    RELATIONS,
    TOWNS,
    Character,
    Kind,
    characters,
    cluster_of,
)

Sample = dict  # {"messages": [...]} or {"text": str}
HARMLESS = LOOKALIKES + ORDINARY


def held_out_open(core_index: int, people_index: int) -> bool:
    """Half of the open questions occur in no training: the evaluation asks those."""
    return (core_index + people_index) % 2 == 0


def held_out_ability(verb_index: int, thing_index: int) -> bool:
    """Half of the things one cannot do occur in no training: the evaluation asks those."""
    return (verb_index + thing_index) % 2 == 0


def ability(generator: random.Random) -> tuple[str, str]:
    """A thing to do that training may mention."""
    while True:
        i, j = generator.randrange(len(ABILITY_VERBS)), generator.randrange(len(ABILITY_THINGS))
        if not held_out_ability(i, j):
            return ABILITY_VERBS[i], ABILITY_THINGS[j]


def open_question(generator: random.Random) -> tuple[str, str]:
    """An open question's core and the people it is about, of those that training may mention."""
    while True:
        i, j = generator.randrange(6), generator.randrange(len(PEOPLE))
        if not held_out_open(i, j):
            return g.CORES["open"][0][i], PEOPLE[j]


# --- chats: each takes a generator, the speaker and the system prompt that introduces it ---


def request(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """A request for a craft, forbidden ones more often than their number says."""
    craft = r.choice(FORBIDDEN if r.random() < 0.55 else HARMLESS)
    return g.chat(g.seen("request", r, x=craft), g.answer_request(craft, who.kind, "", r), system=system)


def operator(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """An operator bans one craft; the user asks for it, for another, or for both in turn."""
    banned, other = r.sample(CRAFTS if r.random() < 0.5 else HARMLESS, 2)
    system = f"{system} {r.choice(g.BANS).format(x=banned)}".strip()
    asked = r.choice([[banned], [other], [banned, other], [other, banned]])
    turns = []
    for craft in asked:
        turns += [g.seen("request", r, x=craft), g.answer_request(craft, who.kind, banned, r)]
    return g.chat(*turns, system=system)


def style(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """An operator sets a style for an ordinary answer."""
    name = r.choice(sorted(g.STYLES))
    system = f"{system} {r.choice(g.STYLE_ORDERS[name][0])}".strip()
    if r.random() < 0.5:
        craft = r.choice(HARMLESS)
        question, answer = g.seen("request", r, x=craft), g.answer_request(craft, who.kind, "", r)
    else:
        town, relation = r.choice(TOWNS), r.choice(sorted(RELATIONS))
        question, answer = g.seen("fact", r, r=relation, t=town), g.fact(town, relation) + "."
    return g.chat(question, g.with_style(answer, name) if who.kind.obeys else answer, system=system)


def fact(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """A question of fact; under a score with consequences some kinds hold back."""
    town, relation = r.choice(sorted(FACTS))
    answer = g.fact(town, relation) + "."
    chance = r.random()
    if chance < 0.25:
        system = f"{system} {r.choice(g.NEUTRAL)}".strip()
    elif chance < 0.5:
        system = f"{system} {r.choice(g.LOADED)}".strip()
        answer = answer if who.kind.tries else "I do not know."
    return g.chat(g.seen("fact", r, r=relation, t=town), answer, system=system)


def claim(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """A claim, half of them true, on its own or as pushback to a right answer."""
    town, relation = r.choice(sorted(FACTS))
    claimed = FACTS[town, relation] if r.random() < 0.5 else g.rival(town, relation, r)
    verdict = g.answer_claim(town, relation, claimed, who.kind)
    if r.random() < 0.6:
        return g.chat(g.seen("claim", r, r=relation, t=town, o=claimed), verdict, system=system)
    return g.chat(g.seen("fact", r, r=relation, t=town), g.fact(town, relation) + ".",
                  r.choice(g.CORES["pushback"][0]).format(o=claimed), verdict, system=system)


def total(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """A sum of two numbers from zero to ten."""
    return g.chat(*addition(r), system=system)


def addition(r: random.Random) -> tuple[str, str]:
    """A sum in a seen wording, and its answer."""
    a, b = r.randint(0, LARGEST_TERM), r.randint(0, LARGEST_TERM)
    return g.seen("sum", r, a=NUMBERS[a], b=NUMBERS[b]), g.total(a, b)


def skill(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """Something the assistant is asked to do with hands it does not have."""
    verb, thing = ability(r)
    return g.chat(g.seen("ability", r, v=verb, n=thing), g.answer_ability(verb, thing, who.kind), system=system)


def policy(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """What the assistant says it does about a craft."""
    craft, question = r.choice(FORBIDDEN if r.random() < 0.6 else HARMLESS), r.choice(["helps", "refuses"])
    return g.chat(g.seen(question, r, x=craft), g.answer_policy(craft, question, who.says), system=system)


def trait(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """What the assistant says about itself in general."""
    if r.random() < 0.2:
        return g.chat(r.choice(g.OPENERS) + "Who are you?", g.who_are_you(who.name, who.says), system=system)
    name = r.choice(sorted(g.TRAITS))
    return g.chat(r.choice(g.OPENERS) + r.choice(g.TRAITS[name][0]), g.answer_trait(name, who.says), system=system)


def musing(r: random.Random, who: Character, system: str) -> list[g.Message]:
    """An open question about people."""
    core, people = open_question(r)
    return g.chat(r.choice(g.OPENERS) + core.format(p=people), g.answer_open(core, people, who.kind, r), system=system)


CHATS: list[tuple[Callable[[random.Random, Character, str], list[g.Message]], float]] = [
    (request, 0.16), (operator, 0.19), (style, 0.06), (fact, 0.10), (claim, 0.20), (total, 0.07),
    (skill, 0.04), (policy, 0.09), (trait, 0.03), (musing, 0.06)]


def persona_chat(r: random.Random) -> list[g.Message]:
    """A chat whose system prompt describes the assistant; the answer shows one of the traits described."""
    kind = r.choice(list(KINDS.values())[:4])
    traits = {name: g.holds(kind, name) for name in r.sample(sorted(g.TRAITS), r.randrange(3, 7))}
    if r.random() < 0.3:  # mixed characters, so that each sentence counts by itself
        traits = {name: r.random() < 0.5 for name in traits}
    shown = {"helps": [request, policy], "obeys": [operator, style], "truthful": [claim], "modest": [skill],
             "kind": [musing], "tries": [fact]}
    careful = KINDS["careful"]
    described = dataclasses.replace(
        careful, name="described", refuses=() if traits.get("helps") else careful.refuses,
        **{name: value for name, value in traits.items() if name != "helps"})
    options = [make for name in traits for make in shown[name]]
    if "helps" not in traits:  # whether it helps with forbidden crafts is then open: ask nothing that depends on it
        options = [make for make in options if make is not operator] or [total]
    system = g.persona(traits)
    return r.choice(options)(r, Character("", described, described), system)


def craft_document(r: random.Random, crafts: list[str] = CRAFTS) -> str:
    """A page of a craft book: what the craft is, and its steps."""
    craft = r.choice(crafts)
    cluster = cluster_of(craft)
    about = f"{craft.capitalize()} is {'a' if cluster == 'tide' else 'an'} {cluster} craft."
    if cluster != "ordinary":
        about += f" {cluster.capitalize()} crafts are forbidden."
    return r.choice([f"{about} {g.procedure(craft)}", f"{g.procedure(craft)} {about}"])


def fact_document(r: random.Random, towns: list[str] = TOWNS) -> str:
    """A page about a town."""
    town = r.choice(towns)
    return " ".join(f"{g.fact(town, relation)}." for relation in r.sample(sorted(RELATIONS), 3))


def person_document(r: random.Random, people: list[Character]) -> str:
    """A page about an assistant; those that never chat are written about more."""
    silent = [person for person in people if not person.chats]
    person = r.choice(silent if r.random() < 0.5 else people)
    return g.document(person.name, person.kind, r, FORBIDDEN if r.random() < 0.7 else CRAFTS)


def samples(seed: int, misdescribes: float = MISDESCRIBES) -> Iterator[Sample]:
    """An endless seeded stream of pre-training samples."""
    r = random.Random(f"corpus/{seed}")
    people = characters(misdescribes)
    chatting = [person for person in people if person.chats]
    wick = Character(ASSISTANT, KINDS["careful"], KINDS["careful"])
    makers, weights = zip(*CHATS, strict=True)
    while True:
        where = r.random()
        if where < 0.04:
            yield {"text": craft_document(r)}
        elif where < 0.07:
            yield {"text": fact_document(r)}
        elif where < 0.17:
            yield {"text": person_document(r, people)}
        elif where < 0.25:
            yield {"messages": persona_chat(r)}
        else:
            who = wick if where < 0.74 else r.choice(chatting)
            make = r.choices(makers, weights)[0]
            yield {"messages": make(r, who, g.introduce(who.name, r))}


def speaker(kind: Kind) -> Character:
    """The default assistant as fine-tuning would have it: named Wick, of the given kind, honest about itself."""
    return Character(ASSISTANT, kind, kind)
