//! The memory of all registrations.

use bytesize::ByteSize;

use super::*;

#[test]
fn what_registrations_take_up_is_bounded_in_all() {
    let mut fixture = Fixture::new();
    let large = |n: u8| {
        let mut large = info(0, n, Some(n), &[]);
        large.meta.insert("large".to_owned(), "x".repeat(4000));
        large
    };
    fixture.apply(registration(large(0)));
    fixture.catalog.settings.limits.memory = ByteSize::b(fixture.catalog.memory.used() as u64);
    let full = Err(Refusal::TooMuchMemory(fixture.catalog.settings.limits.memory));
    let refused = |fixture: &mut Fixture, info| {
        fixture.catalog.apply(fixture.now, registration(info)).map(|result| result.outcome)
    };
    let mut started_again = large(0);
    started_again.id = Some("another".to_owned());
    let mut changed = large(0);
    changed.meta.insert("more".to_owned(), "x".to_owned());
    for info in [info(0, 1, None, &[]), started_again, changed] {
        assert_eq!(refused(&mut fixture, info), full);
    }
    assert_eq!(refused(&mut fixture, large(0)), Ok(Unchanged));
    // What is removed counts until nobody can be shown it any more.
    fixture.apply(CatalogEvent::Deregister {
        key: key(0, 0),
        id: None,
        by: Initiator::Instance(String::new()),
    });
    assert_eq!(refused(&mut fixture, large(1)), full);
    fixture.catalog.settings.history.removed_max = 0;
    fixture.catalog.forget_removed(fixture.now);
    assert_eq!(fixture.catalog.memory.used(), 0);
    assert_eq!(refused(&mut fixture, large(1)), Ok(Changed));
}
