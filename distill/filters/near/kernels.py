"""The compiled inner loop of near-duplicate search: text to decision, row by row.

For each row: shingle its folded text, take the minimum of every permutation, cut the minima into band tags, look the
tags up among the kept texts, and verify what is found on the true Jaccard similarity of the shingle sets. The row
joins the index before the next one is looked at, so the result cannot depend on how rows are cut into batches.

Shingles are known by 64-bit polynomial hashes: a false equality needs billions of texts. A shingle set is a small
open-addressing table whose slots carry the number of the set they belong to, so that it is never cleared. Sources are
those of `signature.py`.
"""

# Numbers here are machine words, which Python's types do not know.
# pyright: reportArgumentType=false, reportReturnType=false
from __future__ import annotations

import numpy as np

from distill.filters.near.arrays import I64, U8, U32, U64, Index, Out, Rows, Rules, Scratch
from distill.filters.near.jit import inline, kernel, prefetch, widest

__all__ = [
    "ADD", "CHAR", "COMPARE", "DECIDE", "FEW", "LINE", "WORD",
    "common_table", "judge", "minima", "shingle", "spread", "waiting",
]  # fmt: skip

CHAR, WORD = 0, 1
LINE = 8
"""Slots of a cache line."""
FEW = 4
"""Texts of a small group; a large one has room for as many as may share a tag."""
COMPARE, DECIDE, ADD = 0, 1, 2  # only compare; compare, and add what matches nothing; add everything

_CHAR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication is a bijection, no information is lost
_WORD = np.uint64(0xD1342543DE82EF95)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_ONE, _HALF, _LOW = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
_BIT, _SPACE = np.uint32(0x9E3779B1), 32
_LANES = 32  # values that the processor compares at once, at most
_HEAD = 6  # slots before the first line: large arrays begin 16 bytes behind a page
_OVER = 64  # lines behind those in which a search begins
_GROUP, _LARGE = 1 << 31, 1 << 30  # what a slot says of the group behind its tag


@kernel
def judge(rows: Rows, rules: Rules, index: Index, scratch: Scratch, out: Out, mode: int, first: int) -> int:
    """Decide the rows from `first` on in turn. With DECIDE a row without a match joins the index before the next is
    looked at. Returns the row before which it stopped: the number of rows, unless there was no more room for groups.
    """
    kept, total, ahead = index.counts[0], len(rows.begins), len(scratch.tags)
    room = 2 * ahead * rules.bands * (rules.cap + FEW)  # that groups need at most
    while first < total and (mode == COMPARE or index.counts[2] + room <= len(index.groups)):
        last = min(first + ahead, total)
        for row in range(first, last):
            _sketch(rows, row, _unit(rows, row, rules), rules, scratch, row - first)
            _fetch(index.slots, scratch.tags[row - first])
        for row in range(first, last):
            unit, size, sketch = _unit(rows, row, rules), rows.ends[row] - rows.begins[row], row - first
            out.match[row] = out.number[row] = -1
            if not size:
                continue
            candidates = _look_up(index, rules, scratch, sketch)
            if candidates and mode != ADD:
                _verify(rows, row, unit, candidates, rules, index, scratch, out)
            if out.match[row] >= 0 or mode == COMPARE:
                continue
            begin = index.ends[kept]
            source, target = rows.data[rows.begins[row] : rows.ends[row]], index.data[begin : begin + size]
            for i in range(size):
                target[i] = source[i]
            index.ends[kept + 1] = begin + size
            index.bits[kept, 0], index.bits[kept, 1] = scratch.bits[sketch, 0], scratch.bits[sketch, 1]
            _enter(index, rules, scratch, sketch, kept)
            # A similar text is longer or shorter by the threshold at most: near the border it must be found in both
            # units.
            words = rows.words[row]
            if rules.unit < 0 and rules.long * rules.threshold <= words <= rules.long / rules.threshold:
                _sketch(rows, row, WORD - unit, rules, scratch, sketch)
                _look_up(index, rules, scratch, sketch)
                _enter(index, rules, scratch, sketch, kept)
            out.number[row], kept = kept, kept + 1
        first = last
    index.counts[0] = kept
    return first


