"""Made-up reviews of one sentence; yours would be read from a folder below `data_root`."""

import random

THINGS = ["screen", "battery", "keyboard", "camera", "sound", "price", "service", "delivery", "manual", "case"]
GOOD = ["great", "bright", "solid", "quick", "friendly", "excellent", "reliable", "quiet", "handy", "lovely"]
BAD = ["awful", "dim", "flimsy", "slow", "rude", "poor", "broken", "noisy", "useless", "ugly"]
OPENINGS = ["honestly", "after a week", "to be fair", "as expected", "i must say"]


def reviews(number: int, seed: int) -> tuple[list[str], list[int]]:
    """Sentences and whether each praises (1) or not (0): "not" turns a word over, what comes after "but" decides."""
    draw = random.Random(seed)
    texts, labels = [], []
    for _ in range(number):
        clause, is_good = _clause(draw)
        if draw.random() < 0.5:
            clause, is_good = _but(clause, is_good, draw)
        texts.append(f"{draw.choice(OPENINGS)} {clause}" if draw.random() < 0.3 else clause)
        labels.append(int(is_good))
    return texts, labels


def _clause(draw: random.Random) -> tuple[str, bool]:
    is_word_good, is_negated = draw.random() < 0.5, draw.random() < 0.3
    word = draw.choice(GOOD if is_word_good else BAD)
    return f"the {draw.choice(THINGS)} is {'not ' if is_negated else ''}{word}", is_word_good != is_negated


def _but(clause: str, is_good: bool, draw: random.Random) -> tuple[str, bool]:
    second, is_second_good = _clause(draw)
    return f"{clause} but {second}", is_second_good
