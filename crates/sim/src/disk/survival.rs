//! What a medium has of writes that were not synced when the power went: of each sector any of the states it went through.

use super::SECTOR_BYTES;
use stdx::Random;

/// A change that is not synced.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Pending {
    /// Changes all of it.
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Truncate(length) => content.resize(*length, 0),
        }
    }

    /// Changes what of it lies in one sector.
    fn apply_in(&self, content: &mut Vec<u8>, sector: usize) {
        let (from, to) = (sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
        match self {
            Self::Write { offset, bytes } => {
                let (first, last) = (from.max(*offset), to.min(offset + bytes.len()));
                if first < last {
                    let part = bytes[first - offset..last - offset].to_vec();
                    Self::Write { offset: first, bytes: part }.apply(content);
                }
            }
            Self::Truncate(length) => {
                let to = to.min(content.len());
                if let Some(cut) = content.get_mut(from.max(*length).min(to)..to) {
                    cut.fill(0);
                }
            }
        }
    }

    fn end(&self) -> usize {
        match self {
            Self::Write { offset, bytes } => offset + bytes.len(),
            Self::Truncate(length) => *length,
        }
    }
}

/// How a crash treats what was not synced.
enum Way {
    Nothing,
    Everything,
    /// The first so many changes, and some sectors of the next.
    First(usize),
    /// Each sector for itself.
    Scattered,
}

/// Brings `durable` into a state that it may have after a crash.
pub(super) fn survive(durable: &mut Vec<u8>, pending: &[Pending], random: &Random) {
    if pending.is_empty() {
        return;
    }
    let first = usize::try_from(random.below(pending.len() as u64)).unwrap_or(0);
    let way = match random.below(5) {
        0 => Way::Nothing,
        1 => Way::Everything,
        2 => Way::First(first),
        _ => Way::Scattered,
    };
    match way {
        Way::Nothing => {}
        Way::Everything => pending.iter().for_each(|change| change.apply(durable)),
        Way::First(whole) => {
            pending[..whole].iter().for_each(|change| change.apply(durable));
            scatter(durable, &pending[whole..=whole], random);
        }
        Way::Scattered => scatter(durable, pending, random),
    }
}

/// Takes each sector through its own share of the writes. Lengths are journaled, as file systems do: a truncation happened as a
/// whole or not at all, and what was written after one that did not happen is lost with it. A file may have grown and hold zeros
/// where its bytes did not arrive.
fn scatter(durable: &mut Vec<u8>, pending: &[Pending], random: &Random) {
    let share = |of: usize| usize::try_from(random.below(of as u64 + 1)).unwrap_or(0);
    let settled = share(pending.len());
    let unsettled = pending[settled..].iter().position(|change| matches!(change, Pending::Truncate(_)));
    let pending = &pending[..unsettled.map_or(pending.len(), |after| settled + after)];
    let mut length = durable.len();
    for change in &pending[..settled.min(pending.len())] {
        length = match change {
            Pending::Write { .. } => length.max(change.end()),
            Pending::Truncate(to) => *to,
        };
    }
    let end = pending.iter().map(Pending::end).fold(durable.len(), usize::max);
    durable.resize(end, 0);
    for sector in touched(pending, end) {
        let written = share(pending.len());
        for (at, change) in pending.iter().enumerate() {
            if at < written || matches!(change, Pending::Truncate(_)) {
                change.apply_in(durable, sector);
            }
        }
    }
    durable.resize(length, 0);
}

/// The sectors that some change touches, in order.
fn touched(pending: &[Pending], end: usize) -> std::collections::BTreeSet<usize> {
    let mut sectors = std::collections::BTreeSet::new();
    for change in pending {
        let (from, to) = match change {
            Pending::Write { offset, bytes } => (*offset, offset + bytes.len()),
            Pending::Truncate(length) => (*length, end),
        };
        sectors.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }
    sectors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncation_happens_as_a_whole_and_before_what_follows_it() {
        let random = Random::seeded(4);
        let old = vec![1; 4 * SECTOR_BYTES];
        let fresh = Pending::Write { offset: 0, bytes: vec![2; SECTOR_BYTES] };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut durable = old.clone();
            survive(&mut durable, &[Pending::Truncate(0), fresh.clone()], &random);
            seen.insert(durable);
        }
        let [empty, zeros, written] = [vec![], vec![0; SECTOR_BYTES], vec![2; SECTOR_BYTES]];
        assert_eq!(seen, [old, empty, zeros, written].into());
    }

    #[test]
    fn what_is_left_of_a_sector_is_a_state_that_it_went_through() {
        let random = Random::seeded(3);
        let pending: Vec<_> =
            (1..=3u8).map(|turn| Pending::Write { offset: 100, bytes: vec![turn; 3 * SECTOR_BYTES] }).collect();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut durable = vec![0; 4 * SECTOR_BYTES];
            survive(&mut durable, &pending, &random);
            assert_eq!(durable.len(), 4 * SECTOR_BYTES);
            assert!(durable[..100].iter().all(|byte| *byte == 0), "what was not written is as it was");
            for sector in durable.chunks(SECTOR_BYTES).skip(1).take(2) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is written whole");
            }
            seen.insert((durable[SECTOR_BYTES], durable[2 * SECTOR_BYTES]));
        }
        assert!(seen.contains(&(0, 0)) && seen.contains(&(3, 3)), "all or nothing is left: {seen:?}");
        assert!(seen.iter().any(|(one, other)| one > other), "a later sector may be older: {seen:?}");
        assert!(seen.iter().any(|(one, other)| one < other), "an earlier sector may be older: {seen:?}");
    }
}
