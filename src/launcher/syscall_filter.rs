//! Rulings on system calls, compiled into one filter: a search for the range of numbers that get the same, then the conditions on
//! arguments, if there are any.
//!
//! The kernel runs a filter for each system call that depends on arguments, and once for every number that exists when it is
//! installed (kernel/seccomp.c, `seccomp_cache_prepare`). A list that is gone through number by number takes it 0.9 ms then.

use std::collections::BTreeMap;

use crate::sys::seccomp::{
    Answer, Architecture, Field, INSTRUCTIONS_MAX, Instruction, Test, give, jump, jump_if, load, mask,
};

/// What a system call gets: the answer of the first case that applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    /// Conditions that must all hold, and what is answered then.
    pub(super) cases: Vec<(Vec<Condition>, Answer)>,
    /// If none applies.
    pub(super) otherwise: Answer,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, counted from 0.
    pub(super) index: u8,
    /// How much of it counts.
    pub(super) width: Width,
    /// The bits to look at.
    pub(super) mask: u64,
    /// How they are compared with the value.
    pub(super) operator: Operator,
    /// What they are compared with.
    pub(super) value: u64,
}

/// How much of an argument counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Its low 32 bits: it is an `int`, and the kernel does not look at the others.
    Low,
    /// All 64.
    Whole,
}

/// How an argument is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The filter has no place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more conditions than a filter can have")]
pub struct TooLong;

/// From this number on, up to the next segment.
type Segment<'a> = (u32, &'a Ruling);

/// From here on the numbers are of x32 (`__X32_SYSCALL_BIT`, asm/unistd.h), whose calls pass for those of x86-64 and would get
/// around a filter that refuses only some. A kernel without x32 gives ENOSYS.
const FOREIGN_NUMBERS: u32 = 0x4000_0000;
/// As every architecture that we build for numbers it.
const ENOSYS: u16 = 38;

/// The filter: every number that has no ruling gets `unknown`. Who comes from another architecture, whose numbers mean something
/// else, is killed.
pub(super) fn compile(
    architecture: Architecture,
    rulings: &BTreeMap<u32, Ruling>,
    unknown: Answer,
) -> Result<Vec<Instruction>, TooLong> {
    let always = |answer| Ruling { cases: Vec::new(), otherwise: answer };
    let (unknown, foreign) = (always(unknown), always(Answer::Errno(ENOSYS)));
    let mut filter = vec![
        load(Field::Architecture),
        jump_if(Test::Equal, architecture.audit_number(), 1, 0),
        give(Answer::KillProcess),
        load(Field::Number),
    ];
    filter.extend(search(&segments(rulings, &unknown, &foreign))?);
    if filter.len() > INSTRUCTIONS_MAX { Err(TooLong) } else { Ok(filter) }
}

fn segments<'a>(
    rulings: &'a BTreeMap<u32, Ruling>,
    unknown: &'a Ruling,
    foreign: &'a Ruling,
) -> Vec<Segment<'a>> {
    let mut segments: Vec<Segment<'a>> = vec![(0, unknown)];
    let mut begin = |start: u32, ruling: &'a Ruling| {
        segments.pop_if(|(last, _)| *last == start);
        if segments.last().is_none_or(|(_, before)| *before != ruling) {
            segments.push((start, ruling));
        }
    };
    for (number, ruling) in rulings {
        begin(*number, ruling);
        if let Some(next) = number.checked_add(1) {
            begin(next, unknown);
        }
    }
    begin(FOREIGN_NUMBERS, foreign);
    segments
}

