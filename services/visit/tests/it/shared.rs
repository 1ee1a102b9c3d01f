//! The shared count on a real etcd, under faults. A recorded history of visits must be that of one counter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hubspoke_etcd::{Config, Etcd, Op, Txn};
use hubspoke_testkit::etcd::{self, EtcdCluster, Proxy};
use hubspoke_testkit::eventually;
use hubspoke_visit::counter::VisitCounter;
use tokio::task::JoinSet;

const KEY: &str = "/hubspoke/counts/visit";

/// A visit that got a number.
#[derive(Debug, Clone, Copy)]
struct Visit {
    begun: Instant,
    answered: Instant,
    number: u64,
}

fn client(cluster: &EtcdCluster) -> Etcd {
    Etcd::new(Config { endpoints: cluster.endpoints(), ..Config::default() }).unwrap()
}

/// Holds a history to what one counter would have done: no number twice; and of two visits of which one was answered
/// before the other began, the earlier one has the lower number.
fn check(mut visits: Vec<Visit>) -> BTreeSet<u64> {
    let numbers: BTreeSet<u64> = visits.iter().map(|visit| visit.number).collect();
    assert_eq!(numbers.len(), visits.len(), "a number was given twice");
    // By number, each visit must have been answered after all lower ones have begun.
    visits.sort_by_key(|visit| visit.number);
    let mut latest_begin: Option<Visit> = None;
    for visit in visits {
        if let Some(lower) = latest_begin {
            assert!(visit.answered >= lower.begun, "{visit:?} was answered before {lower:?} began");
        }
        if latest_begin.is_none_or(|lower| visit.begun > lower.begun) {
            latest_begin = Some(visit);
        }
    }
    numbers
}

/// Visitors at several replicas, until they are stopped.
struct Visitors {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<(Vec<Visit>, u64)>,
}

impl Visitors {
    fn start(counters: &[VisitCounter], each: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for counter in counters.iter().flat_map(|counter| std::iter::repeat_n(counter, each)) {
            let (counter, stop) = (counter.clone(), stop.clone());
            tasks.spawn(async move {
                let (mut visits, mut failed) = (Vec::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    match counter.next().await {
                        Ok(number) => visits.push(Visit { begun, answered: Instant::now(), number }),
                        Err(_) => {
                            failed += 1;
                            tokio::task::yield_now().await; // it may have failed at once
                        }
                    }
                }
                (visits, failed)
            });
        }
        Self { stop, tasks }
    }

