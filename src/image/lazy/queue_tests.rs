//! Who gets what when.

use super::*;

fn queue(pieces: usize, background: Background) -> (Queue<&'static str>, Instant) {
    let now = Instant::now();
    (Queue::new(vec![vec![false; pieces]; 2], background, now), now)
}

fn fetched(queue: &mut Queue<&'static str>, now: Instant) -> Run {
    match queue.next(now) {
        Next::Fetch(run) => run,
        other => panic!("{other:?}"),
    }
}

fn bring(queue: &mut Queue<&'static str>, run: &Run, now: Instant) -> Vec<&'static str> {
    let done = run.pieces.clone().flat_map(|piece| queue.arrived(run.blob, piece, now)).collect();
    queue.ended(run, run.pieces.end, false, now);
    done
}

#[test]
fn who_waits_comes_first_and_hears_of_it() {
    let (mut queue, now) = queue(100, Background::Now);
    queue.announce(1, 10..12);
    assert_eq!(queue.want(1, 3..5, "one", now), None);
    assert_eq!(queue.want(1, 0..4, "two", now), None);
    // With what comes behind it, in one answer.
    let first = fetched(&mut queue, now);
    assert_eq!((first.blob, first.pieces.clone()), (1, 3..5 + AHEAD.0));
    let second = fetched(&mut queue, now);
    assert_eq!(second.pieces, 0..3);
    assert_eq!(fetched(&mut queue, now).pieces, 10..12);
    assert_eq!(bring(&mut queue, &first, now), ["one"]);
    assert_eq!(bring(&mut queue, &second, now), ["two"]);
    assert_eq!(queue.want(1, 0..5, "again", now), Some("again"));
    assert_eq!(queue.want(1, 98..120, "behind the end", now), None);
    assert_eq!(fetched(&mut queue, now).pieces, 98..100);
    // Then the background, which is never alone.
    for _ in 0..BACKGROUND_RUNS_MAX {
        assert!(fetched(&mut queue, now).wish == Wish::Background);
    }
    assert_eq!(queue.next(now), Next::Wait(None));
}

#[test]
fn the_background_waits_for_silence_and_finishes() {
    let (mut queue, now) = queue(40, Background::Idle);
    assert!(matches!(queue.next(now), Next::Wait(Some(_))));
    let mut later = now + IDLE;
    let mut finished = Vec::new();
    for _ in 0..20 {
        match queue.next(later) {
            Next::Fetch(run) => {
                // One at a time.
                assert!(matches!(queue.next(later), Next::Wait(None)));
                assert!(run.pieces.end - run.pieces.start <= IDLE_RUN_MAX);
                bring(&mut queue, &run, later);
            }
            Next::Finish(blob) => finished.push(blob),
            Next::Wait(_) => later += IDLE,
        }
    }
    assert_eq!(finished, [0, 1]);
    let (mut off, now) = self::queue(40, Background::Off);
    assert_eq!(off.next(now + IDLE), Next::Wait(None));
}

#[test]
fn failures_make_pauses_and_waiters_give_up() {
    let (mut queue, now) = queue(10, Background::Off);
    let wait = Duration::from_secs(60);
    queue.want(0, 0..3, "one", now);
    let run = fetched(&mut queue, now);
    assert!(queue.arrived(0, 0, now).is_empty());
    queue.ended(&run, 1, true, now);
    assert!(matches!(queue.next(now), Next::Wait(Some(_))));
    let mut now = now + PAUSES.1;
    let again = fetched(&mut queue, now);
    assert_eq!(again.pieces, 1..3 + AHEAD.0);
    queue.ended(&again, 1, true, now);
    // What comes for others counts: the registry answers.
    now += wait / 2;
    queue.want(0, 9..10, "two", now);
    assert_eq!(queue.arrived(0, 9, now), ["two"]);
    assert!(queue.overdue(wait, now + wait / 2).is_empty());
    now += wait;
    assert_eq!(queue.overdue(wait, now), ["one"]);
    // Who comes now is tried for at once, and does not wait as long.
    queue.want(0, 8..9, "three", now);
    let run = fetched(&mut queue, now);
    assert_eq!(run.pieces, 8..9);
    queue.ended(&run, 8, true, now);
    assert!(queue.overdue(wait, now + GRACE / 2).is_empty());
    assert_eq!(queue.overdue(wait, now + GRACE), ["three"]);
}

#[test]
fn a_blob_is_whole_when_nobody_writes_to_it() {
    let (mut queue, now) = queue(4, Background::Now);
    queue.want(0, 0..4, "one", now);
    let slow = fetched(&mut queue, now);
    (0..4).for_each(|piece| drop(queue.arrived(0, piece, now)));
    // Its last word has not come; meanwhile a piece is doubted, and somebody else fetches it.
    queue.doubt(0, &(2..3));
    queue.want(0, 2..3, "again", now);
    let other = fetched(&mut queue, now);
    assert_eq!(other.pieces, 2..3);
    queue.ended(&slow, 4, false, now);
    assert_eq!(fetched(&mut queue, now).blob, 1, "the piece is still on its way");
    assert_eq!(queue.arrived(0, 2, now), ["again"]);
    assert_ne!(queue.next(now), Next::Finish(0));
    queue.ended(&other, 3, false, now);
    assert_eq!(queue.next(now), Next::Finish(0));
}

#[test]
fn wrong_pieces_are_fetched_again_and_wrong_blobs_not_for_ever() {
    let (mut queue, now) = queue(4, Background::Now);
    for _ in 0..=LOSSES_MAX {
        let run = fetched(&mut queue, now);
        assert_eq!((run.blob, run.pieces.clone()), (0, 0..4));
        bring(&mut queue, &run, now);
        assert_eq!(queue.doubt(0, &(1..3)), Some(vec![1, 2]));
        assert_eq!(queue.doubt(0, &(1..9)), None);
        let again = fetched(&mut queue, now);
        assert_eq!(again.pieces, 1..4);
        bring(&mut queue, &again, now);
        assert_eq!(queue.next(now), Next::Finish(0));
        assert_eq!(queue.doubt(0, &(1..3)), None);
        queue.lost(0);
    }
    assert_eq!(fetched(&mut queue, now).blob, 1);
    // Who wants something of it has it fetched.
    assert_eq!(queue.want(0, 0..1, "one", now), None);
    assert_eq!(fetched(&mut queue, now).pieces, 0..4);
    assert_eq!(queue.give_up(0), ["one"]);
}

#[test]
fn who_reads_front_to_back_finds_more_and_more() {
    let (mut queue, now) = queue(200, Background::Off);
    let mut at = 0;
    let mut ahead = Vec::new();
    for _ in 0..6 {
        queue.want(0, at..at + 2, "reader", now);
        let mut most = 0;
        while let Next::Fetch(run) = queue.next(now) {
            most = most.max(run.pieces.end.saturating_sub(at + 2));
            bring(&mut queue, &run, now);
        }
        ahead.push(most);
        at += 2;
    }
    assert_eq!(ahead, [4, 8, 16, 32, 32, 32]);
}
