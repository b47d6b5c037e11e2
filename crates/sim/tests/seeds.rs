//! Worlds from seeds: right, and the same each time.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

#[test]
fn one_seed_twice_is_one_world() {
    for seed in 900..910 {
        let (first, second) = (sim::run(seed), sim::run(seed));
        let differs = first.trace.iter().zip(&second.trace).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((first.trace.len(), first.figures), (second.trace.len(), second.figures), "seed {seed}");
    }
}

#[test]
fn worlds_are_right_and_busy() {
    let mut sum = sim::Figures::default();
    for seed in 0..40 {
        let report = sim::run(seed);
        let last: Vec<_> = report.trace.iter().rev().take(40).rev().collect();
        assert!(report.wrong.is_empty(), "seed {seed}: {:?}\n{last:#?}", report.wrong);
        sum = sum.plus(report.figures);
    }
    assert!(sum.crashes > 60 && sum.faults > 10, "lives end and disks fail: {sum:?}");
    assert!(sum.runs > 100 && sum.deeds > 200 && sum.records > 1_000, "there is work: {sum:?}");
}
