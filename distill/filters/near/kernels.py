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
from distill.filters.near.jit import inline, kernel

__all__ = ["ADD", "CHAR", "COMPARE", "DECIDE", "WORD", "common_table", "judge", "minima", "shingle", "spread"]

CHAR, WORD = 0, 1
COMPARE, DECIDE, ADD = 0, 1, 2  # only compare; compare, and add what matches nothing; add everything

_CHAR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication is a bijection, no information is lost
_WORD = np.uint64(0xD1342543DE82EF95)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_ONE, _HALF, _LOW = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
_BIT, _SPACE = np.uint32(0x9E3779B1), 32
_LANES = 64  # values that the processor compares at once, at most


@kernel
def judge(rows: Rows, rules: Rules, index: Index, scratch: Scratch, out: Out, mode: int) -> None:
    """Decide every row in turn. With DECIDE a row without a match joins the index before the next is looked at."""
    kept = index.counts[0]
    for row in range(len(rows.begins)):
        out.match[row] = out.number[row] = -1
        if rows.ends[row] == rows.begins[row]:
            continue
        words = rows.words[row]
        unit = (WORD if words > rules.long else CHAR) if rules.unit < 0 else rules.unit
        count = _sketch(rows, row, unit, rules, scratch)
        low, high = np.uint64(0), np.uint64(unit) << np.uint64(63)
        for p in range(min(127, len(scratch.signature))):
            bit = np.uint64(np.uint32(scratch.signature[p] * _BIT) >> np.uint32(31)) << np.uint64(p % 64)
            low, high = (low | bit, high) if p < 64 else (low, high | bit)
        total = _look_up(index, rules, scratch, low, high)
        if total and mode != ADD:
            _verify(rows, row, unit, count, total, rules, index, scratch, out)
        if out.match[row] >= 0 or mode == COMPARE:
            continue
        begin, size = index.ends[kept], rows.ends[row] - rows.begins[row]
        index.data[begin : begin + size] = rows.data[rows.begins[row] : rows.ends[row]]
        index.ends[kept + 1] = begin + size
        index.bits[kept, 0], index.bits[kept, 1] = low, high
        _enter(index, rules, scratch, kept)
        # A similar text is longer or shorter by the threshold at most: near the border it must be found in both units.
        if rules.unit < 0 and rules.long * rules.threshold <= words <= rules.long / rules.threshold:
            _sketch(rows, row, WORD - unit, rules, scratch)
            _look_up(index, rules, scratch, low, high)
            _enter(index, rules, scratch, kept)
        out.number[row], kept = kept, kept + 1
    index.counts[0] = kept


@inline
def _verify(
    rows: Rows, row: int, unit: int, count: int, total: int, rules: Rules, index: Index, scratch: Scratch, out: Out
) -> None:
    """Find the first of `total` candidates that is similar enough."""
    own = _own_set(scratch, count)
    own_set, size = scratch.counter[0], rules.sizes[unit]
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
    for step in range(1, size):
        for i in range(total):
            hashes[i] = hashes[i] * factor + points[i + step]
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
        tags[band] = (tag * _MIX) >> _HALF


