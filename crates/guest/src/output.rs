//! What a named command gave and nobody has taken yet, in pieces, by position. What nobody has read is never dropped here; it
//! is for the caller not to read on while there is no room.

use sandbox::wire::{DATA_BYTES_MAX, FRAME_COST_BYTES, KEPT_BYTES_MAX, Kind, WINDOW_BYTES};
use std::collections::VecDeque;

/// Consecutive bytes of one of the two streams.
#[derive(Debug)]
struct Piece {
    start: u64,
    kind: Kind,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn cost(&self) -> usize {
        self.bytes.len() + FRAME_COST_BYTES
    }
}

/// Whether somebody reads an output.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    AtHand,
    Gone,
}

/// The output of one command.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pieces: VecDeque<Piece>,
    /// What all pieces cost.
    cost: usize,
    /// The first position that is kept.
    from: u64,
    /// The position of what comes next.
    to: u64,
    /// Up to where the present stream was given it.
    sent: u64,
    /// Up to where the other side of the present stream has read it.
    read: u64,
}

impl Output {
    pub(crate) const fn from(&self) -> u64 {
        self.from
    }

    pub(crate) const fn to(&self) -> u64 {
        self.to
    }

    /// What it takes of the sandbox's memory.
    pub(crate) const fn cost(&self) -> usize {
        self.cost
    }

    /// Whether the present stream was given everything.
    pub(crate) const fn is_sent(&self) -> bool {
        self.sent == self.to
    }

    /// The pieces that lie wholly before a position.
    fn before(&self, position: u64) -> usize {
        self.pieces.partition_point(|piece| piece.end() <= position)
    }

    /// The cost of what nobody has read.
    pub(crate) fn unread(&self) -> usize {
        let bytes = usize::try_from(self.to - self.read.max(self.from)).unwrap_or(usize::MAX);
        bytes.saturating_add((self.pieces.len() - self.before(self.read)) * FRAME_COST_BYTES)
    }

    /// Whether more may be read from the command. `spare` is what all commands of the sandbox may still keep together: a
    /// window is everybody's own, so that one who is read never waits for another. With a reader at hand little is read ahead,
    /// so that the room is left to what was read and not taken.
    pub(crate) fn has_room(&self, reader: Reader, spare: usize) -> bool {
        let unread = self.unread();
        let unread_max = match reader {
            Reader::AtHand => 2 * WINDOW_BYTES,
            Reader::Gone => KEPT_BYTES_MAX,
        };
        unread < WINDOW_BYTES || (unread < unread_max && spare > 0)
    }

    /// Keeps what the command gave, in the place of what was read longest ago.
    pub(crate) fn push(&mut self, kind: Kind, bytes: &[u8]) {
        let start = self.to;
        self.to += bytes.len() as u64;
        match self.pieces.back_mut() {
            Some(last) if last.kind == kind && last.bytes.len() + bytes.len() <= DATA_BYTES_MAX => {
                last.bytes.extend_from_slice(bytes);
                self.cost += bytes.len();
            }
            _ => {
                self.pieces.push_back(Piece { start, kind, bytes: bytes.to_vec() });
                self.cost += bytes.len() + FRAME_COST_BYTES;
            }
        }
        while self.cost > KEPT_BYTES_MAX && self.drop_read() > 0 {}
    }

    /// Drops the oldest piece if it was read; gives what that frees.
    pub(crate) fn drop_read(&mut self) -> usize {
        if self.before(self.read) == 0 { 0 } else { self.drop_first() }
    }

    fn drop_first(&mut self) -> usize {
        let Some(first) = self.pieces.pop_front() else { return 0 };
        self.from = self.from.max(first.end());
        self.cost -= first.cost();
        first.cost()
    }

