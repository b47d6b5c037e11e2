//! Bounded output: keeping head and tail of what a command writes, and cutting what a model is shown.

use domain::{Id, id};
use std::collections::VecDeque;

/// What is kept of one call's output at most; beyond that, its middle is dropped, and the output says so.
pub const WHOLE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The estimate that token counts go by.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// Collects output and keeps only its head and its tail once it grows too long.
#[derive(Debug)]
pub(crate) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    half_bytes_max: usize,
    total_bytes: u64,
}

impl Capture {
    /// Keeps `bytes_max` at most, half of it from each end.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let half_bytes_max = usize::try_from(bytes_max / 2).unwrap_or(usize::MAX);
        Self { head: Vec::new(), tail: VecDeque::new(), half_bytes_max, total_bytes: 0 }
    }

    /// Takes in the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.total_bytes = self.total_bytes.saturating_add(length(piece));
        let (first, rest) = piece.split_at(piece.len().min(self.half_bytes_max - self.head.len()));
        self.head.extend_from_slice(first);
        // Of a piece longer than the tail only its end could stay.
        let rest = &rest[rest.len().saturating_sub(self.half_bytes_max)..];
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(self.half_bytes_max);
        self.tail.drain(..over);
    }

    /// Bytes that came, kept or not.
    pub(crate) const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Hands out what was kept, with a line in the gap that says what was dropped, and starts anew.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let kept = length(&self.head) + u64::try_from(self.tail.len()).unwrap_or(u64::MAX);
        let dropped = self.total_bytes.saturating_sub(kept);
        let mut whole = std::mem::take(&mut self.head);
        if dropped > 0 {
            whole.extend_from_slice(format!("\n[{dropped} bytes were not kept]\n").as_bytes());
        }
        let (front, back) = self.tail.as_slices();
        whole.extend_from_slice(front);
        whole.extend_from_slice(back);
        self.tail = VecDeque::new();
        self.total_bytes = 0;
        whole
    }
}

/// What a model is shown of an output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The text, never much longer than was asked.
    pub(crate) text: String,
    /// Whether something was left out.
    pub(crate) cut: bool,
    /// Tokens of the whole, by estimate.
    pub(crate) tokens: u64,
}

/// The text of `whole` in at most `bytes_max` bytes: head and tail, cut between characters, and between them how much
/// was left out and how to read it. What is no UTF-8 is replaced, NUL is dropped.
pub(crate) fn show(whole: &[u8], bytes_max: u64, call: Id<id::Call>) -> Shown {
    let tokens = length(whole).div_ceil(BYTES_PER_TOKEN);
    if length(whole) <= bytes_max {
        let text = clean(whole);
        if length(text.as_bytes()) <= bytes_max {
            return Shown { text, cut: false, tokens };
        }
    }
    let lines = whole.split(|byte| *byte == b'\n').count() - usize::from(whole.last() == Some(&b'\n'));
    let prefix = format!("Total output lines: {lines}\n\n");
    let marker = |left: u64, offset: u64| {
        let tokens = left.div_ceil(BYTES_PER_TOKEN);
        format!(
            "\n…{tokens} tokens truncated…\n[{left} bytes left out; read on with read_output {{\"output\":\"{call}\",\"offset\":{offset}}}]\n"
        )
    };
    // The longest the marker can get is with the largest numbers.
    let room =
        bytes_max.saturating_sub(length(prefix.as_bytes()) + length(marker(length(whole), length(whole)).as_bytes()));
    let half = usize::try_from(room / 2).unwrap_or(usize::MAX);
    let (head, head_end) = head(whole, half);
    let (tail, tail_start) = tail(&whole[head_end..], half);
    let marker = marker(length(&whole[head_end..head_end + tail_start]), length(&whole[..head_end]));
    Shown { text: format!("{prefix}{head}{marker}{tail}"), cut: true, tokens }
}

/// Text of the first bytes, at most `bytes_max` long, and how many bytes it stands for.
pub(crate) fn head(bytes: &[u8], bytes_max: usize) -> (String, usize) {
    let window = &bytes[..bytes.len().min(bytes_max)];
    let end = if window.len() < bytes.len() { boundary_before(bytes, window.len()) } else { window.len() };
    let mut end = end;
    loop {
        let text = clean(&bytes[..end]);
        if text.len() <= bytes_max {
            return (text, end);
        }
        // Replaced bytes grow to three; give back as much as it is too long.
        let less = end.saturating_sub((text.len() - bytes_max).div_ceil(3).max(1));
        end = boundary_before(bytes, less);
    }
}

/// Text of the last bytes, at most `bytes_max` long, and where it starts.
fn tail(bytes: &[u8], bytes_max: usize) -> (String, usize) {
    let mut start = boundary_after(bytes, bytes.len().saturating_sub(bytes_max));
    loop {
        let text = clean(&bytes[start..]);
        if text.len() <= bytes_max {
            return (text, start);
        }
        start = boundary_after(bytes, start + (text.len() - bytes_max).div_ceil(3).max(1));
    }
}

/// The nearest place at or before `at` that is not inside a character.
fn boundary_before(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at).rev().find(|place| !is_inside(bytes, *place)).unwrap_or(at)
}

