use hubspoke_chassis::Metrics;
use opentelemetry::KeyValue;

#[test]
fn more_series_are_shown_if_they_are_allowed() {
    let metrics = Metrics::new("registry", "registry-1").unwrap();
    metrics.allow_series("wide", 3_000);
    for name in ["wide", "usual"] {
        let counter = metrics.meter().u64_counter(name).build();
        (0..2_500).for_each(|n| counter.add(1, &[KeyValue::new("n", n)]));
    }
    let text = metrics.render();
    let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!((series("wide_total{"), series("usual_total{")), (2_500, 2_001));
    assert_eq!(text.matches("otel_metric_overflow=").count(), 1);
}