    /// What is to be sent next, of at most `bytes_max` bytes.
    pub(crate) fn next(&self, bytes_max: usize) -> Option<(Kind, &[u8])> {
        let piece = self.pieces.get(self.before(self.sent))?;
        let skipped = usize::try_from(self.sent - piece.start).ok()?;
        let rest = piece.bytes.get(skipped..)?;
        (!rest.is_empty() && bytes_max > 0).then(|| (piece.kind, &rest[..rest.len().min(bytes_max)]))
    }

    /// So many bytes were sent.
    pub(crate) const fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Everything before a position was read on the present stream.
    pub(crate) fn read_to(&mut self, position: u64) {
        self.read = self.read.max(position.min(self.sent));
    }

    /// Everything before a position was taken.
    pub(crate) fn take_to(&mut self, position: u64) {
        let position = position.min(self.sent);
        while self.before(position) > 0 {
            self.drop_first();
        }
        self.from = self.from.max(position);
        self.read = self.read.max(position);
    }

    /// The stream is gone: what was read from it and not taken counts as unread.
    pub(crate) const fn detach(&mut self) {
        self.sent = self.from;
        self.read = self.from;
    }

    /// A new stream is given everything from a position on; `false`: that is not kept.
    pub(crate) fn resume(&mut self, position: u64) -> bool {
        let is_kept = (self.from..=self.to).contains(&position);
        if is_kept {
            self.sent = position;
            self.read = position;
        }
        is_kept
    }