@inline
def _unit(rows: Rows, row: int, rules: Rules) -> int:
    return (WORD if rows.words[row] > rules.long else CHAR) if rules.unit < 0 else rules.unit


@inline
def _verify(
    rows: Rows, row: int, unit: int, total: int, rules: Rules, index: Index, scratch: Scratch, out: Out
) -> None:
    """Find the first of `total` candidates that is similar enough."""
    size = rules.sizes[unit]
    count = shingle(  # again: those of later rows were made since
        rows.data, rows.begins[row], rows.ends[row], unit, size, rules.common,
        scratch.points, scratch.places, scratch.hashes, scratch.values,
    )  # fmt: skip
    own = _own_set(scratch, count)
    own_set = scratch.counter[0]
    for place in range(total):
        number = scratch.candidates[place]
        begin, end = index.ends[number], index.ends[number + 1]
        threshold = rules.threshold
        if rows.words[row] < rules.short and _words(index.data[begin:end], rules.short) < rules.short:
            threshold = rules.short_threshold
        other = shingle(
            index.data, begin, end, unit, size, rules.common,
            scratch.points, scratch.other_places, scratch.other, scratch.other_values,
        )  # fmt: skip
        similar = _similarity(scratch, count, own, own_set, other, threshold)
        if similar >= threshold:
            out.match[row], out.similarity[row] = number, similar
            _shared_run(scratch, count, own_set, size, unit, rows.ends[row], out.run[row])
            return


@inline
def _words(text: U8, most: int) -> int:
    """Words of a folded text, counted as far as `most`."""
    words, at = 1, 0
    while at < len(text) and words < most:
        words, at = words + (text[at] == _SPACE), at + 1
    return words


@inline
def _mixed(hash_: np.uint64) -> np.uint32:
    """The upper half, through the MurmurHash3 finaliser: what datasketch makes of a 32-bit hash."""
    value = np.uint32(hash_ >> _HALF)
    value = np.uint32(value ^ np.uint32(value >> np.uint32(16)))
    value = np.uint32(value * np.uint32(0x85EBCA6B))
    value = np.uint32(value ^ np.uint32(value >> np.uint32(13)))
    value = np.uint32(value * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ np.uint32(value >> np.uint32(16)))


@inline
def _common_place(common: U64, key: np.uint64) -> int:
    """Where a hash stands in the table, or the free place where it would."""
    place = np.int64(_mixed(key)) & (len(common) - 1)
    while common[place] and common[place] != key:
        place = (place + 1) & (len(common) - 1)
    return place


@kernel
def common_table(keys: U64, table: U64) -> None:
    """Enter shingles into a table of zeros, a power of two and larger than they are."""
    for key in keys:
        table[_common_place(table, key)] = key


@inline
def _replace_common(common: U64, hashes: U64, total: int) -> None:
    first = 0
    while first < total and common[_common_place(common, hashes[first])]:
        first += 1
    if first < total:
        for i in range(total):
            if common[_common_place(common, hashes[i])]:
                hashes[i] = hashes[first]


@kernel
def shingle(
    data: U8, begin: int, end: int, unit: int, size: int, common: U64,
    points: U64, places: I64, hashes: U64, values: U32,
) -> int:  # fmt: skip
    """Hashes of the runs of `size` characters or words, in order, and their finalised upper halves. A text shorter
    than that is one shingle, an empty one has none. Common shingles are given as repeats of the first that is not
    common, which changes neither the set nor a minimum; where all are common, all count. Returns how many there are;
    `places` has the first byte of every character or word, and `end` behind the last.
    """
    count, at = 0, begin
    if unit == CHAR:
        text, seen = data[begin:end], np.uint8(0)
        for i in range(len(text)):
            seen |= text[i]
            points[i] = text[i]
            places[i] = begin + i
        if seen < 128:
            count, at = len(text), end
        while at < end:
            byte = np.uint64(data[at])
            places[count] = at
            if byte < 128:
                points[count] = byte
                at += 1
            else:
                more = 1 if byte < 0xE0 else (2 if byte < 0xF0 else 3)
                point = byte & np.uint64(0x3F >> more)
                for step in range(1, more + 1):
                    point = (point << np.uint64(6)) | (np.uint64(data[at + step]) & np.uint64(0x3F))
                points[count] = point
                at += more + 1
            count += 1
    else:
        while at < end:
            places[count] = at
            word = np.uint64(0)
            while at < end and data[at] != _SPACE:
                word = (word + np.uint64(data[at])) * _CHAR
                at += 1
            points[count] = word ^ (word >> _HALF)
            count += 1
            at += 1
    places[count] = end
    if not count:
        return 0
    total, factor = max(count - size + 1, 1), _CHAR if unit == CHAR else _WORD
    for i in range(count, size):  # zeros complete the shingle of a short text
        points[i], places[i + 1] = 0, end
    for i in range(total):
        hashes[i] = points[i]
    for step in range(1, size - 1, 2):  # two at once, for half the way through the memory
        next_, after = points[step : step + total], points[step + 1 : step + 1 + total]
        for i in range(total):
            hashes[i] = (hashes[i] * factor + next_[i]) * factor + after[i]
    if size % 2 == 0:
        last = points[size - 1 : size - 1 + total]
        for i in range(total):
            hashes[i] = hashes[i] * factor + last[i]
    if len(common):
        _replace_common(common, hashes, total)
    for i in range(total):
        values[i] = _mixed(hashes[i])
    for i in range(total, total + -total % _LANES):  # repeats change no minimum, and no odd rest is left to loop over
        values[i] = values[0]
    return total


