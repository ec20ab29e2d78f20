//! Byte-pair merging of one piece: single bytes first, then again and again the adjacent pair whose
//! bytes together have the lowest rank, the leftmost of equals, until no pair has one.

use crate::byte_table::ByteTable;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const NO_RANK: u32 = u32::MAX;
/// No neighbour.
const NONE: u32 = u32::MAX;
/// Longest piece in bytes whose lowest rank is searched anew for each merge; longer ones keep a
/// heap.
const SCAN_BYTES_MAX: usize = 48;

#[derive(Clone, Copy)]
struct Part {
    /// First byte, from the piece's start.
    start: u32,
    /// Rank of this part and the next together.
    rank: u32,
}

/// A part in the linked list of a long piece, found by its first byte.
#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    /// Rank of this part and the next together; NO_RANK also when the part is gone.
    rank: u32,
}

/// Working memory, kept from piece to piece.
#[derive(Default)]
pub struct Merger {
    links: Vec<Link>,
    heap: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Merger {
    /// Appends the ranks of `text[start..end]`, at least one byte, to `ids`. Every single byte must
    /// be in `ranks`, and `text` be padded as `ByteTable::find` wants it. O(n log n) lookups, each
    /// linear in the longest token.
    pub fn merge(
        &mut self,
        ranks: &ByteTable,
        text: &[u8],
        piece: (usize, usize),
        ids: &mut Vec<u32>,
    ) {
        let (start, end) = piece;
        let length = end - start;
        if let Some(rank) = ranks.find(text, start, length) {
            ids.push(rank);
        } else if length <= SCAN_BYTES_MAX {
            scan(ranks, text, start, length, ids);
        } else {
            self.merge_by_heap(ranks, text, start, length, ids);
        }
    }

    fn merge_by_heap(
        &mut self,
        ranks: &ByteTable,
        text: &[u8],
        start: usize,
        length: usize,
        ids: &mut Vec<u32>,
    ) {
        let rank_of = |from: u32, to: u32| {
            ranks.find(text, start + from as usize, (to - from) as usize).unwrap_or(NO_RANK)
        };
        let end = length as u32;
        self.links.clear();
        self.links.extend((0..end).map(|at| Link {
            previous: at.wrapping_sub(1),
            next: at + 1,
            rank: if at + 2 <= end { rank_of(at, at + 2) } else { NO_RANK },
        }));
        let mut heap = std::mem::take(&mut self.heap).into_vec();
        heap.extend((0..end).filter_map(|at| {
            let rank = self.links[at as usize].rank;
            (rank != NO_RANK).then_some(Reverse((rank, at)))
        }));
        self.heap = BinaryHeap::from(heap);
        while let Some(Reverse((rank, at))) = self.heap.pop() {
            // A pair that has changed since it was pushed has another rank or none.
            if self.links[at as usize].rank != rank {
                continue;
            }
            let gone = self.links[at as usize].next;
            let next = self.links[gone as usize].next;
            self.links[gone as usize].rank = NO_RANK;
            self.links[at as usize].next = next;
            if next < end {
                self.links[next as usize].previous = at;
            }
            self.rank_pair(at, end, rank_of);
            let previous = self.links[at as usize].previous;
            if previous != NONE {
                self.rank_pair(previous, end, rank_of);
            }
        }
        let mut at = 0;
        while at < end {
            let next = self.links[at as usize].next;
            ids.push(rank_of(at, next));
            at = next;
        }
    }

    fn rank_pair(&mut self, at: u32, end: u32, rank_of: impl Fn(u32, u32) -> u32) {
        let next = self.links[at as usize].next;
        let rank = match next < end {
            true => rank_of(at, self.links[next as usize].next),
            false => NO_RANK,
        };
        self.links[at as usize].rank = rank;
        if rank != NO_RANK {
            self.heap.push(Reverse((rank, at)));
        }
    }
}

/// The same for a short piece, searching all pairs before each merge.
fn scan(ranks: &ByteTable, text: &[u8], start: usize, length: usize, ids: &mut Vec<u32>) {
    let rank_of = |from: u32, to: u32| {
        ranks.find(text, start + from as usize, (to - from) as usize).unwrap_or(NO_RANK)
    };
    let mut parts = [Part { start: 0, rank: NO_RANK }; SCAN_BYTES_MAX + 1];
    for (at, part) in parts[..=length].iter_mut().enumerate() {
        let at = at as u32;
        let rank = if at as usize + 2 <= length { rank_of(at, at + 2) } else { NO_RANK };
        *part = Part { start: at, rank };
    }
    // parts[count] only marks the end of the last part.
    let mut count = length;
    loop {
        let (mut best, mut rank) = (0, NO_RANK);
        for (at, part) in parts[..count].iter().enumerate() {
            if part.rank < rank {
                (best, rank) = (at, part.rank);
            }
        }
        if rank == NO_RANK {
            break;
        }
        parts.copy_within(best + 2..count + 1, best + 1);
        count -= 1;
        for at in best.saturating_sub(1)..=best {
            parts[at].rank = match at + 2 <= count {
                true => rank_of(parts[at].start, parts[at + 2].start),
                false => NO_RANK,
            };
        }
    }
    ids.extend(parts[..=count].windows(2).map(|pair| rank_of(pair[0].start, pair[1].start)));
}
