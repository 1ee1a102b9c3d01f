use super::*;

/// The key, with everything that may still be applied to it.
#[derive(Default)]
struct Key {
    record: Record,
    revision: i64,
}

impl Key {
    fn apply(&mut self, put: &Put) -> bool {
        let applied = put.revision == self.revision;
        if applied {
            self.record = put.record.clone();
            self.revision += 10;
        }
        applied
    }
}

fn visit(ledger: &mut Ledger) -> oneshot::Receiver<u64> {
    let (slot, number) = oneshot::channel();
    ledger.push(slot);
    number
}

fn ledger(name: &str, key: &Key) -> Ledger {
    let mut ledger = Ledger::new(name.to_owned());
    ledger.found(key.record.clone(), key.revision);
    ledger
}

/// Makes the next write and learns its outcome.
fn write(ledger: &mut Ledger, key: &mut Key) {
    let put = ledger.next().unwrap();
    if key.apply(&put) {
        ledger.applied(put, key.revision);
    } else {
        ledger.found(key.record.clone(), key.revision);
    }
}

fn number(mut visit: oneshot::Receiver<u64>) -> u64 {
    visit.try_recv().unwrap()
}

#[test]
fn visits_that_wait_share_a_write_and_replicas_share_the_count() {
    let mut key = Key::default();
    let (mut a, mut b) = (ledger("a", &key), ledger("b", &key));
    assert_eq!(a.next(), None);
    let visits = [visit(&mut a), visit(&mut a), visit(&mut a)];
    write(&mut a, &mut key);
    assert_eq!(visits.map(number), [1, 2, 3]);
    let late = visit(&mut b);
    write(&mut b, &mut key); // finds out that it is behind
    write(&mut b, &mut key);
    assert_eq!(number(late), 4);
    assert_eq!(key.record.to_string(), "4\nb 2\na 1\n");
}

#[test]
fn a_lost_reply_loses_no_number_even_if_others_have_counted_since() {
    for others in [false, true] {
        let mut key = Key::default();
        let (mut a, mut b) = (ledger("a", &key), ledger("b", &key));
        let visits = [visit(&mut a), visit(&mut a)];
        let put = a.next().unwrap();
        assert!(key.apply(&put), "and the reply is lost");
        if others {
            let other = visit(&mut b);
            write(&mut b, &mut key);
            write(&mut b, &mut key);
            assert_eq!(number(other), 3);
        }
        write(&mut a, &mut key);
        assert_eq!(visits.map(number), [1, 2]);
    }
}

#[test]
fn a_write_that_is_applied_late_is_recognised_or_can_never_be() {
    let mut key = Key::default();
    let mut a = ledger("a", &key);
    let visits = [visit(&mut a), visit(&mut a)];
    let delayed = a.next().unwrap();
    let second = a.next().unwrap(); // nothing was known of the first
    assert!(key.apply(&delayed), "the first overtakes");
    assert!(!key.apply(&second));
    a.found(key.record.clone(), key.revision);
    assert_eq!(visits.map(number), [1, 2]);

    let visits = [visit(&mut a), visit(&mut a)];
    let delayed = a.next().unwrap();
    write(&mut a, &mut key);
    assert!(!key.apply(&delayed), "the revision has moved on");
    assert_eq!(visits.map(number), [3, 4]);
}

#[test]
fn numbers_of_visits_that_have_left_are_taken_again() {
    let mut key = Key::default();
    let mut a = ledger("a", &key);
    let (left, stays) = (visit(&mut a), visit(&mut a));
    let put = a.next().unwrap();
    assert!(key.apply(&put), "and the reply is lost");
    drop(left);
    let newcomer = visit(&mut a);
    write(&mut a, &mut key);
    assert_eq!(number(stays), 1);
    write(&mut a, &mut key);
    assert_eq!(number(newcomer), 2);
    assert_eq!(key.record.count, 2);

    // Unless somebody else has counted on top.
    let left = visit(&mut a);
    assert!(key.apply(&a.next().unwrap()));
    drop(left);
    let mut b = ledger("b", &key);
    let other = visit(&mut b);
    write(&mut b, &mut key);
    assert_eq!(number(other), 4);
    let next = visit(&mut a);
    let put = a.next().unwrap();
    assert!(!key.apply(&put));
    assert_eq!(a.found(key.record.clone(), key.revision), (0, 1), "3 is lost");
    write(&mut a, &mut key);
    assert_eq!(number(next), 5);
}

#[test]
fn who_waits_while_nothing_is_known_takes_no_memory_once_it_has_left() {
    let mut key = Key::default();
    let mut a = ledger("a", &key);
    let first = visit(&mut a);
    assert!(a.next().is_some());
    for _ in 0..1_000 {
        drop(visit(&mut a));
        assert!(a.next().is_some());
        a.not_applied();
    }
    assert!(a.slots.len() <= 2, "{}", a.slots.len());
    write(&mut a, &mut key);
    assert_eq!(number(first), 1);
}

#[test]
fn a_count_that_went_back_gives_no_number_twice_here() {
    let mut key = Key::default();
    let mut a = ledger("a", &key);
    let visits = [visit(&mut a), visit(&mut a)];
    write(&mut a, &mut key);
    assert_eq!(visits.map(number), [1, 2]);
    let mut restored = Key { record: Record::default(), revision: 3 };
    let next = visit(&mut a);
    write(&mut a, &mut restored);
    write(&mut a, &mut restored);
    assert_eq!(number(next), 3);
}

/// Random histories of several replicas whose writes are applied at once, late or never, and whose replies are lost.
#[test]
fn no_history_gives_a_number_twice_or_out_of_order() {
    use std::collections::BTreeSet;
    let mut seed = 1u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let mut key = Key::default();
        let mut replicas: Vec<Ledger> = (0..3).map(|n| ledger(&format!("r{n}"), &key)).collect();
        let mut waiting: Vec<(u64, oneshot::Receiver<u64>)> = Vec::new();
        let mut delayed: Vec<Put> = Vec::new();
        let mut numbers = BTreeSet::new();
        let mut answered = 0;
        for _ in 0..200 {
            let at = random(3) as usize;
            match random(6) {
                0 | 1 => waiting.push((answered, visit(&mut replicas[at]))),
                2 if !delayed.is_empty() => {
                    key.apply(&delayed.swap_remove(random(delayed.len() as u64) as usize));
                }
                3 if !waiting.is_empty() && random(4) == 0 => {
                    waiting.swap_remove(random(waiting.len() as u64) as usize);
                }
                _ => {
                    let ledger = &mut replicas[at];
                    let Some(put) = ledger.next() else { continue };
                    match random(5) {
                        0 => delayed.push(put),
                        1 => {
                            key.apply(&put);
                        }
                        2 => ledger.not_applied(),
                        _ if key.apply(&put) => {
                            ledger.applied(put, key.revision);
                        }
                        _ => {
                            ledger.found(key.record.clone(), key.revision);
                        }
                    }
                }
            }
            let mut newest = answered;
            waiting.retain_mut(|(floor, number)| match number.try_recv() {
                Ok(number) => {
                    assert!(numbers.insert(number), "{number} twice");
                    assert!(number > *floor, "{number} after {floor} was answered");
                    newest = newest.max(number);
                    false
                }
                Err(_) => true,
            });
            answered = newest;
        }
    }
}