    /// Forgets what was not sent yet.
    pub(crate) fn forget_unsent(&mut self) {
        while self.pieces.back().is_some_and(|piece| piece.start >= self.sent) {
            let gone = self.pieces.pop_back().map_or(0, |piece| piece.cost());
            self.cost -= gone;
        }
        if let Some(last) = self.pieces.back_mut() {
            let kept = usize::try_from(self.sent.saturating_sub(last.start)).unwrap_or(usize::MAX);
            self.cost -= last.bytes.len().saturating_sub(kept);
            last.bytes.truncate(kept);
        }
        self.to = self.sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a stream is given until nothing is left, in frames of at most `bytes_max`.
    fn drain(output: &mut Output, bytes_max: usize) -> Vec<(Kind, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some((kind, bytes)) = output.next(bytes_max) {
            frames.push((kind, bytes.to_vec()));
            let length = frames.last().unwrap().1.len();
            output.sent(length);
        }
        frames
    }

    fn text(frames: &[(Kind, Vec<u8>)]) -> String {
        frames.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    fn given(parts: &[(Kind, &str)]) -> Output {
        let mut output = Output::default();
        parts.iter().for_each(|(kind, part)| output.push(*kind, part.as_bytes()));
        output
    }

    #[test]
    fn a_new_stream_gets_what_was_not_taken_from_any_position_on() {
        let parts = [(Kind::Stdout, "one "), (Kind::Stderr, "two "), (Kind::Stdout, "three "), (Kind::Stdout, "four")];
        let whole: String = parts.iter().map(|(_, part)| *part).collect();
        for taken in 0..=whole.len() {
            for from in 0..=whole.len() + 1 {
                for bytes_max in [1, 3, 100] {
                    let mut output = given(&parts);
                    assert_eq!(text(&drain(&mut output, bytes_max)), whole);
                    output.take_to(taken as u64);
                    output.detach();
                    let kept = (taken..=whole.len()).contains(&from);
                    assert_eq!(output.resume(from as u64), kept, "taken {taken}, from {from}");
                    if kept {
                        assert_eq!(text(&drain(&mut output, bytes_max)), whole[from..], "taken {taken}, from {from}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_both_streams_is_kept_and_small_pieces_share_one() {
        let mut output = given(&[(Kind::Stdout, "a"), (Kind::Stdout, "b"), (Kind::Stderr, "c"), (Kind::Stdout, "d")]);
        let frames = drain(&mut output, 100);
        let kinds: Vec<Kind> = frames.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::Stdout, Kind::Stderr, Kind::Stdout]);
        assert_eq!(output.cost(), 4 + 3 * FRAME_COST_BYTES);
    }

    /// Gives in portions as long as there is room; how many bytes that were.
    fn fill(output: &mut Output, portion: usize, reader: Reader, spare: usize) -> usize {
        let mut bytes = 0;
        while output.has_room(reader, spare) {
            output.push(if bytes % 2 == 0 { Kind::Stdout } else { Kind::Stderr }, &vec![b'x'; portion]);
            bytes += portion;
        }
        bytes
    }

    #[test]
    fn what_nobody_has_read_is_never_dropped_and_bounded() {
        for portion in [1, 100, DATA_BYTES_MAX] {
            let mut output = Output::default();
            let bytes = fill(&mut output, portion, Reader::Gone, usize::MAX);
            assert_eq!((output.from(), output.to()), (0, bytes as u64), "nothing is lost");
            assert!(output.cost() <= KEPT_BYTES_MAX + DATA_BYTES_MAX + FRAME_COST_BYTES, "{}", output.cost());
            // What was read makes room, but is there as long as it fits.
            drain(&mut output, DATA_BYTES_MAX);
            output.read_to(output.to() / 2);
            assert_eq!(output.from(), 0);
            assert!(fill(&mut output, portion, Reader::Gone, usize::MAX) > 0);
            assert!(output.from() > 0 && output.from() <= bytes as u64 / 2, "{}", output.from());
            assert!(output.cost() <= KEPT_BYTES_MAX + DATA_BYTES_MAX + FRAME_COST_BYTES, "{}", output.cost());
            // A stream that is lost makes it unread again: then nothing more is dropped.
            output.detach();
            let from = output.from();
            fill(&mut output, portion, Reader::Gone, usize::MAX);
            assert_eq!(output.from(), from);
        }
    }

    #[test]
    fn a_reader_at_hand_leaves_the_room_to_what_was_read() {
        let mut output = Output::default();
        let ahead = fill(&mut output, DATA_BYTES_MAX, Reader::AtHand, usize::MAX);
        assert!(ahead <= 2 * WINDOW_BYTES + DATA_BYTES_MAX, "{ahead}");
        // A filling is two windows at most.
        for _ in 0..KEPT_BYTES_MAX / (2 * WINDOW_BYTES) - 2 {
            drain(&mut output, DATA_BYTES_MAX);
            output.read_to(output.to());
            fill(&mut output, DATA_BYTES_MAX, Reader::AtHand, usize::MAX);
        }
        assert_eq!(output.from(), 0, "what was read and not taken is still there");
    }

    #[test]
    fn without_spare_room_everybody_has_a_window() {
        let mut output = Output::default();
        let bytes = fill(&mut output, 1_000, Reader::Gone, 0);
        assert!((WINDOW_BYTES - 2_000..WINDOW_BYTES + 2_000).contains(&bytes), "{bytes}");
        drain(&mut output, DATA_BYTES_MAX);
        assert!(!output.has_room(Reader::Gone, 0), "sent is not read");
        output.read_to(bytes as u64);
        assert!(output.has_room(Reader::Gone, 0));
        assert!(output.drop_read() > 0);
    }

    #[test]
    fn nothing_unsent_is_taken_or_read_and_a_kill_forgets_it() {
        let mut output = given(&[(Kind::Stdout, "sent"), (Kind::Stderr, "half not"), (Kind::Stdout, "not")]);
        output.sent(4);
        output.sent(4);
        output.take_to(u64::MAX);
        assert_eq!((output.from(), output.to()), (8, 15));
        output.forget_unsent();
        assert_eq!((output.from(), output.to(), output.is_sent()), (8, 8, true));
        output.detach();
        assert!(output.resume(8));
        assert_eq!(output.next(100), None);
        output.push(Kind::Stdout, b"more");
        assert_eq!(output.next(0), None, "nothing is sent where there is no room");
        assert_eq!(text(&drain(&mut output, 100)), "more");
    }
}
