//! A filter of system calls as a tree of decisions: the kernel runs it once for every number when it is installed, and a
//! chain of some hundred comparisons took longer than all other walls of a start. Classic BPF over `struct seccomp_data`
//! (`linux/seccomp.h`), with forward jumps only.

use seccompiler::sock_filter;
use std::collections::BTreeMap;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
/// A branch of so few numbers is not split further.
const LEAVES: usize = 3;

pub(crate) const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;

/// `AUDIT_ARCH_*` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// What a filter answers that refuses with an errno.
pub(crate) fn refusal(errno: i32) -> u32 {
    ERRNO | u32::try_from(errno).unwrap_or(1)
}

/// A test of one argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Test {
    /// Its low 32 bits are this.
    Equal(u8, u32),
    /// Its low 32 bits are something else.
    Differs(u8, u32),
    /// Of its low 32 bits, those of the mask are this.
    Masked { argument: u8, mask: u32, value: u32 },
    /// Any of its 64 bits is set: a pointer was given.
    Given(u8),
}

/// When a call is refused.
#[derive(Clone, Debug)]
pub(crate) enum When {
    Always,
    /// In any of these cases, each a list of tests that all hold.
    Cases(Vec<Vec<Test>>),
}

/// Assembles the filter: whoever calls through another architecture's door is killed, numbers above `number_max` get `beyond`,
/// those of `rules` what stands there when it is their time, and all others go through.
///
/// # Errors
/// In words, when a rule is longer than a jump reaches.
pub(crate) fn assemble(
    rules: &BTreeMap<u32, (When, u32)>,
    number_max: u32,
    beyond: u32,
) -> Result<Vec<sock_filter>, String> {
    let rules: Vec<(u32, &When, u32)> = rules.iter().map(|(number, (when, answer))| (*number, when, *answer)).collect();
    let mut program = vec![
        line(LOAD, 0, 0, ARCHITECTURE_AT),
        line(IF_EQUAL, 1, 0, ARCHITECTURE),
        line(RETURN, 0, 0, KILL_PROCESS),
        line(LOAD, 0, 0, NUMBER_AT),
        line(IF_AT_LEAST, 0, 1, number_max + 1),
        line(RETURN, 0, 0, beyond),
    ];
    program.extend(branch(&rules)?);
    Ok(program)
}