@inline
def _ones(bits: np.uint64) -> int:
    bits = bits - ((bits >> _ONE) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@inline
def _sketch(rows: Rows, row: int, unit: int, rules: Rules, scratch: Scratch) -> int:
    """Shingles, signature and tags of one row in one unit."""
    count = shingle(
        rows.data, rows.begins[row], rows.ends[row], unit, rules.sizes[unit], rules.common,
        scratch.points, scratch.places, scratch.hashes, scratch.values,
    )  # fmt: skip
    minima(scratch.values, count, rules.a, rules.b, scratch.signature)
    _tags(scratch.signature, rules.bands, unit, scratch.tags)
    return count


@inline
def _home(tag: np.uint64, size: int) -> int:
    """Where a tag's search begins: slots are in the order of their tags, so that a table can grow in place."""
    return np.int64((tag * np.uint64(size)) >> _HALF)


@inline
def _insert(slots: U64, slot: np.uint64) -> None:
    place = _home(slot >> _HALF, len(slots))
    while slots[place]:
        place = place + 1 if place + 1 < len(slots) else 0
    slots[place] = slot


@inline
def _look_up(index: Index, rules: Rules, scratch: Scratch, low: np.uint64, high: np.uint64) -> int:
    """Candidates worth reading, distinct and in the order in which they were kept."""
    size, total = len(index.slots), 0
    for band in range(rules.bands):  # on its own, so that the memory answers all bands at once
        scratch.found[band] = np.int64(index.slots[_home(scratch.tags[band], size)])
    for band in range(rules.bands):
        tag, seen = scratch.tags[band], 0
        place, slot = _home(tag, size), np.uint64(scratch.found[band])
        while slot:
            if slot >> _HALF == tag:
                seen += 1
                number = np.int64(slot & _LOW) - 1
                total = _collect(index, rules, scratch.candidates, total, number, low, high)
            place = place + 1 if place + 1 < size else 0
            slot = index.slots[place]
        scratch.found[band] = seen
    return total


@inline
def _collect(
    index: Index, rules: Rules, candidates: I64, total: int, number: int, low: np.uint64, high: np.uint64
) -> int:
    other_low, other_high = index.bits[number, 0] ^ low, index.bits[number, 1] ^ high
    if not other_high >> np.uint64(63) and 128 - _ones(other_low) - _ones(other_high) < rules.agree:
        return total
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
def _enter(index: Index, rules: Rules, scratch: Scratch, number: int) -> None:
    """Make text `number` findable through the tags in `scratch`, as far as the cap allows."""
    for band in range(rules.bands):
        if scratch.found[band] < rules.cap:
            _insert(index.slots, (scratch.tags[band] << _HALF) | np.uint64(number + 1))
            index.counts[1] += 1


@inline
def _own_set(scratch: Scratch, count: int) -> int:
    """Put the row's shingles into the own table; how many distinct ones there are."""
    mask = _mask(count)
    scratch.counter[0] += 1
    current, distinct = scratch.counter[0], 0
    for i in range(count):
        key, place = scratch.hashes[i], np.int64(scratch.values[i]) & mask
        while scratch.own_sets[place] == current and scratch.own_keys[place] != key:
            place = (place + 1) & mask
        if scratch.own_sets[place] != current:
            scratch.own_sets[place], scratch.own_keys[place], scratch.own_marks[place] = current, key, 0
            distinct += 1
    return distinct


@inline
def _mask(count: int) -> int:
    size = 16
    while size < 2 * count:
        size *= 2
    return size - 1


@inline
def _similarity(scratch: Scratch, own_count: int, own: int, own_set: int, count: int, threshold: float) -> float:
    """Jaccard similarity of the row's set and the candidate's shingles; -1 as soon as it must be under the threshold.
    Shared shingles of the row stay marked with the candidate's number, `counter`."""
    mask, other_mask = _mask(own_count), _mask(count)
    scratch.counter[0] += 1
    current, shared, foreign = scratch.counter[0], 0, 0
    for i in range(count):
        key = scratch.other[i]
        place = np.int64(scratch.other_values[i]) & mask
        while scratch.own_sets[place] == own_set and scratch.own_keys[place] != key:
            place = (place + 1) & mask
        if scratch.own_sets[place] == own_set:
            if scratch.own_marks[place] != current:
                scratch.own_marks[place] = current
                shared += 1
            continue
        place = np.int64(scratch.other_values[i]) & other_mask
        while scratch.other_sets[place] == current and scratch.other_keys[place] != key:
            place = (place + 1) & other_mask
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
        key, place = scratch.hashes[i], np.int64(scratch.values[i]) & mask
        while scratch.own_sets[place] == own_set and scratch.own_keys[place] != key:
            place = (place + 1) & mask
        length = length + 1 if scratch.own_marks[place] == current else 0
        if length > best:
            best, best_end = length, i + 1
    run[0], run[1] = 0, 0
    if best:
        run[0] = scratch.places[best_end - best]
        run[1] = scratch.places[best_end + size - 1]
        if unit == WORD and run[1] < end:
            run[1] -= 1  # without the space before the next word


@kernel
def spread(slots: U64, before: int) -> None:
    """Put the first `before` slots of a table that has been made longer where they are now looked for.

    From the end to the front, for a slot moves to the back. The few that would not (near the front, where a slot may
    stand far behind its home) wait until all others have moved.
    """
    waiting = 0
    for place in range(before):
        waiting += slots[place] != 0 and _home(slots[place] >> _HALF, len(slots)) <= place
    late, waiting = np.empty(waiting, np.uint64), 0
    for place in range(before - 1, -1, -1):
        slot = slots[place]
        if slot:
            slots[place] = 0
            if _home(slot >> _HALF, len(slots)) <= place:
                late[waiting] = slot
                waiting += 1
            else:
                _insert(slots, slot)
    for i in range(waiting):
        _insert(slots, late[i])