/// The nearest place at or after `at` that is not inside a character.
fn boundary_after(bytes: &[u8], at: usize) -> usize {
    let at = at.min(bytes.len());
    (at..=(at + 3).min(bytes.len())).find(|place| !is_inside(bytes, *place)).unwrap_or(at)
}

fn is_inside(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|byte| byte & 0xC0 == 0x80)
}

/// As text: what is no UTF-8 is replaced, NUL is dropped, escape sequences stay.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') { text.replace('\0', "") } else { text.into_owned() }
}

/// At most `bytes_max` of `text`, cut between characters; says so with an ellipsis.
pub(crate) fn brief(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let (head, _) = head(text.as_bytes(), bytes_max);
    format!("{head}…")
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stdx::Random;

    const CALL: Id<id::Call> = Id::from_bytes([1; 16]);
    /// What prefix and marker take at most; a budget below that gives them alone.
    const FRAME_BYTES_MAX: u64 = 260;

    /// Bytes of the kinds that are hard to cut: plain, long characters, no characters at all, NUL.
    fn hard(random: &Random, length: u64) -> Vec<u8> {
        let kind = random.below(4);
        let mut bytes = Vec::new();
        while u64::try_from(bytes.len()).unwrap() < length {
            match kind {
                0 => bytes.extend_from_slice(if random.below(20) == 0 { b"\n" } else { b"x" }),
                1 => bytes
                    .extend_from_slice(["é", "漢", "🤿", "a"][usize::try_from(random.below(4)).unwrap()].as_bytes()),
                2 => bytes.extend_from_slice(&random.bytes::<7>()),
                _ => bytes.extend_from_slice(b"a\0\n"),
            }
        }
        bytes
    }

    #[test]
    fn what_is_shown_keeps_to_its_budget_and_reads_on_without_a_gap() {
        let random = Random::seeded(1);
        for _ in 0..2_000 {
            let (length, budget) = (random.below(6_000), random.below(5_000));
            let whole = hard(&random, length);
            let shown = show(&whole, budget, CALL);
            let text_bytes = u64::try_from(shown.text.len()).unwrap();
            assert!(text_bytes <= budget.max(FRAME_BYTES_MAX), "{text_bytes} of {budget}");
            assert!(!shown.text.contains('\0'));
            if !shown.cut {
                assert_eq!(shown.text, clean(&whole));
                continue;
            }
            let (head, rest) = shown.text.split_once("\n\n").unwrap().1.rsplit_once("\n…").unwrap();
            let marker = rest.split_once("]\n").unwrap();
            let offset: usize = marker.0.rsplit_once(':').unwrap().1.trim_end_matches('}').parse().unwrap();
            let left: usize = rest.split_once('[').unwrap().1.split_once(' ').unwrap().0.parse().unwrap();
            assert_eq!(head, clean(&whole[..offset]));
            assert_eq!(marker.1, clean(&whole[offset + left..]));
        }
    }

    #[test]
    fn pages_join_to_the_whole() {
        let random = Random::seeded(2);
        for _ in 0..200 {
            let length = random.below(3_000);
            let whole = hard(&random, length);
            let page_bytes = usize::try_from(16 + random.below(500)).unwrap();
            let (mut joined, mut at) = (String::new(), 0);
            while at < whole.len() {
                let window = &whole[at..whole.len().min(at + page_bytes + 3)];
                let (text, bytes) = head(window, page_bytes);
                assert!(bytes > 0 && text.len() <= page_bytes);
                joined += &text;
                at += bytes;
            }
            // Pieces of what is no character may be replaced one by one; the rest is the same.
            let plain = |text: &str| text.replace('\u{fffd}', "");
            assert_eq!(plain(&joined), plain(&clean(&whole)));
        }
    }

    #[test]
    fn a_capture_keeps_both_ends() {
        let random = Random::seeded(3);
        for _ in 0..500 {
            let (length, limit) = (random.below(4_000), 2 * random.below(1_000));
            let whole = hard(&random, length);
            let mut capture = Capture::new(limit);
            let mut rest = whole.as_slice();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(usize::try_from(1 + random.below(700)).unwrap()));
                capture.push(piece);
                rest = more;
            }
            assert_eq!(capture.total_bytes(), length_of(&whole));
            let kept = capture.take();
            if length_of(&whole) <= limit {
                assert_eq!(kept, whole);
            } else {
                let half = usize::try_from(limit / 2).unwrap();
                let gap = format!("\n[{} bytes were not kept]\n", whole.len() - 2 * half);
                assert_eq!(kept.len(), 2 * half + gap.len());
                assert!(kept.starts_with(&whole[..half]) && kept.ends_with(&whole[whole.len() - half..]));
                assert_eq!(&kept[half..half + gap.len()], gap.as_bytes());
            }
        }
    }

    fn length_of(bytes: &[u8]) -> u64 {
        u64::try_from(bytes.len()).unwrap()
    }

    #[test]
    fn brief_says_that_it_cut() {
        assert_eq!(brief("abc", 3), "abc");
        assert_eq!(brief("aéb", 2), "a…");
    }
}