/// The number is loaded.
fn search(segments: &[Segment<'_>]) -> Result<Vec<Instruction>, TooLong> {
    if let [(_, ruling)] = segments {
        return decide(ruling);
    }
    let (below, from) = segments.split_at(segments.len() / 2);
    let Some((middle, _)) = from.first() else { return Err(TooLong) };
    let (below, from) = (search(below)?, search(from)?);
    // The plain jump can go farther than the other.
    let mut code =
        vec![jump_if(Test::AtLeast, *middle, 0, 1), jump(u32::try_from(below.len()).map_err(|_| TooLong)?)];
    code.extend(below);
    code.extend(from);
    Ok(code)
}

fn decide(ruling: &Ruling) -> Result<Vec<Instruction>, TooLong> {
    let mut code = Vec::new();
    for (conditions, answer) in &ruling.cases {
        let blocks: Vec<Vec<Step>> = conditions.iter().map(Condition::steps).collect();
        let mut left: usize = blocks.iter().map(Vec::len).sum();
        for block in blocks {
            left -= block.len();
            place(&block, left, &mut code)?;
        }
        code.push(give(*answer));
    }
    code.push(give(ruling.otherwise));
    Ok(code)
}

/// A step of a condition.
#[derive(Clone, Copy, Debug)]
enum Step {
    Do(Instruction),
    If(Test, u32, To, To),
}

/// Where it goes on.
#[derive(Clone, Copy, Debug)]
enum To {
    /// With the step that follows.
    Next,
    /// With the next condition, or the answer.
    Holds,
    /// With the next case.
    Fails,
}

/// The steps of a condition; so many more come after it before the answer.
fn place(block: &[Step], left: usize, code: &mut Vec<Instruction>) -> Result<(), TooLong> {
    for (at, step) in block.iter().enumerate() {
        let after = block.len() - at - 1;
        let distance = |to: To| {
            let skipped = match to {
                To::Next => 0,
                To::Holds => after,
                // Over the answer as well.
                To::Fails => after + left + 1,
            };
            u8::try_from(skipped).map_err(|_| TooLong)
        };
        code.push(match step {
            Step::Do(instruction) => *instruction,
            Step::If(test, value, then, or_else) => {
                jump_if(*test, *value, distance(*then)?, distance(*or_else)?)
            }
        });
    }
    Ok(())
}

impl Condition {
    fn steps(&self) -> Vec<Step> {
        let (positive, holds, fails) = match self.operator {
            Operator::Equal => (Test::Equal, To::Holds, To::Fails),
            Operator::NotEqual => (Test::Equal, To::Fails, To::Holds),
            Operator::GreaterOrEqual => (Test::AtLeast, To::Holds, To::Fails),
            Operator::Less => (Test::AtLeast, To::Fails, To::Holds),
            Operator::Greater => (Test::Above, To::Holds, To::Fails),
            Operator::LessOrEqual => (Test::Above, To::Fails, To::Holds),
        };
        let mut steps = Vec::new();
        if self.width == Width::Whole {
            steps.extend(Self::loaded(Field::ArgumentHigh(self.index), high(self.mask)));
            if positive != Test::Equal {
                // The high halves decide unless they are equal.
                steps.push(Step::If(Test::Above, high(self.value), holds, To::Next));
            }
            steps.push(Step::If(Test::Equal, high(self.value), To::Next, fails));
        }
        steps.extend(Self::loaded(Field::Argument(self.index), low(self.mask)));
        steps.push(Step::If(positive, low(self.value), holds, fails));
        steps
    }

    fn loaded(field: Field, bits: u32) -> impl Iterator<Item = Step> {
        let masked = (bits != u32::MAX).then(|| mask(bits));
        [load(field)].into_iter().chain(masked).map(Step::Do)
    }
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const OWN: u32 = Architecture::OWN.audit_number();

    /// What the kernel makes of a filter (Documentation/userspace-api/seccomp_filter.rst), for a call with these arguments.
    pub(in super::super) fn run(
        filter: &[Instruction],
        architecture: u32,
        number: u32,
        arguments: [u64; 6],
    ) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = filter[at];
            at += 1;
            let low = |index: u32| u32::try_from(arguments[index as usize] & 0xFFFF_FFFF).unwrap();
            let high = |index: u32| u32::try_from(arguments[index as usize] >> 32).unwrap();
            match code {
                0x20 => {
                    loaded = match k {
                        0 => number,
                        4 => architecture,
                        k if k % 8 == 0 => low((k - 16) / 8),
                        k => high((k - 20) / 8),
                    }
                }
                0x54 => loaded &= k,
                0x05 => at += k as usize,
                0x15 => at += usize::from(if loaded == k { jt } else { jf }),
                0x35 => at += usize::from(if loaded >= k { jt } else { jf }),
                0x25 => at += usize::from(if loaded > k { jt } else { jf }),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const ALLOW: u32 = 0x7FFF_0000;
    const ERRNO: u32 = 0x0005_0000;
    const KILL: u32 = 0x8000_0000;

    fn plain(answer: Answer) -> Ruling {
        Ruling { cases: Vec::new(), otherwise: answer }
    }

    #[test]
    fn ranges_gaps_and_ends() {
        let allowed = [0, 1, 2, 5, 6, 9, 0x3FFF_FFFF];
        let rulings = allowed.map(|number| (number, plain(Answer::Allow))).into();
        let filter = compile(Architecture::OWN, &rulings, Answer::Errno(38)).unwrap();
        for number in (0..12).chain([0x3FFF_FFFE, 0x3FFF_FFFF, 0x4000_0000, u32::MAX]) {
            let expected = if allowed.contains(&number) { ALLOW } else { ERRNO | 38 };
            assert_eq!(run(&filter, OWN, number, [0; 6]), expected, "{number}");
        }
        assert_eq!(run(&filter, 0x4000_0003, 0, [0; 6]), KILL);
        // One search step for each end of a range of equals.
        assert!(filter.len() < 30, "{}", filter.len());
    }

    #[test]
    fn the_first_case_that_applies_counts() {
        let condition = |index, mask, value, equal| {
            let operator = if equal { Operator::Equal } else { Operator::NotEqual };
            Condition { index, width: Width::Low, mask, operator, value }
        };
        let whole = |index, value, equal| condition(index, u64::MAX, value, equal);
        let cases = vec![
            (vec![whole(0, 16, true), whole(2, 9, true)], Answer::Errno(22)),
            (vec![condition(1, 0xF0, 0x30, true)], Answer::Errno(1)),
            (vec![whole(0, 7, false), whole(5, 7, false)], Answer::Allow),
        ];
        let ruling = Ruling { cases, otherwise: Answer::KillProcess };
        let filter = compile(Architecture::OWN, &[(41, ruling)].into(), Answer::Errno(38)).unwrap();
        let call = |arguments| run(&filter, OWN, 41, arguments);
        assert_eq!(call([16, 0x30, 9, 0, 0, 0]), ERRNO | 22);
        assert_eq!(call([16, 0x31, 8, 0, 0, 0]), ERRNO | 1);
        assert_eq!(call([16, 0x41, 8, 0, 0, 0]), ALLOW);
        assert_eq!(call([7, 0x41, 8, 0, 0, 0]), KILL);
        assert_eq!(call([8, 0x41, 8, 0, 0, 7]), KILL);
        assert_eq!(call([16 | 1 << 40, 0, 9, 0, 0, 0]), ERRNO | 22, "low halves only");
        assert_eq!(run(&filter, OWN, 40, [16, 0x30, 9, 0, 0, 0]), ERRNO | 38);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let condition =
            Condition { index: 0, width: Width::Low, mask: 1, operator: Operator::Equal, value: 1 };
        let many = |cases: usize, conditions: usize| Ruling {
            cases: vec![(vec![condition; conditions], Answer::Allow); cases],
            otherwise: Answer::Errno(1),
        };
        assert!(compile(Architecture::OWN, &[(1, many(1, 80))].into(), Answer::Allow).is_ok());
        assert_eq!(
            compile(Architecture::OWN, &[(1, many(1, 100))].into(), Answer::Allow).err(),
            Some(TooLong)
        );
        assert_eq!(
            compile(Architecture::OWN, &[(1, many(2000, 1))].into(), Answer::Allow).err(),
            Some(TooLong)
        );
    }

    #[test]
    fn whole_arguments_are_compared_as_numbers() {
        let values = [0, 1, 7, 8, u64::from(u32::MAX), 1 << 32, (1 << 32) + 7, (7 << 32) + 1, u64::MAX];
        let operators = [
            Operator::Equal,
            Operator::NotEqual,
            Operator::Less,
            Operator::LessOrEqual,
            Operator::Greater,
            Operator::GreaterOrEqual,
        ];
        for operator in operators {
            for (value, mask) in values.iter().flat_map(|value| [(*value, u64::MAX), (*value, 0xF_0000_000F)])
            {
                let first = Condition { index: 1, width: Width::Whole, mask, operator, value };
                let second = Condition {
                    index: 2,
                    width: Width::Whole,
                    mask: u64::MAX,
                    operator: Operator::Equal,
                    value: 3,
                };
                let ruling =
                    Ruling { cases: vec![(vec![first, second], Answer::Log)], otherwise: Answer::Trap };
                let filter = compile(Architecture::OWN, &[(9, ruling)].into(), Answer::Allow).unwrap();
                for argument in values {
                    let seen = argument & mask;
                    let holds = match operator {
                        Operator::Equal => seen == value,
                        Operator::NotEqual => seen != value,
                        Operator::Less => seen < value,
                        Operator::LessOrEqual => seen <= value,
                        Operator::Greater => seen > value,
                        Operator::GreaterOrEqual => seen >= value,
                    };
                    for third in [3, 4] {
                        let answer = run(&filter, OWN, 9, [0, argument, third, 0, 0, 0]);
                        let expected = if holds && third == 3 { 0x7FFC_0000 } else { 0x0003_0000 };
                        assert_eq!(answer, expected, "{argument:x} & {mask:x} {operator:?} {value:x}");
                    }
                }
            }
        }
    }
}