@kernel
def minima(values: U32, count: int, a: U32, b: U32, signature: U32) -> None:
    """The least value of every permutation; all ones for no values."""
    widest()
    for p in range(len(a)):
        factor, summand, least = a[p], b[p], np.uint32(0xFFFFFFFF)
        for i in range(count + -count % _LANES):
            value = np.uint32(np.uint32(values[i] * factor) + summand)
            least = value if value < least else least
        signature[p] = least


@inline
def _tags(signature: U32, bands: int, salt: int, tags: U64) -> None:
    """One 32-bit tag a band. Bands and units differ by what they start from."""
    rows = len(signature) // bands
    for band in range(bands):
        tag = np.uint64(1 + band + salt * bands)
        for row in range(rows):
            tag = (tag ^ np.uint64(signature[band * rows + row])) * _MIX
            tag ^= tag >> _HALF
        tags[band] = max((tag * _MIX) >> _HALF, _ONE)  # 0 is no tag: a free slot is 0


@inline
def _ones(bits: np.uint64) -> int:
    bits = bits - ((bits >> _ONE) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@inline
def _sketch(rows: Rows, row: int, unit: int, rules: Rules, scratch: Scratch, sketch: int) -> None:
    """Tags and bits of one row in one unit."""
    count = shingle(
        rows.data, rows.begins[row], rows.ends[row], unit, rules.sizes[unit], rules.common,
        scratch.points, scratch.places, scratch.hashes, scratch.values,
    )  # fmt: skip
    minima(scratch.values, count, rules.a, rules.b, scratch.signature)
    _tags(scratch.signature, rules.bands, unit, scratch.tags[sketch])
    low, high = np.uint64(0), np.uint64(unit) << np.uint64(63)
    for p in range(min(127, len(scratch.signature))):
        bit = np.uint64(np.uint32(scratch.signature[p] * _BIT) >> np.uint32(31)) << np.uint64(p % 64)
        low, high = (low | bit, high) if p < 64 else (low, high | bit)
    scratch.bits[sketch, 0], scratch.bits[sketch, 1] = low, high


@inline
def _lines(slots: int) -> int:
    """Lines of a table of so many slots in which a tag's search may begin. The last lines take what these have no
    room for."""
    return max((slots - _HEAD) // LINE - _OVER, 1)


@inline
def _home(tag: np.uint64, lines: int) -> int:
    """Line where a tag's search begins: lines are in the order of their tags, so that a table can grow in place."""
    return np.int64((tag * np.uint64(lines)) >> _HALF)


@inline
def _fetch(slots: U64, tags: U64) -> None:
    """Have the memory bring what `_look_up` will read."""
    among = _lines(len(slots))
    for band in range(len(tags)):
        prefetch(slots, _HEAD + _home(tags[band], among) * LINE)


@inline
def _look_up(index: Index, rules: Rules, scratch: Scratch, sketch: int) -> int:
    """Candidates worth reading, distinct and in the order in which they were kept. `scratch.spots` says where each tag
    stands, or, inverted, where it would."""
    slots, groups, hits, spots = index.slots, index.groups, scratch.hits, scratch.spots
    among, count = _lines(len(slots)), 0
    for band in range(rules.bands):
        tag = scratch.tags[sketch, band]
        place, taken, found = _HEAD + _home(tag, among) * LINE, LINE, -1
        while taken == LINE and found < 0 and place + LINE <= len(slots):
            taken = 0
            for i in range(LINE):
                slot = slots[place + i]
                taken += slot != 0
                found = place + i if slot >> _HALF == tag else found
            place += LINE
        spots[band] = found if found >= 0 else ~(place - LINE + taken)
    for band in range(rules.bands):
        if spots[band] < 0:
            continue
        known = np.int64(slots[spots[band]] & _LOW)
        if known < _GROUP:
            hits[count] = known - 1
            count += 1
            continue
        at, end = _span(known, rules.cap)
        while at < end and groups[at]:
            hits[count] = np.int64(groups[at]) - 1
            at, count = at + 1, count + 1
    low, high, near = scratch.bits[sketch, 0], scratch.bits[sketch, 1], 0
    for i in range(count):  # without a branch, so that the memory answers many at once
        number = hits[i]
        other_low, other_high = index.bits[number, 0] ^ low, index.bits[number, 1] ^ high
        hits[near] = number
        near += (other_high >> np.uint64(63) != 0) | (128 - _ones(other_low) - _ones(other_high) >= rules.agree)
    total = 0
    for i in range(near):
        total = _collect(scratch.candidates, total, hits[i])
    return total


@inline
def _span(known: int, cap: int) -> tuple[int, int]:
    """Where a group begins, and where it ends when full."""
    begin = (known & (_LARGE - 1)) * FEW
    return begin, begin + (cap if known & _LARGE else min(cap, FEW))


@inline
def _collect(candidates: I64, total: int, number: int) -> int:
    """Put a number in its place, unless it is there; how many there are."""
    at = total
    while at > 0 and candidates[at - 1] > number:
        at -= 1
    if at > 0 and candidates[at - 1] == number:
        return total
    for i in range(total, at, -1):
        candidates[i] = candidates[i - 1]
    candidates[at] = number
    return total + 1


@inline
def _enter(index: Index, rules: Rules, scratch: Scratch, sketch: int, number: int) -> None:
    """Make text `number` findable through the tags that `_look_up` has just seen, as far as the cap allows."""
    slots, counts = index.slots, index.counts
    for band in range(rules.bands):
        tag, spot = scratch.tags[sketch, band] << _HALF, scratch.spots[band]
        if spot >= 0:
            known = _join(index.groups, counts, np.int64(slots[spot] & _LOW), number + 1, rules.cap)
            slots[spot] = tag | np.uint64(known)
            continue
        spot = ~spot
        while spot < len(slots) and slots[spot]:  # another tag of this text may have taken it
            spot += 1
        if spot < len(slots):  # or the very end of the table is full: the text is not found through this tag
            slots[spot] = tag | np.uint64(number + 1)
            counts[1] += 1


@inline
def _join(groups: U32, counts: I64, known: int, entry: int, cap: int) -> int:
    """Add a text to those behind a tag; how the tag knows them from now on."""
    if known < _GROUP:
        if cap == 1:
            return known
        begin = counts[2]
        counts[2] += FEW
        groups[begin], groups[begin + 1] = known, entry
        return _GROUP | begin // FEW
    at, end = _span(known, cap)
    while at < end and groups[at]:
        at += 1
    if at < end:
        groups[at] = entry
    elif not known & _LARGE and cap > FEW:
        begin = counts[2]
        counts[2] += -(-cap // FEW) * FEW
        for i in range(FEW):
            groups[begin + i] = groups[end - FEW + i]
        groups[begin + FEW] = entry
        return _GROUP | _LARGE | begin // FEW
    return known


@inline
def _own_set(scratch: Scratch, count: int) -> int:
    """Put the row's shingles into the own table; how many distinct ones there are."""
    mask = _mask(count)
    scratch.counter[0] += 1
    current, distinct = scratch.counter[0], 0
    for i in range(count):
        key, place = scratch.hashes[i], np.uint64(scratch.values[i]) & mask
        while scratch.own_sets[place] == current and scratch.own_keys[place] != key:
            place = (place + _ONE) & mask
        if scratch.own_sets[place] != current:
            scratch.own_sets[place], scratch.own_keys[place] = current, key
            distinct += 1
    return distinct


@inline
def _mask(count: int) -> np.uint64:
    """Of the places of a table for so many shingles; unsigned, so that no index is looked at for its sign."""
    size = 16
    while 3 * size < 4 * count:
        size *= 2
    return np.uint64(size - 1)


@inline
def _similarity(scratch: Scratch, own_count: int, own: int, own_set: int, count: int, threshold: float) -> float:
    """Jaccard similarity of the row's set and the candidate's shingles; -1 as soon as it must be under the threshold.
    Shared shingles of the row stay marked with the candidate's number, `counter`."""
    mask, other_mask = _mask(own_count), _mask(count)
    scratch.counter[0] += 1
    current, shared, foreign = scratch.counter[0], 0, 0
    for i in range(count):
        key = scratch.other[i]
        place = np.uint64(scratch.other_values[i]) & mask
        while scratch.own_sets[place] >= own_set and scratch.own_keys[place] != key:
            place = (place + _ONE) & mask
        if scratch.own_sets[place] >= own_set:
            shared += scratch.own_sets[place] != current
            scratch.own_sets[place] = current
            continue
        place = np.uint64(scratch.other_values[i]) & other_mask
        while scratch.other_sets[place] == current and scratch.other_keys[place] != key:
            place = (place + _ONE) & other_mask
        if scratch.other_sets[place] != current:
            scratch.other_sets[place], scratch.other_keys[place] = current, key
            foreign += 1
            if min(own, shared + count - i - 1) < threshold * (own + foreign):
                return -1.0
    return shared / (own + foreign)


@inline
def _shared_run(scratch: Scratch, count: int, own_set: int, size: int, unit: int, end: int, run: I64) -> None:
    """First and end byte of the longest run of the row's shingles that stand in the candidate marked last."""
    mask, current = _mask(count), scratch.counter[0]
    best, best_end, length = 0, 0, 0
    for i in range(count):
        key, place = scratch.hashes[i], np.uint64(scratch.values[i]) & mask
        while scratch.own_keys[place] != key or scratch.own_sets[place] < own_set:
            place = (place + _ONE) & mask
        length = length + 1 if scratch.own_sets[place] == current else 0
        if length > best:
            best, best_end = length, i + 1
    run[0], run[1] = 0, 0
    if best:
        run[0] = scratch.places[best_end - best]
        run[1] = scratch.places[best_end + size - 1]
        if unit == WORD and run[1] < end:
            run[1] -= 1  # without the space before the next word


@kernel
def waiting(slots: U64, before: int) -> int:
    """How many of the first `before` slots `spread` cannot move at once."""
    among, count = _lines(len(slots)), 0
    for place in range(before):
        count += slots[place] != 0 and _HEAD + _home(slots[place] >> _HALF, among) * LINE <= place
    return count


@kernel
def spread(slots: U64, before: int, filled: U8, late: U64) -> None:
    """Put the first `before` slots of a table that has been made longer where they are now looked for.

    From the end to the front, for a slot moves to the back, into a line from which all have moved. The few that would
    not (near the front, where a slot may stand far behind its home) wait until all others have.

    Args:
        filled: zeros, one for each line.
        late: room for those that wait, see `waiting`.
    """
    among, count = _lines(len(slots)), 0
    for place in range(before - 1, -1, -1):
        slot = slots[place]
        if slot:
            slots[place] = 0
            line = _home(slot >> _HALF, among)
            if _HEAD + line * LINE <= place:
                late[count] = slot
                count += 1
            else:
                _put(slots, filled, slot, line)
    for i in range(count):
        _put(slots, filled, late[i], _home(late[i] >> _HALF, among))


@inline
def _put(slots: U64, filled: U8, slot: np.uint64, line: int) -> None:
    """Take the first free slot of the first line from `line` on that has one."""
    last = (len(slots) - _HEAD) // LINE
    while line < last and filled[line] == LINE:
        line += 1
    if line < last:
        slots[_HEAD + line * LINE + filled[line]] = slot
        filled[line] += 1
