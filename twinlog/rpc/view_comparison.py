"""What two builds of a view differ in, and in words."""

from __future__ import annotations

from collections.abc import Mapping

from twinlog.log.view_builds import Comparison, RowDifference, Rows

EXAMPLES = 20


def in_words(comparison: Comparison) -> str:
    """What is different, on one line."""
    counts = {
        "changed": comparison.changed,
        "missing": comparison.missing,
        "added": comparison.added,
        "not settled": comparison.unsettled,
    }
    found = [f"{count} rows {what}" for what, count in counts.items() if count]
    for what, columns in (("added", comparison.columns_added), ("gone", comparison.columns_gone)):
        if columns:
            found.append(f"columns {what}: {', '.join(columns)}")
    if comparison.examples:
        found.append(f"such as {comparison.examples[0].key} ({comparison.examples[0].why})")
    return ", ".join(found)


def at_the_same(rows: Rows, pairs: Mapping[str, str]) -> bool:
    """Whether both builds stood at the same positions when they were compared."""
    stands = rows.checkpoints
    return all(stands.get(old, 0) == stands.get(new, 0) for old, new in pairs.items())


def comparison_of(first: Rows, differing: Mapping[str, str], *, settled: bool) -> Comparison:
    """What a comparison came to: the rows of the first look, as far as they still differ."""
    examples = [RowDifference(key, why) for key, why in [*differing.items()][:EXAMPLES]]
    columns = first.columns_added, first.columns_gone
    if sum(first.counts) > len(first.differing):  # too many to look at again
        return Comparison(first.compared, *first.counts, 0, examples, *columns)
    kinds = [*differing.values()]
    missing, added = kinds.count("missing"), kinds.count("added")
    if not settled:
        return Comparison(first.compared, 0, 0, 0, len(kinds), examples, *columns)
    return Comparison(first.compared, len(kinds) - missing - added, missing, added, 0, examples, *columns)