fn line(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn jump(over: usize) -> Result<sock_filter, String> {
    let over = u32::try_from(over).map_err(|_| "the filter is too long".to_owned())?;
    Ok(line(JUMP, 0, 0, over))
}

/// Decides among these numbers; every way through it ends in an answer.
fn branch(rules: &[(u32, &When, u32)]) -> Result<Vec<sock_filter>, String> {
    if rules.len() > LEAVES {
        let (lower, upper) = rules.split_at(rules.len() / 2);
        let middle = upper.first().map_or(0, |(number, _, _)| *number);
        let lower = branch(lower)?;
        let mut lines = vec![line(IF_AT_LEAST, 0, 1, middle), jump(lower.len())?];
        lines.extend(lower);
        lines.extend(branch(upper)?);
        return Ok(lines);
    }
    let mut lines = Vec::new();
    for (number, when, answer) in rules {
        let decided = decide(when, *answer)?;
        lines.extend([line(IF_EQUAL, 1, 0, *number), jump(decided.len())?]);
        lines.extend(decided);
    }
    lines.push(line(RETURN, 0, 0, ALLOW));
    Ok(lines)
}

/// What becomes of one call.
fn decide(when: &When, answer: u32) -> Result<Vec<sock_filter>, String> {
    let When::Cases(cases) = when else { return Ok(vec![line(RETURN, 0, 0, answer)]) };
    let mut lines = Vec::new();
    for tests in cases {
        // From the last to the first: each must know how far the next case is.
        let mut case = vec![line(RETURN, 0, 0, answer)];
        for test in tests.iter().rev() {
            let mut tested = examine(*test, case.len())?;
            tested.append(&mut case);
            case = tested;
        }
        lines.extend(case);
    }
    lines.push(line(RETURN, 0, 0, ALLOW));
    Ok(lines)
}

/// Goes on with the next line when the test holds, else jumps over the `rest` of its case.
fn examine(test: Test, rest: usize) -> Result<Vec<sock_filter>, String> {
    let rest = u8::try_from(rest).map_err(|_| "a case of the filter is too long".to_owned())?;
    let low = |argument: u8| line(LOAD, 0, 0, low_at(argument));
    Ok(match test {
        Test::Equal(argument, value) => vec![low(argument), line(IF_EQUAL, 0, rest, value)],
        Test::Differs(argument, value) => vec![low(argument), line(IF_EQUAL, rest, 0, value)],
        Test::Masked { argument, mask, value } => {
            vec![low(argument), line(AND, 0, 0, mask), line(IF_EQUAL, 0, rest, value)]
        }
        Test::Given(argument) => vec![
            low(argument),
            line(IF_EQUAL, 0, 2, 0),
            line(LOAD, 0, 0, high_at(argument)),
            line(IF_EQUAL, rest, 0, 0),
        ],
    })
}

/// Where the low half of an argument stands: both architectures are little-endian.
fn low_at(argument: u8) -> u32 {
    ARGUMENTS_AT + 8 * u32::from(argument)
}

fn high_at(argument: u8) -> u32 {
    low_at(argument) + 4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &[sock_filter], number: u32, architecture: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut value, mut steps) = (0, 0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            steps += 1;
            assert!(steps < 64, "the tree is shallow");
            let chosen = |holds: bool| usize::from(if holds { jt } else { jf });
            match code {
                LOAD if k == NUMBER_AT => value = number,
                LOAD if k == ARCHITECTURE_AT => value = architecture,
                LOAD => {
                    let index = usize::try_from(k - ARGUMENTS_AT).unwrap();
                    value = u32::try_from(arguments[index / 8] >> (index % 8 * 8) & 0xffff_ffff).unwrap();
                }
                AND => value &= k,
                JUMP => at += usize::try_from(k).unwrap(),
                IF_EQUAL => at += chosen(value == k),
                IF_AT_LEAST => at += chosen(value >= k),
                RETURN => return k,
                other => panic!("code {other:#x}"),
            }
        }
    }

    fn program() -> Vec<sock_filter> {
        let cases = vec![
            vec![Test::Equal(0, 7), Test::Differs(1, 9)],
            vec![Test::Masked { argument: 2, mask: 0xff00, value: 0x9400 }],
            vec![Test::Given(3), Test::Equal(4, 1)],
        ];
        let mut rules: BTreeMap<u32, (When, u32)> =
            (0..200).step_by(3).map(|number| (number, (When::Always, refusal(1)))).collect();
        rules.insert(100, (When::Cases(cases), refusal(13)));
        assemble(&rules, 300, refusal(38)).unwrap()
    }

    #[test]
    fn every_number_gets_its_own_answer() {
        let program = program();
        for number in 0..1_000 {
            let expected = match number {
                301.. => refusal(38),
                100 => ALLOW,
                _ if number < 200 && number % 3 == 0 => refusal(1),
                _ => ALLOW,
            };
            assert_eq!(run(&program, number, ARCHITECTURE, [0; 6]), expected, "{number}");
            assert_eq!(run(&program, number, 0x4000_0003, [0; 6]), KILL_PROCESS, "{number}");
        }
        assert_eq!(run(&program, 0x4000_0000, ARCHITECTURE, [0; 6]), refusal(38), "the x32 interface");
    }

    #[test]
    fn a_case_holds_when_all_its_tests_do() {
        let program = program();
        for (arguments, is_refused) in [
            ([0, 0, 0, 0, 0, 0], false),
            ([7, 9, 0, 0, 0, 0], false),
            ([7, 8, 0, 0, 0, 0], true),
            ([0xf_0000_0007, 0, 0, 0, 0, 0], true),
            ([8, 0, 0x9412, 0, 0, 0], true),
            ([8, 0, 0x9512, 0, 0, 0], false),
            ([0, 0, 0, 1, 1, 0], true),
            ([0, 0, 0, 1 << 40, 1, 0], true),
            ([0, 0, 0, 1, 0, 0], false),
            ([0, 0, 0, 0, 1, 0], false),
        ] {
            let expected = if is_refused { refusal(13) } else { ALLOW };
            assert_eq!(run(&program, 100, ARCHITECTURE, arguments), expected, "{arguments:?}");
        }
    }
}
