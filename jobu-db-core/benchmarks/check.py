"""The regression guard: have the ratios become worse than those in ratios.json?

    make bench-check                        exit code 1 if one has
    make bench-check ARGS="--save"          write what was measured into ratios.json
    make bench-check ARGS="--tolerance 20"  allow 20 percent more; 15 is the default
    make bench-check ARGS="--figures data/bench/figures.json"  judge what was measured before

Takes the arguments of `make bench` too. Ratios are compared, never times. A ratio within its
target is well, however much better it has been; one that has long missed it must not get worse.
A person runs this, on a machine that does nothing else: `make test-all` does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from main import arguments, measure, write
from outcome import Figure, Outcome
from targets import Verdict, verdicts

RATIOS = Path(__file__).with_name("ratios.json")


def load(path: Path) -> list[Outcome]:
    """Read what main.py wrote."""
    return [
        Outcome(**{**one, "figures": tuple(Figure(**figure) for figure in one["figures"])})
        for one in json.loads(path.read_text(encoding="utf-8"))
    ]


def worse(judged: Sequence[Verdict], known: Mapping[str, float], percent: float) -> list[Verdict]:
    """Return those that miss their target and are worse than known by more than that."""
    more = 1 + percent / 100
    missed = [one for one in judged if not one.reached]
    return [one for one in missed if one.measured > max(one.limit, known.get(one.key, 0)) * more]


def save(judged: Sequence[Verdict], known: Mapping[str, float], path: Path) -> None:
    """Write what was measured over what is known."""
    now = {one.key: round(one.measured, 3) for one in judged}
    text = json.dumps({**known, **now}, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--save", action="store_true", help="write the ratios")
    parser.add_argument("--tolerance", type=float, default=15.0, metavar="PERCENT")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="measured before")
    parser.add_argument("--ratios", type=Path, default=RATIOS, metavar="FILE", help="known ones")
    given = parser.parse_args()
    outcomes = load(given.figures) if given.figures else measure(given)
    print(write(given, outcomes))
    judged = [verdict for outcome in outcomes for verdict in verdicts(outcome)]
    known = json.loads(given.ratios.read_text(encoding="utf-8")) if given.ratios.exists() else {}
    if given.save:
        save(judged, known, given.ratios)
        return
    found = worse(judged, known, given.tolerance)
    for one in found:
        before = known.get(one.key)
        print(f"worse: {one.key}: {one.measured:.2f}, target {one.limit:.2f}, was {before}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
