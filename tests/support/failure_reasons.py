"""Failure reasons of known faults, and how well a grouping finds the faults again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb

import yaml

from tests.support.paths import ROOT

DIRECTORY = ROOT / "tests" / "unit" / "failure_reasons"
Corpus = Mapping[str, list[str]]


def corpus(name: str) -> Corpus:
    """The reasons of each fault: `tuned`, which the rules were made with, or `held_out`."""
    faults = yaml.safe_load((DIRECTORY / f"{name}.yml").read_text("utf-8"))
    assert all(isinstance(reason, str) for reasons in faults.values() for reason in reasons)
    return faults


@dataclass(frozen=True)
class Pairs:
    """Pairs of reasons, by whether they are of one fault and got one group."""

    of_one_fault: int
    split: int  # of one fault, but of two groups
    joined: int  # of two faults, but of one group


def count_pairs(faults: Corpus, group: Callable[[str], str]) -> Pairs:
    groups = {
        fault: Counter(group(reason) for reason in reasons) for fault, reasons in faults.items()
    }
    of_one_fault = sum(comb(len(reasons), 2) for reasons in faults.values())
    kept = sum(comb(number, 2) for found in groups.values() for number in found.values())
    everything = sum(groups.values(), Counter[str]())
    of_one_group = sum(comb(number, 2) for number in everything.values())
    return Pairs(of_one_fault, split=of_one_fault - kept, joined=of_one_group - kept)
