//! Rulings on system calls, compiled into one filter: a search for the range of numbers that get the same, then the conditions on
//! arguments, if there are any.
//!
//! The kernel runs a filter for each system call that depends on arguments, and once for every number that exists when it is
//! installed (kernel/seccomp.c, `seccomp_cache_prepare`). A list that is gone through number by number takes it 0.9 ms then.

use std::collections::BTreeMap;

use crate::sys::seccomp::{
    ARCHITECTURE, Answer, Field, INSTRUCTIONS_MAX, Instruction, Test, give, jump, jump_if, load, mask,
};

/// What a system call gets: the answer of the first case that applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    /// Conditions that must all hold, and what is answered then.
    pub(super) cases: Vec<(Vec<Condition>, Answer)>,
    /// If none applies.
    pub(super) otherwise: Answer,
}

/// A condition on the low 32 bits of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, counted from 0.
    pub(super) index: u8,
    /// The bits to look at.
    pub(super) mask: u32,
    /// What they are compared with.
    pub(super) value: u32,
    /// Whether it holds when they are equal, or when they differ.
    pub(super) holds_if_equal: bool,
}

/// The filter has no place in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more conditions than a filter can have")]
pub struct TooLong;

/// From this number on, up to the next segment.
type Segment<'a> = (u32, &'a Ruling);

/// The filter: every number that has no ruling gets `unknown`. Who comes from another architecture, whose numbers mean something
/// else, is killed.
pub(super) fn compile(rulings: &BTreeMap<u32, Ruling>, unknown: Answer) -> Result<Vec<Instruction>, TooLong> {
    let unknown = Ruling { cases: Vec::new(), otherwise: unknown };
    let mut filter = vec![
        load(Field::Architecture),
        jump_if(Test::Equal, ARCHITECTURE, 1, 0),
        give(Answer::KillProcess),
        load(Field::Number),
    ];
    filter.extend(search(&segments(rulings, &unknown))?);
    if filter.len() > INSTRUCTIONS_MAX { Err(TooLong) } else { Ok(filter) }
}

fn segments<'a>(rulings: &'a BTreeMap<u32, Ruling>, unknown: &'a Ruling) -> Vec<Segment<'a>> {
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
        let instructions: usize = conditions.iter().map(|condition| condition.load().len() + 1).sum();
        let mut left = instructions;
        for condition in conditions {
            let load = condition.load();
            left -= load.len() + 1;
            // Over what is left of the conditions, and the answer.
            let next_case = u8::try_from(left + 1).map_err(|_| TooLong)?;
            let (skip, skip_else) = if condition.holds_if_equal { (0, next_case) } else { (next_case, 0) };
            code.extend(load);
            code.push(jump_if(Test::Equal, condition.value, skip, skip_else));
        }
        code.push(give(*answer));
    }
    code.push(give(ruling.otherwise));
    Ok(code)
}

impl Condition {
    fn load(self) -> Vec<Instruction> {
        let load = load(Field::Argument(self.index));
        if self.mask == u32::MAX { vec![load] } else { vec![load, mask(self.mask)] }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
        let allowed = [0, 1, 2, 5, 6, 9, u32::MAX];
        let rulings = allowed.map(|number| (number, plain(Answer::Allow))).into();
        let filter = compile(&rulings, Answer::Errno(38)).unwrap();
        for number in (0..12).chain([u32::MAX - 1, u32::MAX]) {
            let expected = if allowed.contains(&number) { ALLOW } else { ERRNO | 38 };
            assert_eq!(run(&filter, ARCHITECTURE, number, [0; 6]), expected, "{number}");
        }
        assert_eq!(run(&filter, 0x4000_0003, 0, [0; 6]), KILL);
        // One search step for each end of a range of equals.
        assert!(filter.len() < 30, "{}", filter.len());
    }

    #[test]
    fn the_first_case_that_applies_counts() {
        let condition = |index, mask, value, holds_if_equal| Condition { index, mask, value, holds_if_equal };
        let whole = |index, value, equal| condition(index, u32::MAX, value, equal);
        let cases = vec![
            (vec![whole(0, 16, true), whole(2, 9, true)], Answer::Errno(22)),
            (vec![condition(1, 0xF0, 0x30, true)], Answer::Errno(1)),
            (vec![whole(0, 7, false), whole(5, 7, false)], Answer::Allow),
        ];
        let ruling = Ruling { cases, otherwise: Answer::KillProcess };
        let filter = compile(&[(41, ruling)].into(), Answer::Errno(38)).unwrap();
        let call = |arguments| run(&filter, ARCHITECTURE, 41, arguments);
        assert_eq!(call([16, 0x30, 9, 0, 0, 0]), ERRNO | 22);
        assert_eq!(call([16, 0x31, 8, 0, 0, 0]), ERRNO | 1);
        assert_eq!(call([16, 0x41, 8, 0, 0, 0]), ALLOW);
        assert_eq!(call([7, 0x41, 8, 0, 0, 0]), KILL);
        assert_eq!(call([8, 0x41, 8, 0, 0, 7]), KILL);
        assert_eq!(call([16 | 1 << 40, 0, 9, 0, 0, 0]), ERRNO | 22, "low halves only");
        assert_eq!(run(&filter, ARCHITECTURE, 40, [16, 0x30, 9, 0, 0, 0]), ERRNO | 38);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let condition = Condition { index: 0, mask: 1, value: 1, holds_if_equal: true };
        let many = |cases: usize, conditions: usize| Ruling {
            cases: vec![(vec![condition; conditions], Answer::Allow); cases],
            otherwise: Answer::Errno(1),
        };
        assert!(compile(&[(1, many(1, 80))].into(), Answer::Allow).is_ok());
        assert_eq!(compile(&[(1, many(1, 100))].into(), Answer::Allow).err(), Some(TooLong));
        assert_eq!(compile(&[(1, many(2000, 1))].into(), Answer::Allow).err(), Some(TooLong));
    }
}
