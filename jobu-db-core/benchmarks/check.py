"""The regression guard: have the ratios become worse than those in ratios.json?

    make bench-check ARGS="--pinned"                exit code 1 if one has
    make bench-check ARGS="--pinned --save"         write what was measured into ratios.json
    make bench-check ARGS="--pinned --tolerance 20" allow 20 percent more; 15 is the default
    make bench-check ARGS="--figures data/bench"    judge what was measured before

Takes the arguments of `make bench` too. Ratios are compared, never times, and with those of the
same way to measure: --pinned, --apart or --latency 1. What was measured in none of them is judged
as --pinned, but not saved. A ratio within its target is well, however much better it has been; one
that has long missed it must not get worse. A person runs this, on a machine that does nothing
else: `make test-all` does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from figures import PINNED, TITLES, Run, mode_of
from main import arguments, measure, write
from targets import Verdict, judged

RATIOS = Path(__file__).with_name("ratios.json")


def worse(verdicts: Sequence[Verdict], known: Mapping[str, float], percent: float) -> list[Verdict]:
    """Return those that miss their target and are worse than known by more than that."""
    more = 1 + percent / 100
    missed = [one for one in verdicts if not one.reached]
    return [one for one in missed if one.measured > max(one.limit, known.get(one.key, 0)) * more]


def save(run: Run, path: Path) -> None:
    """Write what was measured over what is known of the same way to measure."""
    known = load(path)
    known.setdefault(run.mode, {}).update({one.key: round(one.measured, 3) for one in judged(run)})
    text = json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, dict[str, float]]:
    """Return the known ratios of each way to measure."""
    known: dict[str, dict[str, float]] = {}
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else known


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--save", action="store_true", help="write the ratios")
    parser.add_argument("--tolerance", type=float, default=15.0, metavar="PERCENT")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="measured before")
    parser.add_argument("--ratios", type=Path, default=RATIOS, metavar="FILE", help="known ones")
    given = parser.parse_args()
    before = Run.load(given.figures) if given.figures else None
    mode, quick = (before.mode, before.quick) if before else (mode_of(given), given.quick)
    if given.save and (quick or mode not in TITLES):
        parser.error("only a whole run with --pinned, --apart or --latency 1 can be saved")
    run = before or measure(given)
    print(write(run, given.figures or given.into))
    if given.save:
        save(run, given.ratios)
        return
    known = load(given.ratios).get(PINNED if mode == "free" else mode, {})
    found = worse(judged(run), known, given.tolerance)
    for one in found:
        before = known.get(one.key)
        print(f"worse: {one.key}: {one.measured:.2f}, target {one.limit:.2f}, was {before}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