    async fn stop(self) -> (Vec<Visit>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let (visits, failed): (Vec<_>, Vec<_>) = self.tasks.join_all().await.into_iter().unzip();
        (visits.concat(), failed.into_iter().sum())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_count_together_without_gaps() {
    let Some(cluster) = etcd::start(3).await else { return };
    let counters: Vec<_> = (0..3).map(|_| VisitCounter::in_etcd(&client(&cluster), KEY)).collect();
    let visitors = Visitors::start(&counters, 20);
    let start = Instant::now();
    eventually("a while", async || start.elapsed() > Duration::from_secs(3)).await;
    let (visits, failed) = visitors.stop().await;
    assert_eq!(failed, 0);
    let numbers = check(visits);
    assert_eq!(numbers, (1..=numbers.len() as u64).collect(), "gaps");
    assert_eq!(counters[0].last().await, numbers.len() as u64);
    let writes: u64 =
        counters.iter().map(|counter| counter.stats().unwrap().writes.load(Ordering::Relaxed)).sum();
    assert!(writes < numbers.len() as u64 / 2, "visits share writes: {writes} for {}", numbers.len());
    println!("{} visits, {writes} writes", numbers.len());

    // Somebody sets the count, and a new replica goes on from there.
    let etcd = client(&cluster);
    etcd.txn(Txn::new().then(Op::put(KEY, "1000000"))).await.unwrap();
    assert_eq!(VisitCounter::in_etcd(&etcd, KEY).next().await.unwrap(), 1_000_001);
    etcd.txn(Txn::new().then(Op::put(KEY, "many"))).await.unwrap();
    let broken = VisitCounter::in_etcd(&etcd.within(Duration::from_millis(300)), KEY);
    broken.next().await.unwrap_err();
    assert_eq!(etcd.get(KEY).await.unwrap().unwrap().value, "many", "it is not overwritten");
}

/// More rounds by `HUBSPOKE_TEST_ROUNDS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_is_given_twice_or_out_of_order_while_leaders_are_killed() {
    let Some(mut cluster) = etcd::start(3).await else { return };
    let rounds =
        std::env::var("HUBSPOKE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let counters: Vec<_> = (0..3).map(|_| VisitCounter::in_etcd(&client(&cluster), KEY)).collect();
    let visitors = Visitors::start(&counters, 10);
    for round in 0..rounds {
        let before = counters[0].stats().unwrap().count.load(Ordering::Relaxed);
        let leader = cluster.leader().await;
        if round % 3 == 2 {
            cluster.signal(leader, "STOP").await;
            let counted = || counters[0].stats().unwrap().count.load(Ordering::Relaxed);
            eventually("counted without it", async || counted() > before + 100).await;
            cluster.signal(leader, "CONT").await;
        } else {
            cluster.kill(leader).await;
            cluster.ready().await;
            cluster.restart(leader).await;
        }
        eventually("counted again", async || {
            counters
                .iter()
                .all(|counter| counter.stats().unwrap().count.load(Ordering::Relaxed) > before + 200)
        })
        .await;
    }
    let (visits, failed) = visitors.stop().await;
    let count = visits.len() as u64;
    let numbers = check(visits);
    let lost: u64 =
        counters.iter().map(|counter| counter.stats().unwrap().lost.load(Ordering::Relaxed)).sum();
    let highest = *numbers.last().unwrap();
    println!(
        "{rounds} faults: {count} visits, {failed} failed, {lost} numbers lost, the highest is {highest}"
    );
    // On a busy machine an election may take longer than a visit waits. Then, and only then, there are gaps.
    assert_eq!(highest, count + lost, "each gap is counted");
    assert!(lost <= failed, "a number is lost only with its visit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_etcd_is_away_visits_fail_in_time_and_no_number_is_lost() {
    let Some(mut cluster) = etcd::start(3).await else { return };
    let counters: Vec<_> = (0..2)
        .map(|_| VisitCounter::in_etcd(&client(&cluster).within(Duration::from_secs(1)), KEY))
        .collect();
    let visitors = Visitors::start(&counters[..1], 20);
    let stats = counters[0].stats().unwrap();
    eventually("counted", async || stats.count.load(Ordering::Relaxed) > 200).await;
    cluster.kill_all().await;
    let start = Instant::now();
    let error = counters[1].next().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3), "{error} after {:?}", start.elapsed());
    let failures = stats.failures.load(Ordering::Relaxed);
    eventually("it is away", async || stats.failures.load(Ordering::Relaxed) > failures + 5).await;
    eventually("after a while, visits beyond a few fail at once", async || {
        let start = Instant::now();
        counters[0].next().await.is_err() && start.elapsed() < Duration::from_millis(500)
    })
    .await;
    cluster.restart_all().await;
    let before = stats.count.load(Ordering::Relaxed);
    eventually("counted again", async || stats.count.load(Ordering::Relaxed) > before + 200).await;
    let (visits, failed) = visitors.stop().await;
    assert!(failed > 0);
    let numbers = check(visits);
    // Nobody else has counted, so even the numbers of visits that have failed were taken again.
    assert_eq!(numbers, (1..=numbers.len() as u64).collect(), "gaps");
    assert_eq!(stats.lost.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_far_from_etcd_counts_beside_a_near_one_that_never_pauses() {
    let Some(cluster) = etcd::start(1).await else { return };
    let proxy = Proxy::start(cluster.addr(0)).await;
    proxy.delay(Duration::from_millis(50));
    let far = Etcd::new(Config { endpoints: vec![proxy.url()], ..Config::default() }).unwrap();
    let counters = [VisitCounter::in_etcd(&client(&cluster), KEY), VisitCounter::in_etcd(&far, KEY)];
    let near = Visitors::start(&counters[..1], 20);
    let stats = counters[0].stats().unwrap();
    eventually("the near one counts", async || stats.count.load(Ordering::Relaxed) > 200).await;
    let far = Visitors::start(&counters[1..], 5);
    let stats = counters[1].stats().unwrap();
    eventually("the far one counts, again and again", async || stats.writes.load(Ordering::Relaxed) >= 5)
        .await;
    let (mut visits, failed) = far.stop().await;
    assert_eq!(failed, 0, "none waits for longer than it may");
    visits.extend(near.stop().await.0);
    check(visits);
}

#[test]
fn the_checker_finds_what_it_is_for() {
    let start = Instant::now();
    let visit = |begun, answered, number| Visit {
        begun: start + Duration::from_secs(begun),
        answered: start + Duration::from_secs(answered),
        number,
    };
    check(vec![visit(0, 5, 2), visit(1, 3, 1), visit(4, 6, 3)]);
    for wrong in [
        vec![visit(0, 1, 1), visit(2, 3, 1)],
        vec![visit(0, 1, 2), visit(2, 3, 1)],
        vec![visit(0, 9, 1), visit(1, 2, 4), visit(0, 9, 2), visit(3, 9, 3)],
    ] {
        assert!(std::panic::catch_unwind(|| check(wrong)).is_err());
    }
}
